# A small SparseFusion for the synthetic world, trained by the clock from random weights: 20 cm voxels, a thin ResNet on
# images of 192 x 352 pixels, 60 + 60 candidates.
_base_ = ["../_base_/datasets/nuscenes_fusion.py", "../_base_/runtime_by_the_clock.py"]

data_root = "data/synthetic"
grid = dict(point_range=[-51.2, -51.2, -5.0, 51.2, 51.2, 3.0], voxel_size=[0.2, 0.2, 0.2], stride=4)
image_scale = [0.853334, 0.853334]  # of images of 225 x 400 pixels, a quarter of nuScenes'
image_size = [192, 352]
level_extents = [16.0, 32.0, 64.0]  # of images that are about a third of the published ones
channels = 64
num_queries = 60

load_points = dict(sweeps=1)
train_pipeline = [
    "$load_points",
    "$load_images",
    dict(type="LoadAnnotations", class_names="$class_names", min_points=1),
    dict(type="MarkVisible"),
    # No mirroring: traffic keeps to the right, and that side tells fronts from backs.
    dict(type="RandomRotate", angles=[-0.4, 0.4]),
    dict(type="RandomScale", factors=[0.95, 1.05]),
    dict(type="ZoomImages", factors=[0.9, 1.1]),
    dict(type="ResizeImages", factors="$image_scale"),
    dict(type="RangeFilter", grid="$grid", points=False),
]
train_dataset = dict(class_balanced=False)
train_dataloader = dict(batch_size=2, num_workers=1)
test_dataloader = dict(num_workers=1)

model = dict(
    type="Detector3D",
    data_preprocessor=dict(
        type="Preprocessor",
        grid="$grid",
        num_features="$num_point_features",
        images=dict(size_divisor=32, min_size="$image_size"),
    ),
    image_branch=dict(
        type="DepthAwareImageBranch",
        backbone=dict(type="ResNet", depth=50, base_channels=16),
        neck=dict(type="FPN", in_channels=[64, 128, 256, 512], out_channels=64, num_outs=4),
        depth=dict(in_channels=64, channels="$channels"),
    ),
    point_branch=dict(
        type="HeightAwareBranch",
        grid="$grid",
        voxel_encoder=dict(type="MeanVoxelEncoder", num_features="$num_point_features"),
        backbone=dict(
            type="SparseEncoder",
            grid="$grid",
            in_channels="$num_point_features",
            channels=[16, 32, 48],
            num_blocks=[1, 1, 1],
            block="plain",
            out_channels=16,
        ),
        bev_backbone=dict(
            type="SECONDBEVBackbone",
            in_channels=64,
            num_blocks=[2, 2],
            strides=[1, 2],
            channels=[48, 64],
            up_strides=[1, 2],
            up_channels=[48, 48],
        ),
    ),
    head=dict(
        type="SparseFusionHead",
        grid="$grid",
        class_names="$class_names",
        in_channels=96,
        channels="$channels",
        num_queries="$num_queries",
        num_camera_queries="$num_queries",
        ffn_channels=128,
        dropout=0.0,
        every_cell=["pedestrian", "traffic_cone"],
        targets=dict(min_radius=1, level_extents="$level_extents"),
        decoder=dict(
            center_range=[-51.2, -51.2, -5.0, 51.2, 51.2, 3.0],
            nms_thresholds=dict(car=0.35, truck=0.35, bus=0.35, motorcycle=0.1, pedestrian=0.1, traffic_cone=0.1),
            keep_zero_scores=False,
        ),
    ),
)

train_cfg = dict(max_seconds=1800)
val_cfg = None
val_dataloader = None
val_evaluator = None
peak_lr = 2e-3
optim_wrapper = dict(optimizer=dict(_delete_=True, type="AdamW", lr=2e-4, weight_decay=0.01))
