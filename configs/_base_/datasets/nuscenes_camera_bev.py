# nuScenes, cameras only, for detectors that look from above: six images of the present, in the frame of the vehicle;
# the LiDAR supervises depth in training. The config that uses this gives `image_size` and `resize_factors`.
_base_ = ["./nuscenes_camera.py"]

grid = dict(stride=4)
past = []
depth_bins = [2.0, 58.0, 0.5]  # metres: first lower edge, last upper edge, size
depth_weight = 3.0  # of the supervision; with 0 there is none, and no points are needed

load_points = dict(type="LoadPoints", time_lag=False)
train_pipeline = [
    "$load_points",
    "$load_images",
    dict(type="LoadAnnotations", class_names="$class_names", min_points=1),
    dict(type="ToVehicleFrame"),
    dict(type="ResizeImages", factors="$resize_factors"),
    dict(type="CropImages", size="$image_size", horizontal="random"),
    dict(type="FlipImages", probability=0.5),
    dict(type="RotateImages", angles=[-0.0942478, 0.0942478]),
    dict(type="RandomRotate", angles=[-0.3926991, 0.3926991]),
    dict(type="RandomScale", factors=[0.95, 1.05]),
    dict(type="RandomFlip", x=0.5, y=0.5),
    dict(type="MakeDepthMaps"),
    dict(type="RangeFilter", grid="$grid"),
]
test_pipeline = [
    "$load_images",
    dict(type="ToVehicleFrame"),
    dict(type="ResizeImages", cover="$image_size"),
    dict(type="CropImages", size="$image_size"),
]
