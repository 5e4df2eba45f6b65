# A small VoxelKP for the synthetic world in Waymo's format: trained by the clock on two CPU cores.
_base_ = ["../_base_/datasets/waymo_keypoints.py", "../_base_/runtime_by_the_clock.py"]

data_root = "data/synthetic_waymo"
grid = dict(point_range=[-25.6, -25.6, -1.0, 25.6, 25.6, 3.0], voxel_size=[0.2, 0.2, 0.2], stride=8)
map_channels = 64

train_pipeline = [
    "$load_points",
    dict(type="LoadAnnotations", class_names="$class_names", min_points=1, keypoints=True),
    dict(type="RemoveUnlabelledPeople"),
    "$augment",
    dict(type="RangeFilter", grid="$grid"),
]
train_dataloader = dict(num_workers=1)
test_dataloader = dict(num_workers=1)

model = dict(
    type="Detector3D",
    data_preprocessor=dict(type="Preprocessor", grid="$grid", num_features="$num_point_features"),
    point_branch=dict(
        type="SparseMapBranch",
        voxel_encoder=dict(type="MeanVoxelEncoder", num_features="$num_point_features"),
        backbone=dict(
            type="VoxelKPEncoder",
            grid="$grid",
            in_channels="$num_point_features",
            channels=[16, 16, 32, 32, 32, 32],
            kernel_sizes=[3, 3, 3, 3, 3],
            out_channels="$map_channels",
            windows_from_corner=True,
        ),
    ),
    head=dict(
        type="KeypointHead",
        grid="$grid",
        in_channels="$map_channels",
        targets=dict(learn_missing=False),
        decoder=dict(
            center_range=[-25.6, -25.6, -1.0, 25.6, 25.6, 3.0],
            top_k=100,
            score_threshold=0.2,
            iou_exponents=[0.68],
            nms_threshold=0.2,
            nms_quarter_turn=False,
        ),
    ),
)

train_cfg = dict(max_seconds=480)
val_cfg = None
val_dataloader = None
val_evaluator = None
