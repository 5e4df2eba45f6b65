# SparseBEV on Waymo's five cameras: 640 x 960 pixels, 4 frames half a second apart, 900 queries. Sizes and schedule are
# ours; the authors published none for Waymo.
_base_ = [
    "../_base_/datasets/waymo_camera.py",
    "../_base_/schedules/sparsebev_nuscenes.py",
    "../_base_/runtime.py",
]

image_size = [640, 960]
resize_factors = [0.5, 0.6]  # of images of 1280 x 1920 and 886 x 1920 pixels
test_factors = [0.5, 0.5]
backbone_lr = 0.4
num_frames = 4
num_queries = 900
pretrained = "pretrain/resnet50-0676ba61.pth"  # torchvision's, of ImageNet

model = dict(
    type="Detector3D",
    data_preprocessor=dict(type="Preprocessor", images=dict(size_divisor=32)),
    image_branch=dict(
        type="ImageBranch",
        backbone=dict(type="ResNet", depth=50, frozen_stages=1, norm_eval=True, checkpointing=True),
        neck=dict(type="FPN", in_channels=[256, 512, 1024, 2048], out_channels=256, num_outs=4),
        grid_mask=dict(probability=0.7, ratio=0.5),
        num_frames="$num_frames",
        pretrained="$pretrained",
    ),
    head=dict(
        type="SparseBEVHead",
        grid="$grid",
        class_names="$class_names",
        num_queries="$num_queries",
        num_frames="$num_frames",
        channels=256,
        num_layers=6,
        layer=dict(num_points=4, num_levels=4),
        decoder=dict(center_range=[-45.0, -85.0, -10.0, 85.0, 85.0, 10.0], top_k=300, score_threshold=0.05),
    ),
)
