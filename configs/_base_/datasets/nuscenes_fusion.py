# nuScenes, LiDAR and cameras: key frame plus ten sweeps, six images. The config that uses this may change
# `image_scale`, which images are scaled by, and `image_size` (height, width), which they are padded to.
_base_ = ["./loaders.py"]

# Classes and cameras stand in the order that SparseFusion's published weights depend on.
class_names = [
    "car", "truck", "construction_vehicle", "bus", "trailer",
    "barrier", "motorcycle", "bicycle", "pedestrian", "traffic_cone",
]  # fmt: skip
camera_names = [
    "CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_BACK_RIGHT", "CAM_BACK", "CAM_BACK_LEFT",
]  # fmt: skip
data_root = "data/nuscenes"
num_point_features = 5  # x, y, z, intensity, time lag
grid = dict(point_range=[-54.0, -54.0, -5.0, 54.0, 54.0, 3.0], voxel_size=[0.075, 0.075, 0.2], stride=8)
image_scale = [0.4977778, 0.4977778]  # 900 x 1600 -> 448 x 796
image_size = [448, 800]

load_points = dict(type="LoadPoints", sweeps=10, pad_empty_sweeps=True)
load_images = dict(type="LoadImages", names="$camera_names")
train_pipeline = [
    "$load_points",
    "$load_images",
    dict(type="LoadAnnotations", class_names="$class_names", min_points=1),
    dict(type="MarkVisible"),
    dict(type="RandomRotate", angles=[-0.785, 0.785]),
    dict(type="RandomScale", factors=[0.9, 1.1]),
    dict(type="RandomTranslate", std=0.5),
    dict(type="RandomFlip", x=0.5, y=0.5),
    dict(type="MirrorImagesWithWorld"),
    dict(type="ZoomImages", factors=[0.9, 1.1]),
    dict(type="ResizeImages", factors="$image_scale"),
    # Points beyond the range still tell the cameras how far away things are.
    dict(type="RangeFilter", grid="$grid", points=False),
    dict(type="ShufflePoints"),
]
test_pipeline = ["$load_points", "$load_images", dict(type="ResizeImages", factors="$image_scale")]

train_dataset = dict(
    type="NuScenesDataset",
    data_root="$data_root",
    index="sparse3d_train.arrow",
    class_names="$class_names",
    pipeline="$train_pipeline",
    class_balanced=True,
)
test_dataset = dict(
    type="NuScenesDataset",
    data_root="$data_root",
    index="sparse3d_val.arrow",
    class_names="$class_names",
    pipeline="$test_pipeline",
    test_mode=True,
)
test_evaluator = dict(type="NuScenesMetric", class_names="$class_names", modality=dict(use_lidar=True, use_camera=True))
