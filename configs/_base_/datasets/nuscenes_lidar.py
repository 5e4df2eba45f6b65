# nuScenes, LiDAR only: ten classes, key frame plus nine sweeps. The config that uses this gives `grid`.
class_names = [
    "car", "truck", "trailer", "bus", "construction_vehicle",
    "bicycle", "motorcycle", "pedestrian", "traffic_cone", "barrier",
]  # fmt: skip
data_root = "data/nuscenes"
num_point_features = 5  # x, y, z, intensity, time lag

load_points = dict(type="LoadPoints", sweeps=9, pad_empty_sweeps=True)
train_pipeline = [
    "$load_points",
    dict(type="LoadAnnotations", class_names="$class_names", min_points=1),
    dict(type="RandomFlip", x=0.5, y=0.5),
    dict(type="RandomRotate", angles=[-0.785398, 0.785398]),
    dict(type="RandomScale", factors=[0.9, 1.1]),
    dict(type="RandomTranslate", std=0.5),
    # Voxels here hold all of their points, so the order of points does not matter; shuffling is for those with a limit.
    dict(type="RangeFilter", grid="$grid"),
]
test_pipeline = ["$load_points", dict(type="RangeFilter", grid="$grid")]

train_dataset = dict(
    type="NuScenesDataset",
    data_root="$data_root",
    index="sparse3d_train.arrow",
    class_names="$class_names",
    pipeline="$train_pipeline",
)
test_dataset = dict(
    type="NuScenesDataset",
    data_root="$data_root",
    index="sparse3d_val.arrow",
    class_names="$class_names",
    pipeline="$test_pipeline",
    test_mode=True,
)
train_dataloader = dict(
    dataset="$train_dataset",
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    collate_fn=dict(type="pseudo_collate"),
)
test_dataloader = dict(
    dataset="$test_dataset",
    batch_size=1,
    num_workers=2,
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="pseudo_collate"),
)
test_evaluator = dict(type="NuScenesMetric", class_names="$class_names", modality=dict(use_lidar=True))
test_cfg = dict(type="TestLoop")
val_dataloader = "$test_dataloader"
val_evaluator = "$test_evaluator"
val_cfg = dict(type="ValLoop")
