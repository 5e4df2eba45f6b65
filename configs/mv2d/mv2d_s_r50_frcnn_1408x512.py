# MV2D-S as published: ResNet-50 with deformable stages, Faster R-CNN, 512 x 1408 pixels, one frame, 72 epochs.
_base_ = [
    "../_base_/datasets/nuscenes_camera.py",
    "../_base_/schedules/mv2d_nuscenes_72e.py",
    "../_base_/runtime.py",
]

# In the order of nuImages, which the published weights depend on.
class_names = [
    "car", "truck", "trailer", "bus", "construction_vehicle",
    "bicycle", "motorcycle", "pedestrian", "traffic_cone", "barrier",
]  # fmt: skip
image_size = [512, 1408]
resize_factors = [0.8, 1.0]
past = []
pretrained = "pretrain/mask_rcnn_r50_fpn_coco-2x_1x_nuim_20201008_195238-b1742a60.pth"

model = dict(
    type="Detector3D",
    data_preprocessor=dict(type="Preprocessor", images=dict(size_divisor=32)),
    image_branch=dict(
        type="DetectorBranch",
        backbone=dict(
            type="ResNet", depth=50, frozen_stages=1, norm_eval=True, norm_learned=False, deformable_stages=[2, 3]
        ),
        neck=dict(type="FPN", in_channels=[256, 512, 1024, 2048], out_channels=256, num_outs=5),
        detector=dict(type="FasterRCNN", class_names="$class_names"),
        grid_mask=dict(probability=0.7, ratio=0.5),
        pretrained="$pretrained",
    ),
    head=dict(
        type="MV2DHead",
        grid="$grid",
        class_names="$class_names",
        decoder=dict(center_range=[-61.2, -61.2, -10.0, 61.2, 61.2, 10.0], score_threshold=0.0),
    ),
)
