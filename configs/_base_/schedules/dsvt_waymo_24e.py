# DSVT's published recipe for Waymo: one cycle over 24 epochs, 8 GPUs x 3 samples, up to 3e-3 within the first tenth,
# from a hundredth of it, down to 1e-4 of the start; beta1 runs from 0.95 to 0.85 and back. All augmentation is off in
# the last epoch.
max_epochs = 24
fade_epoch = 23
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs="$max_epochs", val_interval=4)
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=3e-5, betas=(0.95, 0.99), weight_decay=0.05),
    clip_grad=dict(max_norm=10),
)
rise = dict(begin=0, end=2.4, T_max=2.4, by_epoch=True, convert_to_iter_based=True)
fall = dict(begin=2.4, end=24, T_max=21.6, by_epoch=True, convert_to_iter_based=True)
param_scheduler = [
    dict(type="CosineAnnealingLR", eta_min_ratio=100, **rise),
    dict(type="CosineAnnealingLR", eta_min_ratio=1e-4, **fall),
    dict(type="CosineAnnealingMomentum", eta_min=0.85, **rise),
    dict(type="CosineAnnealingMomentum", eta_min=0.95, **fall),
]
auto_scale_lr = dict(enable=False, base_batch_size=24)
