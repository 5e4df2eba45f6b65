# SparseBEV with ResNet-101 at 512 x 1408 pixels and five levels, 24 epochs.
_base_ = ["./sparsebev_r50_nuimg_704x256.py"]

image_size = [512, 1408]
resize_factors = [0.76, 1.10]
backbone_lr = 0.2
pretrained = "pretrain/cascade_mask_rcnn_r101_fpn_1x_nuim_20201024_134804-45215b1e.pth"

model = dict(
    image_branch=dict(backbone=dict(depth=101), neck=dict(num_outs=5)),
    head=dict(layer=dict(num_levels=5)),
)
