# SparseBEV as published: ResNet-50 pretrained on nuImages, 256 x 704 pixels, 8 frames, 900 queries, 24 epochs.
_base_ = [
    "../_base_/models/sparsebev_r50.py",
    "../_base_/datasets/nuscenes_camera.py",
    "../_base_/schedules/sparsebev_nuscenes.py",
    "../_base_/runtime.py",
]

image_size = [256, 704]
resize_factors = [0.38, 0.55]
backbone_lr = 0.1
num_frames = 8
num_queries = 900
pretrained = "pretrain/cascade_mask_rcnn_r50_fpn_coco-20e_20e_nuim_20201009_124951-40963960.pth"

model = dict(head=dict(decoder=dict(center_range=[-61.2, -61.2, -10.0, 61.2, 61.2, 10.0])))
