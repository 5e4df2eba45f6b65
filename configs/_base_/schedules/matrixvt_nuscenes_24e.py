# MatrixVT's published recipe: 24 epochs of 64 samples a step (8 GPUs x 8) at a constant rate, averaged weights.
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=24, val_interval=4)
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=2e-4, weight_decay=1e-7),
    clip_grad=dict(max_norm=5),
)
auto_scale_lr = dict(enable=False, base_batch_size=64)
