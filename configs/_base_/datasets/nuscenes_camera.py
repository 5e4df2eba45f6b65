# nuScenes, cameras only: six images of the present and of earlier key frames. The config that uses this gives
# `image_size` (height, width) and `resize_factors`, and may change `past`.
_base_ = ["./loaders.py"]

# Classes and cameras stand in the order that SparseBEV's published weights depend on.
class_names = [
    "car", "truck", "construction_vehicle", "bus", "trailer",
    "barrier", "motorcycle", "bicycle", "pedestrian", "traffic_cone",
]  # fmt: skip
camera_names = [
    "CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_FRONT_LEFT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_BACK_RIGHT",
]  # fmt: skip
data_root = "data/nuscenes"
grid = dict(point_range=[-51.2, -51.2, -5.0, 51.2, 51.2, 3.0], voxel_size=[0.2, 0.2, 8.0])
past = [0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5]  # seconds before the present frame

load_images = dict(type="LoadImages", names="$camera_names")
train_pipeline = [
    "$load_images",
    dict(type="LoadAnnotations", class_names="$class_names", min_points=1),
    dict(type="RangeFilter", grid="$grid"),
    dict(type="ResizeImages", factors="$resize_factors", shared=True),
    dict(type="CropImages", size="$image_size", horizontal="random", shared=True),
    dict(type="FlipImages", probability=0.5, shared=True),
    dict(type="DistortColours"),
    dict(type="RandomRotate", angles=[-0.3925, 0.3925]),
    dict(type="RandomScale", factors=[0.95, 1.05]),
]
test_pipeline = [
    "$load_images",
    dict(type="ResizeImages", cover="$image_size"),
    dict(type="CropImages", size="$image_size"),
]

train_dataset = dict(
    type="NuScenesDataset",
    data_root="$data_root",
    index="sparse3d_train.arrow",
    class_names="$class_names",
    pipeline="$train_pipeline",
    past="$past",
)
test_dataset = dict(
    type="NuScenesDataset",
    data_root="$data_root",
    index="sparse3d_val.arrow",
    class_names="$class_names",
    pipeline="$test_pipeline",
    past="$past",
    test_mode=True,
)
train_dataloader = dict(batch_size=1)
test_dataloader = dict(num_workers=4)
test_evaluator = dict(type="NuScenesMetric", class_names="$class_names", modality=dict(use_camera=True))
