# MV2D's published recipe: 72 epochs of 8 samples a step (8 GPUs x 1), half a cosine down to a thousandth after a
# warm-up of 500 steps from a third.
max_epochs = 72
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs="$max_epochs", val_interval=12)
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=2e-4, weight_decay=0.01),
    clip_grad=dict(max_norm=35),
    paramwise_cfg=dict(custom_keys={"image_branch.backbone": dict(lr_mult=0.25)}),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1 / 3, begin=0, end=500, by_epoch=False),
    dict(type="CosineAnnealingLR", T_max="$max_epochs", eta_min_ratio=1e-3, begin=0, end="$max_epochs", by_epoch=True),
]
auto_scale_lr = dict(enable=False, base_batch_size=8)
