# SparseBEV on Waymo's five cameras: 640 x 960 pixels, 4 frames half a second apart, 900 queries. Sizes and schedule are
# ours; the authors published none for Waymo.
_base_ = [
    "../_base_/models/sparsebev_r50.py",
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

model = dict(head=dict(decoder=dict(center_range=[-45.0, -85.0, -10.0, 85.0, 85.0, 10.0])))
