# SparseBEV as published: ResNet-50 pretrained on nuImages, 256 x 704 pixels, 8 frames, 900 queries, 24 epochs.
_base_ = [
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
        decoder=dict(center_range=[-61.2, -61.2, -10.0, 61.2, 61.2, 10.0], top_k=300, score_threshold=0.05),
    ),
)
