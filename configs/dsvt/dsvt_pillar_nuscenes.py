# DSVT pillar detector as published for nuScenes: 0.3 m pillars, 4 blocks of width 128, TransFusion head, 200 queries.
# The classes stand in the published order, which the published weights depend on.
_base_ = ["./dsvt_pillar_centerhead_nuscenes.py"]

class_names = [
    "car", "truck", "construction_vehicle", "bus", "trailer",
    "barrier", "motorcycle", "bicycle", "pedestrian", "traffic_cone",
]  # fmt: skip

# Objects of other scans are pasted in all epochs but the last four.
train_pipeline = [
    "$load_points",
    dict(type="LoadAnnotations", class_names="$class_names", min_points=1),
    dict(type="UntilEpoch", epoch=16, transforms=["$paste_objects"]),
    dict(type="RandomFlip", x=0.5, y=0.5),
    dict(type="RandomRotate", angles=[-0.785398, 0.785398]),
    dict(type="RandomScale", factors=[0.9, 1.1]),
    dict(type="RandomTranslate", std=0.5),
    dict(type="RangeFilter", grid="$grid"),
    dict(type="ShufflePoints"),
]
train_dataset = dict(class_balanced=True)

sync_bn = "torch"  # on GPUs; the authors lose more than ten points of mAP without it

model = dict(
    head=dict(
        _delete_=True,
        type="TransFusionHead",
        grid="$grid",
        class_names="$class_names",
        in_channels=384,
        channels=128,
        num_queries=200,
        num_heads=8,
        ffn_channels=256,
        window_radius=20,
        every_cell=["pedestrian", "traffic_cone"],
        extra_branches=["vel", "iou"],
        code_weights=[1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.2, 0.2],
        decoder=dict(
            center_range=[-61.2, -61.2, -10.0, 61.2, 61.2, 10.0],
            iou_exponents=0.5,
            nms_thresholds=dict(pedestrian=0.175, traffic_cone=0.175),
        ),
    ),
)
