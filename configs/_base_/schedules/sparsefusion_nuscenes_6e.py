# SparseFusion's published recipe: one cycle over 6 epochs, 4 GPUs x 4 samples. The learning rate rises eightfold over
# the first 40 % and falls to 1e-4 of its start; beta1 runs from 0.9 to 0.805 and back. What is pretrained has a tenth
# of the rate, where it is trained at all.
max_epochs = 6
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs="$max_epochs", val_interval=1)
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-4, weight_decay=0.01),
    clip_grad=dict(max_norm=0.1),
    paramwise_cfg=dict(
        custom_keys={
            "image_branch.backbone": dict(lr_mult=0.1),
            "image_branch.neck": dict(lr_mult=0.1),
            "point_branch": dict(lr_mult=0.1),
            "head.shared": dict(lr_mult=0.1),
            "head.class_embedding": dict(lr_mult=0.1),
            "head.lidar": dict(lr_mult=0.1),
        }
    ),
)
rise = dict(begin=0, end=2.4, T_max=2.4, by_epoch=True, convert_to_iter_based=True)
fall = dict(begin=2.4, end=6, T_max=3.6, by_epoch=True, convert_to_iter_based=True)
param_scheduler = [
    dict(type="CosineAnnealingLR", eta_min_ratio=8, **rise),
    dict(type="CosineAnnealingLR", eta_min_ratio=1e-4, **fall),
    dict(type="CosineAnnealingMomentum", eta_min=0.805, **rise),
    dict(type="CosineAnnealingMomentum", eta_min=0.9, **fall),
]
auto_scale_lr = dict(enable=False, base_batch_size=16)
