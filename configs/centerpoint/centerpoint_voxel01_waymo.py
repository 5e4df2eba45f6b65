# CenterPoint for Waymo as OpenPCDet publishes it: voxels of 10 x 10 x 15 cm, sparse residual encoder, SECOND's backbone
# on 188 x 188 cells, one centre head of three classes; a fifth of the frames.
_base_ = [
    "../_base_/datasets/waymo_lidar.py",
    "../_base_/schedules/centerpoint_waymo_30e.py",
    "../_base_/runtime.py",
]

grid = dict(point_range=[-75.2, -75.2, -2.0, 75.2, 75.2, 4.0], voxel_size=[0.1, 0.1, 0.15], stride=8)

train_pipeline = [
    "$load_points",
    dict(type="LoadAnnotations", class_names="$class_names", min_points=1),
    "$paste_vehicles",
    "$paste_people",
    dict(type="RandomFlip", x=0.5, y=0.5),
    dict(type="RandomRotate", angles=[-0.785398, 0.785398]),
    dict(type="RandomScale", factors=[0.95, 1.05]),
    dict(type="RangeFilter", grid="$grid"),
    dict(type="ShufflePoints"),
]
train_dataset = dict(interval=5)
train_dataloader = dict(batch_size=4)

model = dict(
    type="Detector3D",
    data_preprocessor=dict(type="Preprocessor", grid="$grid", num_features="$num_point_features"),
    point_branch=dict(
        type="SparseConvBranch",
        grid="$grid",
        voxel_encoder=dict(type="MeanVoxelEncoder", num_features="$num_point_features", max_points=5),
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
        tasks=["$class_names"],
        in_channels=512,
        bias_before_norm=True,
        norm=dict(eps=1e-5, momentum=0.1),
        decoder=dict(
            center_range=[-75.2, -75.2, -2.0, 75.2, 75.2, 4.0],
            top_k=500,
            score_threshold=0.1,
            nms_scope="task",
            nms_threshold=0.7,
            nms_pre=4096,
            nms_post=500,
            nms_quarter_turn=False,
        ),
    ),
)
