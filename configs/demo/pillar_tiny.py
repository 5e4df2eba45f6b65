# A detector of a few thousand weights, trained epoch by epoch: for checks of the machinery (`tools/check_resume.py`).
_base_ = ["pillar_demo.py"]

grid = dict(point_range=[-25.6, -25.6, -5.0, 25.6, 25.6, 3.0], voxel_size=[0.8, 0.8, 8.0])
model = dict(
    point_branch=dict(
        voxel_encoder=dict(channels=[8]),
        bev_backbone=dict(in_channels=8, num_blocks=[0], strides=[2], channels=[16], up_strides=[1], up_channels=[16]),
    ),
    head=dict(in_channels=16, shared_channels=16),
)
train_cfg = dict(_delete_=True, type="EpochBasedTrainLoop", max_epochs=6)
optim_wrapper = dict(accumulative_counts=2)
param_scheduler = [dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=12)]
custom_hooks = [
    dict(type="ProgressHook"),
    dict(type="NonFiniteHook"),
    dict(type="EMAHook", ema_type="ExponentialMovingAverage", momentum=0.01),
]
# In the middle of epochs, and in the middle of the accumulation of gradients.
default_hooks = dict(
    logger=dict(interval=1),
    checkpoint=dict(_delete_=True, type="CheckpointHook", by_epoch=False, interval=3, max_keep_ckpts=2),
)
