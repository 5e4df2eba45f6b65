# Short trainings that stop when their time is used: one checkpoint, at the end, and no validation on the way.
_base_ = ["./runtime.py"]

train_cfg = dict(type="TimedTrainLoop", max_iters=20000)  # the config gives max_seconds
default_hooks = dict(
    logger=dict(interval=50, log_metric_by_epoch=False),
    checkpoint=dict(_delete_=True, type="CheckpointHook", by_epoch=False, interval=-1, save_last=True),
)
log_processor = dict(by_epoch=False)
