# Waymo Open Dataset, LiDAR only: three classes, both returns of all five lasers, as in the published pipeline. The
# config that uses this gives `grid`. With earlier frames (`sweeps`), points have a column more, the time lag.
_base_ = ["./loaders.py"]

class_names = ["Vehicle", "Pedestrian", "Cyclist"]
data_root = "data/waymo"
num_point_features = 5  # x, y, z, tanh(intensity), elongation
sweeps = 0

load_points = dict(type="LoadWaymoPoints", sweeps="$sweeps")
objects = dict(
    type="PasteGroundTruth",
    data_root="$data_root",
    database="sparse3d_train_objects.arrow",
    class_names="$class_names",
)
paste_vehicles = dict(**objects, counts=dict(Vehicle=15), min_points=5)
paste_people = dict(**objects, counts=dict(Pedestrian=10, Cyclist=10), min_points=10)
train_pipeline = [
    "$load_points",
    dict(type="LoadAnnotations", class_names="$class_names", min_points=1),
    dict(type="UntilEpoch", epoch="$fade_epoch", transforms=["$paste_vehicles", "$paste_people", "$augment"]),
    dict(type="RangeFilter", grid="$grid"),
    dict(type="ShufflePoints"),
]
augment = dict(
    type="Compose",
    transforms=[
        dict(type="RandomFlip", x=0.5, y=0.5),
        dict(type="RandomRotate", angles=[-0.785398, 0.785398]),
        dict(type="RandomScale", factors=[0.95, 1.05]),
        dict(type="RandomTranslate", std=0.5),
    ],
)
test_pipeline = ["$load_points", dict(type="RangeFilter", grid="$grid")]

train_dataset = dict(
    type="WaymoDataset",
    data_root="$data_root",
    index="sparse3d_train.arrow",
    class_names="$class_names",
    pipeline="$train_pipeline",
)
test_dataset = dict(
    type="WaymoDataset",
    data_root="$data_root",
    index="sparse3d_val.arrow",
    class_names="$class_names",
    pipeline="$test_pipeline",
    test_mode=True,
)
train_dataloader = dict(batch_size=3)
test_evaluator = dict(type="WaymoMetric", class_names="$class_names")
