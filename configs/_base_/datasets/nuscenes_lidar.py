# nuScenes, LiDAR only: ten classes, key frame plus nine sweeps. The config that uses this gives `grid`.
_base_ = ["./loaders.py"]

class_names = [
    "car", "truck", "trailer", "bus", "construction_vehicle",
    "bicycle", "motorcycle", "pedestrian", "traffic_cone", "barrier",
]  # fmt: skip
data_root = "data/nuscenes"
num_point_features = 5  # x, y, z, intensity, time lag

# What a pipeline may paste from other scenes (tools/create_data.py objects); a scene's own objects are among the
# counts.
paste_objects = dict(
    type="PasteGroundTruth",
    data_root="$data_root",
    database="sparse3d_train_objects.arrow",
    class_names="$class_names",
    counts=dict(
        car=2,
        truck=3,
        construction_vehicle=7,
        bus=4,
        trailer=6,
        barrier=2,
        motorcycle=6,
        bicycle=6,
        pedestrian=2,
        traffic_cone=2,
    ),
    min_points=5,
)

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
test_evaluator = dict(type="NuScenesMetric", class_names="$class_names", modality=dict(use_lidar=True))
