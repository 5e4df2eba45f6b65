# Focals Conv-F as published for nuScenes: CenterPoint whose first stage ends with a focal convolution that looks into
# six images, reduced to two thirds. There is no importance loss.
_base_ = ["../centerpoint/centerpoint_voxel0075_nuscenes.py"]

camera_names = [
    "CAM_FRONT", "CAM_FRONT_LEFT", "CAM_FRONT_RIGHT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_BACK_RIGHT",
]  # fmt: skip
image_factor = 2 / 3
pretrained = "pretrain/deeplabv3_resnet50_coco-cd0a2569.pth"

load_images = dict(type="LoadImages", names="$camera_names")
resize_images = dict(type="ResizeImages", factors=["$image_factor", "$image_factor"])
train_pipeline = [
    "$load_points",
    "$load_images",
    dict(type="LoadAnnotations", class_names="$class_names", min_points=1),
    "$paste_objects",
    "$resize_images",
    dict(type="RandomFlip", x=0.5, y=0.5),
    dict(type="RandomRotate", angles=[-0.785398, 0.785398]),
    dict(type="RandomScale", factors=[0.9, 1.1]),
    dict(type="RandomTranslate", std=0.5),
    dict(type="RangeFilter", grid="$grid"),
    dict(type="ShufflePoints"),
]
test_pipeline = ["$load_points", "$load_images", "$resize_images", dict(type="RangeFilter", grid="$grid")]
paste_objects = dict(images=True)
test_evaluator = dict(modality=dict(use_camera=True))

model = dict(
    data_preprocessor=dict(images=dict(size_divisor=1)),
    image_branch=dict(
        type="ImageBranch",
        backbone=dict(type="ResNet", depth=50, out_stages=[0]),
        neck=dict(type="ReduceMap", in_channels=256, out_channels=16),
        pretrained="$pretrained",
    ),
    point_branch=dict(
        type="FocalFusionBranch",
        pixels=dict(scale="$image_factor", min_depths=dict(CAM_FRONT=1.0, CAM_BACK=0.5), skip_first=True),
        backbone=dict(
            type="FocalEncoder",
            focal_stages=[],
            importance_targets=None,
            image_focal=dict(
                threshold=0.5,
                top_k=True,
                scale_by_importance=True,
                weigh_foreground=False,
                image_fusion="sum",
            ),
        ),
    ),
)
