# SparseBEV for the leaderboard: V2-99 pretrained with DD3D, 640 x 1600 pixels, seven frames before the present one and
# seven after it, 1600 queries, trained on training and validation scenes (an index of both, see the README).
_base_ = ["./sparsebev_r50_nuimg_704x256.py"]

image_size = [640, 1600]
resize_factors = [0.94, 1.25]
past = [0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, -0.5, -1.0, -1.5, -2.0, -2.5, -3.0, -3.5]
num_frames = 15
num_queries = 1600
pretrained = "pretrain/dd3d_det_final.pth"
train_dataset = dict(index="sparse3d_trainval.arrow")

model = dict(
    # Its weights read blue, green, red.
    data_preprocessor=dict(images=dict(mean=[103.53, 116.28, 123.675], std=[57.375, 57.12, 58.395], bgr=True)),
    image_branch=dict(
        backbone=dict(_delete_=True, type="VoVNet", frozen_stages=1, norm_eval=True, checkpointing=True),
        neck=dict(in_channels=[256, 512, 768, 1024], num_outs=5),
    ),
    head=dict(layer=dict(num_levels=5)),
)
