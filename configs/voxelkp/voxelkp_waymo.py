# VoxelKP as published for Waymo: 0.1 m voxels, six stages of up to 256 channels, a sparse map of 384.
_base_ = [
    "../_base_/datasets/waymo_keypoints.py",
    "../_base_/schedules/voxelkp_waymo_36e.py",
    "../_base_/runtime.py",
]

grid = dict(point_range=[-75.2, -75.2, -2.0, 75.2, 75.2, 4.0], voxel_size=[0.1, 0.1, 0.1], stride=8)
map_channels = 384
sync_bn = "torch"  # on GPUs: the selective kernels squeeze a scan to one row, and two rows are no statistics

model = dict(
    type="Detector3D",
    data_preprocessor=dict(type="Preprocessor", grid="$grid", num_features="$num_point_features"),
    point_branch=dict(
        type="SparseMapBranch",
        voxel_encoder=dict(type="MeanVoxelEncoder", num_features="$num_point_features", max_points=5),
        backbone=dict(
            type="VoxelKPEncoder",
            grid="$grid",
            in_channels="$num_point_features",
            channels=[32, 64, 128, 256, 256, 256],
            kernel_sizes=[5, 5, 3, 3, 3],
            out_channels="$map_channels",
        ),
    ),
    head=dict(
        type="KeypointHead",
        grid="$grid",
        in_channels="$map_channels",
        decoder=dict(
            center_range=[-75.2, -75.2, -2.0, 75.2, 75.2, 4.0],
            top_k=500,
            score_threshold=0.3,
            iou_exponents=[0.68],
            nms_threshold=0.8,
            nms_pre=2048,
            nms_post=200,
            nms_quarter_turn=False,
        ),
    ),
)
