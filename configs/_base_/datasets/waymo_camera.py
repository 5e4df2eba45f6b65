# Waymo Open Dataset, five cameras alone: boxes where the cameras saw the objects, scored along the line of sight (LET).
# The config that uses this gives `image_size` (height, width), `resize_factors` and `test_factors`, and may change
# `past`. The side cameras are less tall; windows keep the lower edge, and are black where an image does not reach.
_base_ = ["./loaders.py"]

class_names = ["Vehicle", "Pedestrian", "Cyclist"]
camera_names = ["FRONT", "FRONT_LEFT", "FRONT_RIGHT", "SIDE_LEFT", "SIDE_RIGHT"]
data_root = "data/waymo"
grid = dict(point_range=[-35.0, -75.0, -2.0, 75.0, 75.0, 4.0], voxel_size=[0.2, 0.2, 6.0])
past = [0.5, 1.0, 1.5]  # seconds before the present frame

load_images = dict(type="LoadImages", names="$camera_names")
train_pipeline = [
    "$load_images",
    dict(type="LoadAnnotations", class_names="$class_names", min_points=1, camera_synced=True),
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
    dict(type="ResizeImages", factors="$test_factors"),
    dict(type="CropImages", size="$image_size"),
]

train_dataset = dict(
    type="WaymoDataset",
    data_root="$data_root",
    index="sparse3d_train.arrow",
    class_names="$class_names",
    pipeline="$train_pipeline",
    past="$past",
    interval=5,  # neighbouring frames are alike
)
test_dataset = dict(
    type="WaymoDataset",
    data_root="$data_root",
    index="sparse3d_val.arrow",
    class_names="$class_names",
    pipeline="$test_pipeline",
    past="$past",
    test_mode=True,
)
train_dataloader = dict(batch_size=1)
test_dataloader = dict(num_workers=4)
test_evaluator = dict(type="WaymoMetric", class_names="$class_names", task="camera")
