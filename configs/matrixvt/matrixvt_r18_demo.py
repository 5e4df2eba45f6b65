# A small MatrixVT for the synthetic world, trained by the clock: thin ResNet-18, 96 x 256 pixels.
_base_ = ["../_base_/datasets/nuscenes_camera_bev.py", "../_base_/runtime_by_the_clock.py"]

data_root = "data/synthetic"
# What lies further away is a few pixels in images of this size.
grid = dict(point_range=[-32.0, -32.0, -5.0, 32.0, 32.0, 3.0])
image_size = [96, 256]
resize_factors = [0.62, 0.70]  # of images of 225 x 400 pixels, a quarter of nuScenes'
depth_bins = [2.0, 46.0, 1.0]

train_pipeline = [
    "$load_points",
    "$load_images",
    dict(type="LoadAnnotations", class_names="$class_names", min_points=1),
    dict(type="ToVehicleFrame"),
    # No mirroring: traffic keeps to the right, and that side tells fronts from backs.
    dict(type="ResizeImages", factors="$resize_factors"),
    dict(type="CropImages", size="$image_size", horizontal="random"),
    dict(type="RandomRotate", angles=[-0.3926991, 0.3926991]),
    dict(type="RandomScale", factors=[0.95, 1.05]),
    dict(type="MakeDepthMaps"),
    dict(type="RangeFilter", grid="$grid"),
]
train_dataloader = dict(batch_size=2, num_workers=1)
test_dataloader = dict(num_workers=1)

model = dict(
    type="Detector3D",
    data_preprocessor=dict(type="Preprocessor", images=dict(size_divisor=16)),
    image_branch=dict(
        type="ImageBEVBranch",
        backbone=dict(type="ResNet", depth=18, base_channels=16),
        neck=dict(
            type="SECONDFPN",
            in_channels=[16, 32, 64, 128],
            up_strides=[0.25, 0.5, 1, 2],
            up_channels=[32, 32, 32, 32],
        ),
        view_transform=dict(
            type="MatrixVT",
            grid="$grid",
            depth_bins="$depth_bins",
            in_channels=128,
            mid_channels=64,
            channels=32,
            prime_channels=64,
        ),
        bev_backbone=dict(
            type="ResNetBEVBackbone",
            in_channels=32,
            num_blocks=[1, 1, 1],
            channels=[32, 48, 64],
            up_channels=[16, 16, 16, 16],
        ),
        depth_weight="$depth_weight",
    ),
    head=dict(
        type="CenterHead",
        grid="$grid",
        class_names="$class_names",
        tasks=["$class_names"],
        in_channels=64,
        shared_channels=32,
        num_convs=1,
        num_heatmap_convs=1,
        extra_branches=["vel", "axis"],
        loss_weights=dict(box=0.25),
        targets=dict(min_radius=1, box_radius=1),
        decoder=dict(
            center_range=[-51.2, -51.2, -5.0, 51.2, 51.2, 5.0],
            top_k=300,
            score_threshold=0.02,
            nms_threshold=0.2,
            nms_quarter_turn=False,
            max_per_sample=200,
        ),
    ),
)

train_cfg = dict(max_seconds=2700)
val_cfg = None
val_dataloader = None
val_evaluator = None
peak_lr = 2e-3
optim_wrapper = dict(optimizer=dict(_delete_=True, type="AdamW", lr=1e-4, weight_decay=0.01))
