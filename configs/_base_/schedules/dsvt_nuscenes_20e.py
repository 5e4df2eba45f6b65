# DSVT's published recipe for nuScenes: one cycle over 20 epochs, 8 GPUs x 4 samples. The learning rate rises tenfold
# over the first 40 % and falls to 1e-4 of its start; beta1 runs from 0.95 to 0.85 and back. The rates are ratios, so
# that parameters with a rate of their own (paramwise_cfg) keep it.
max_epochs = 20
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs="$max_epochs", val_interval=5)
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=5e-4, betas=(0.95, 0.99), weight_decay=0.05),
    clip_grad=dict(max_norm=35),
)
param_scheduler = [
    dict(
        type="CosineAnnealingLR", eta_min_ratio=10, begin=0, end=8, T_max=8, by_epoch=True, convert_to_iter_based=True
    ),
    dict(
        type="CosineAnnealingLR",
        eta_min_ratio=1e-4,
        begin=8,
        end=20,
        T_max=12,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
    dict(
        type="CosineAnnealingMomentum", eta_min=0.85, begin=0, end=8, T_max=8, by_epoch=True, convert_to_iter_based=True
    ),
    dict(
        type="CosineAnnealingMomentum",
        eta_min=0.95,
        begin=8,
        end=20,
        T_max=12,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
auto_scale_lr = dict(enable=False, base_batch_size=32)
