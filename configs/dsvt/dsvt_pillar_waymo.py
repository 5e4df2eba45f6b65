# DSVT pillar detector as published for Waymo: 0.32 m pillars, 4 blocks of width 192, centre head with IoU branch.
_base_ = [
    "../_base_/datasets/waymo_lidar.py",
    "../_base_/schedules/dsvt_waymo_24e.py",
    "../_base_/runtime.py",
]

grid = dict(point_range=[-74.88, -74.88, -2.0, 74.88, 74.88, 4.0], voxel_size=[0.32, 0.32, 6.0])
sync_bn = "torch"  # on GPUs

model = dict(
    type="Detector3D",
    data_preprocessor=dict(type="Preprocessor", grid="$grid", num_features="$num_point_features"),
    point_branch=dict(
        type="PointBranch",
        grid="$grid",
        voxel_encoder=dict(
            type="DynamicVoxelEncoder", grid="$grid", num_features="$num_point_features", channels=[192, 192]
        ),
        backbone=dict(
            type="DSVT",
            grid="$grid",
            stages=[
                dict(
                    channels=192,
                    num_heads=8,
                    ffn_channels=384,
                    num_blocks=4,
                    set_size=36,
                    window_shape=(1, 12, 12),
                    shifts=((0, 0, 0), (0, 6, 6)),
                    hybrid_factor=(1, 2, 2),
                )
            ],
        ),
        bev_backbone=dict(
            type="ResidualBEVBackbone",
            in_channels=192,
            num_blocks=[1, 2, 2],
            strides=[1, 2, 2],
            channels=[128, 128, 256],
            up_strides=[1, 2, 4],
            up_channels=[128, 128, 128],
        ),
    ),
    head=dict(
        type="CenterHead",
        grid="$grid",
        class_names="$class_names",
        tasks=["$class_names"],
        in_channels=384,
        extra_branches=["iou"],
        loss_weights=dict(diou=2.0),
        decoder=dict(
            center_range=[-80.0, -80.0, -10.0, 80.0, 80.0, 10.0],
            top_k=500,
            score_threshold=0.1,
            iou_exponents=[0.68, 0.71, 0.65],
            nms_threshold=[0.7, 0.6, 0.55],
            nms_pre=4096,
            nms_post=500,
        ),
    ),
)
