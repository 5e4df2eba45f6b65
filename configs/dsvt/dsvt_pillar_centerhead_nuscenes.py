# DSVT pillar backbone at its published nuScenes size (0.3 m pillars, 4 blocks, width 128) with CenterPoint's six-group
# centre head. The published nuScenes model has the TransFusion head; this one is convolutional after the backbone.
_base_ = [
    "../_base_/datasets/nuscenes_lidar.py",
    "../_base_/schedules/dsvt_nuscenes_20e.py",
    "../_base_/runtime.py",
]

grid = dict(point_range=[-54.0, -54.0, -5.0, 54.0, 54.0, 3.0], voxel_size=[0.3, 0.3, 8.0], stride=2)

model = dict(
    type="Detector3D",
    data_preprocessor=dict(type="Preprocessor", grid="$grid", num_features="$num_point_features", keep_outside_z=True),
    point_branch=dict(
        type="PointBranch",
        grid="$grid",
        voxel_encoder=dict(
            type="DynamicVoxelEncoder", grid="$grid", num_features="$num_point_features", channels=[128, 128]
        ),
        backbone=dict(
            type="DSVT",
            grid="$grid",
            stages=[
                dict(
                    channels=128,
                    num_heads=8,
                    ffn_channels=256,
                    num_blocks=4,
                    set_size=90,
                    window_shape=(1, 30, 30),
                    shifts=((0, 0, 0), (0, 15, 15)),
                )
            ],
        ),
        bev_backbone=dict(
            type="ResidualBEVBackbone",
            in_channels=128,
            num_blocks=[1, 2, 2],
            strides=[1, 2, 2],
            channels=[128, 128, 256],
            up_strides=[0.5, 1, 2],
            up_channels=[128, 128, 128],
        ),
    ),
    head=dict(
        type="CenterHead",
        grid="$grid",
        class_names="$class_names",
        tasks=[
            ["car"],
            ["truck", "construction_vehicle"],
            ["bus", "trailer"],
            ["barrier"],
            ["motorcycle", "bicycle"],
            ["pedestrian", "traffic_cone"],
        ],
        in_channels=384,
        extra_branches=["vel"],
        loss_weights=dict(box=0.25),
        code_weights=[1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.2, 0.2],
        decoder=dict(
            center_range=[-61.2, -61.2, -10.0, 61.2, 61.2, 10.0],
            score_threshold=0.1,
            nms_threshold=0.2,
            nms_pre=1000,
            nms_post=83,
            nms_quarter_turn=False,
        ),
    ),
)
