# Waymo Open Dataset, people with their 14 LiDAR keypoints. Points of people whose keypoints nobody labelled are taken
# away, so that nobody is background who is not.
_base_ = ["./waymo_lidar.py"]

class_names = ["Pedestrian", "Cyclist"]

train_pipeline = [
    "$load_points",
    dict(type="LoadAnnotations", class_names="$class_names", min_points=1, keypoints=True),
    dict(type="RemoveUnlabelledPeople"),
    "$paste_people",
    "$paste_vehicles",
    dict(type="RemoveUnlabelledPeople", with_points=False),  # vehicles are background
    "$augment",
    dict(type="RangeFilter", grid="$grid"),
    dict(type="ShufflePoints"),
]
paste_people = dict(min_points=5, keypoints_only=True)
paste_vehicles = dict(class_names=["Pedestrian", "Cyclist", "Vehicle"])
augment = dict(
    type="Compose",
    transforms=[
        dict(type="RandomObjectMoves", angles=[-0.157, 0.157], factors=[0.95, 1.05]),
        dict(type="RandomFlip", x=0.5, y=0.5),
        dict(type="RandomRotate", angles=[-0.785398, 0.785398]),
        dict(type="RandomScale", factors=[0.95, 1.05]),
    ],
)
train_dataset = dict(keypoints_only=True)
test_dataset = dict(keypoints_only=True)
train_dataloader = dict(batch_size=2)
test_evaluator = dict(_delete_=True, type="WaymoKeypointMetric", class_names="$class_names")
