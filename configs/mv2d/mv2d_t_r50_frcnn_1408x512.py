# MV2D-T as published: two frames, cells of the feature map as keys, query denoising. Published in half precision.
_base_ = ["./mv2d_s_r50_frcnn_1408x512.py"]

past = [1.25]  # seconds; the key frame that is nearest to it
num_frames = 2

model = dict(
    image_branch=dict(backbone=dict(checkpointing=True), num_frames="$num_frames"),
    head=dict(keys="cells", top_k=20, margin=2, num_frames="$num_frames", denoising=dict(num_groups=10)),
)
