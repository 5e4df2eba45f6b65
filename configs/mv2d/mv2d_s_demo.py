# A small MV2D-S for the synthetic world, trained by the clock: thin ResNet, 192 x 352 pixels.
_base_ = ["../_base_/datasets/nuscenes_camera.py", "../_base_/runtime_by_the_clock.py"]

data_root = "data/synthetic"
image_size = [192, 352]
resize_factors = [0.86, 0.96]  # of images of 225 x 400 pixels, a quarter of nuScenes'
past = []

train_pipeline = [
    "$load_images",
    dict(type="LoadAnnotations", class_names="$class_names", min_points=1),
    dict(type="RangeFilter", grid="$grid"),
    # No mirroring: traffic keeps to the right, and that side tells fronts from backs.
    dict(type="ResizeImages", factors="$resize_factors", shared=True),
    dict(type="CropImages", size="$image_size", horizontal="random", shared=True),
    dict(type="RandomRotate", angles=[-0.3925, 0.3925]),
    dict(type="RandomScale", factors=[0.95, 1.05]),
]
train_dataloader = dict(batch_size=2, num_workers=1)
test_dataloader = dict(num_workers=1)

model = dict(
    type="Detector3D",
    data_preprocessor=dict(type="Preprocessor", images=dict(size_divisor=32)),
    image_branch=dict(
        type="DetectorBranch",
        backbone=dict(type="ResNet", depth=50, base_channels=16, deformable_stages=[3]),
        neck=dict(type="FPN", in_channels=[64, 128, 256, 512], out_channels=64, num_outs=5),
        detector=dict(
            type="FasterRCNN",
            class_names="$class_names",
            channels=64,
            hidden_channels=128,
            proposals=dict(per_level=[300, 150], max_proposals=100),
            detections=dict(max_boxes=20, min_side=4.0),
        ),
    ),
    head=dict(
        type="MV2DHead",
        grid="$grid",
        class_names="$class_names",
        in_channels=64,
        channels=64,
        level=1,
        stride=8,
        num_layers=3,
        layer=dict(num_heads=4, ffn_channels=128, dropout=0.0),
        queries=dict(fc_channels=128, hidden_channels=[128, 64]),
        num_depths=32,
        decoder=dict(center_range=[-61.2, -61.2, -10.0, 61.2, 61.2, 10.0], score_threshold=0.02),
    ),
)

train_cfg = dict(max_seconds=1800)
val_cfg = None
val_dataloader = None
val_evaluator = None
peak_lr = 2e-3
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type="AdamW", lr=1e-4, weight_decay=0.01), clip_grad=dict(max_norm=35)
)
