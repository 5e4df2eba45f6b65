# SparseBEV with EVA-02-L, 640 x 1600 pixels, seven frames before the present one and seven after it in turn, 1600
# queries with twice as many points; image gradients of the first four frames only.
_base_ = ["./sparsebev_r50_nuimg_704x256.py"]

image_size = [640, 1600]
resize_factors = [0.94, 1.25]
past = [0.5, -0.5, 1.0, -1.0, 1.5, -1.5, 2.0, -2.0, 2.5, -2.5, 3.0, -3.0, 3.5, -3.5]
num_frames = 15
num_queries = 1600
pretrained = "pretrain/eva02_L_coco_seg_sys_o365.pth"
train_dataset = dict(index="sparse3d_trainval.arrow")

model = dict(
    image_branch=dict(
        backbone=dict(_delete_=True, type="EVA02", frozen_blocks=3, checkpointing=True),
        neck=dict(_delete_=True, type="SimpleFPN", in_channels=1024, out_channels=256, num_outs=5),
        gradient_frames=4,
    ),
    head=dict(layer=dict(num_points=8, num_levels=5)),
)
