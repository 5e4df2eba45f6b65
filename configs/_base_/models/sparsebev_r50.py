# SparseBEV with a ResNet-50 of which the first stage is frozen. The config that uses this gives `grid`, `class_names`,
# `num_frames`, `num_queries`, `pretrained` and the decoder's `center_range`.
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
        decoder=dict(top_k=300, score_threshold=0.05),
    ),
)
