# The recipe published for Focals Conv's and plain CenterPoint on Waymo: one cycle over 30 epochs, 8 GPUs x 4 samples,
# from 3e-4 up to 3e-3 over the first 40 %, down to 1e-4 of the start; beta1 runs from 0.95 to 0.85 and back.
max_epochs = 30
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs="$max_epochs", val_interval=5)
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=3e-4, betas=(0.95, 0.99), weight_decay=0.01),
    clip_grad=dict(max_norm=10),
)
rise = dict(begin=0, end=12, T_max=12, by_epoch=True, convert_to_iter_based=True)
fall = dict(begin=12, end=30, T_max=18, by_epoch=True, convert_to_iter_based=True)
param_scheduler = [
    dict(type="CosineAnnealingLR", eta_min_ratio=10, **rise),
    dict(type="CosineAnnealingLR", eta_min_ratio=1e-4, **fall),
    dict(type="CosineAnnealingMomentum", eta_min=0.85, **rise),
    dict(type="CosineAnnealingMomentum", eta_min=0.95, **fall),
]
auto_scale_lr = dict(enable=False, base_batch_size=32)
