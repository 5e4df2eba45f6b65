# Short trainings that stop when their time is used: one checkpoint, at the end, and no validation on the way.
_base_ = ["./runtime.py"]

peak_lr = 3e-3
warmup = 0.3  # share of the training in which the rate rises

train_cfg = dict(type="TimedTrainLoop", max_iters=20000)  # the config gives max_seconds
default_hooks = dict(
    logger=dict(interval=50, log_metric_by_epoch=False),
    checkpoint=dict(_delete_=True, type="CheckpointHook", by_epoch=False, interval=-1, save_last=True),
)
log_processor = dict(by_epoch=False)
custom_hooks = [
    dict(type="OneCycleByProgress", peak_lr="$peak_lr", warmup="$warmup"),
    dict(type="ProgressHook"),
    dict(type="NonFiniteHook"),
]
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=3e-4, betas=(0.95, 0.99), weight_decay=0.01),
    clip_grad=dict(max_norm=10),
)
