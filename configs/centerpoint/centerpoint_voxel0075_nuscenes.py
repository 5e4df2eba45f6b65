# CenterPoint as published for nuScenes: 7.5 cm voxels, sparse residual encoder, SECOND's backbone on 180 x 180 cells,
# centre head of six task groups.
_base_ = [
    "../_base_/datasets/nuscenes_lidar.py",
    "../_base_/schedules/centerpoint_nuscenes_20e.py",
    "../_base_/runtime.py",
]

grid = dict(point_range=[-54.0, -54.0, -5.0, 54.0, 54.0, 3.0], voxel_size=[0.075, 0.075, 0.2], stride=8)

train_pipeline = [
    "$load_points",
    dict(type="LoadAnnotations", class_names="$class_names", min_points=1),
    "$paste_objects",
    dict(type="RandomFlip", x=0.5, y=0.5),
    dict(type="RandomRotate", angles=[-0.785398, 0.785398]),
    dict(type="RandomScale", factors=[0.9, 1.1]),
    dict(type="RandomTranslate", std=0.5),
    dict(type="RangeFilter", grid="$grid"),
    dict(type="ShufflePoints"),
]
train_dataset = dict(class_balanced=True)

sync_bn = "torch"  # on GPUs

model = dict(
    type="Detector3D",
    data_preprocessor=dict(type="Preprocessor", grid="$grid", num_features="$num_point_features"),
    point_branch=dict(
        type="SparseConvBranch",
        grid="$grid",
        voxel_encoder=dict(type="MeanVoxelEncoder", num_features="$num_point_features", max_points=10),
        backbone=dict(
            type="SparseEncoder",
            grid="$grid",
            in_channels="$num_point_features",
            channels=[16, 32, 64, 128],
            num_blocks=[2, 2, 2, 2],
            block="residual",
            out_channels=128,
        ),
        bev_backbone=dict(
            type="SECONDBEVBackbone",
            in_channels=256,
            num_blocks=[5, 5],
            strides=[1, 2],
            channels=[128, 256],
            up_strides=[1, 2],
            up_channels=[256, 256],
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
        in_channels=512,
        extra_branches=["vel"],
        bias_before_norm=True,
        norm=dict(eps=1e-5, momentum=0.1),
        loss_weights=dict(box=0.25),
        code_weights=[1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.2, 0.2],
        decoder=dict(
            center_range=[-61.2, -61.2, -10.0, 61.2, 61.2, 10.0],
            top_k=1000,
            score_threshold=0.1,
            nms_scope="task",
            nms_threshold=0.2,
            nms_pre=1000,
            nms_post=83,
            nms_quarter_turn=False,
        ),
    ),
)
