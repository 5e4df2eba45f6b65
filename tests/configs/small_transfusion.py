# A detector that is small in every respect, for tests of the tools.
_base_ = ["../../configs/_base_/datasets/nuscenes_lidar.py", "../../configs/_base_/runtime.py"]

grid = dict(point_range=[-51.2, -51.2, -5.0, 51.2, 51.2, 3.0], voxel_size=[0.8, 0.8, 8.0], stride=2)
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False)
test_dataloader = dict(num_workers=0)

model = dict(
    type="Detector3D",
    data_preprocessor=dict(type="Preprocessor", grid="$grid", num_features="$num_point_features"),
    point_branch=dict(
        type="PointBranch",
        grid="$grid",
        voxel_encoder=dict(type="DynamicVoxelEncoder", grid="$grid", num_features="$num_point_features", channels=[16]),
        bev_backbone=dict(
            type="ResidualBEVBackbone",
            in_channels=16,
            num_blocks=[0, 0],
            strides=[2, 2],
            channels=[16, 24],
            up_strides=[1, 2],
            up_channels=[12, 12],
        ),
    ),
    head=dict(
        type="TransFusionHead",
        grid="$grid",
        class_names="$class_names",
        in_channels=24,
        channels=16,
        num_queries=40,
        num_heads=4,
        ffn_channels=32,
        window_radius=5,
        every_cell=["pedestrian", "traffic_cone"],
        decoder=dict(center_range=[-61.2, -61.2, -10.0, 61.2, 61.2, 10.0], iou_exponents=0.5),
    ),
)

train_cfg = dict(type="IterBasedTrainLoop", max_iters=3)
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=1e-3))
