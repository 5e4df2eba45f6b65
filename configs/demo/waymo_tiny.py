# A small pillar detector for the synthetic world in Waymo's format, trained by the clock on two CPU cores.
_base_ = ["../_base_/datasets/waymo_lidar.py", "../_base_/runtime_by_the_clock.py"]

data_root = "data/synthetic_waymo"
grid = dict(point_range=[-51.2, -51.2, -2.0, 51.2, 51.2, 4.0], voxel_size=[0.4, 0.4, 6.0], stride=2)

train_pipeline = [
    "$load_points",
    dict(type="LoadAnnotations", class_names="$class_names", min_points=1),
    # No mirroring: traffic keeps to the right, and that side tells fronts from backs.
    dict(type="RandomRotate", angles=[-0.4, 0.4]),
    dict(type="RandomScale", factors=[0.95, 1.05]),
    dict(type="RangeFilter", grid="$grid"),
]
train_dataloader = dict(batch_size=2, num_workers=1)
test_dataloader = dict(num_workers=1)

model = dict(
    type="Detector3D",
    data_preprocessor=dict(type="Preprocessor", grid="$grid", num_features="$num_point_features"),
    point_branch=dict(
        type="PointBranch",
        grid="$grid",
        voxel_encoder=dict(type="DynamicVoxelEncoder", grid="$grid", num_features="$num_point_features", channels=[32]),
        bev_backbone=dict(
            type="ResidualBEVBackbone",
            in_channels=32,
            num_blocks=[0, 1, 1],
            strides=[2, 2, 2],
            channels=[32, 48, 64],
            up_strides=[1, 2, 4],
            up_channels=[16, 16, 16],
        ),
    ),
    head=dict(
        type="CenterHead",
        grid="$grid",
        class_names="$class_names",
        tasks=["$class_names"],
        in_channels=48,
        shared_channels=32,
        num_convs=1,
        num_heatmap_convs=1,
        targets=dict(min_radius=1),
        decoder=dict(
            center_range=[-51.2, -51.2, -2.0, 51.2, 51.2, 4.0],
            top_k=200,
            score_threshold=0.02,
            nms_threshold=0.2,
            nms_quarter_turn=False,
        ),
    ),
)

train_cfg = dict(max_seconds=480)
val_cfg = None
val_dataloader = None
val_evaluator = None
