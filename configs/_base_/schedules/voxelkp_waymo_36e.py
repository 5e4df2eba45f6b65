# The recipe published for VoxelKP: one cycle over 36 epochs, 8 GPUs x 2 samples, from 3e-4 up to 3e-3 over the first
# 40 %, down to 1e-4 of the start; beta1 runs from 0.95 to 0.85 and back.
max_epochs = 36
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs="$max_epochs", val_interval=6)
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=3e-4, betas=(0.95, 0.99), weight_decay=0.01),
    clip_grad=dict(max_norm=10),
)
rise = dict(begin=0, end=14.4, T_max=14.4, by_epoch=True, convert_to_iter_based=True)
fall = dict(begin=14.4, end=36, T_max=21.6, by_epoch=True, convert_to_iter_based=True)
param_scheduler = [
    dict(type="CosineAnnealingLR", eta_min_ratio=10, **rise),
    dict(type="CosineAnnealingLR", eta_min_ratio=1e-4, **fall),
    dict(type="CosineAnnealingMomentum", eta_min=0.85, **rise),
    dict(type="CosineAnnealingMomentum", eta_min=0.95, **fall),
]
auto_scale_lr = dict(enable=False, base_batch_size=16)
