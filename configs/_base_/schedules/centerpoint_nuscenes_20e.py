# CenterPoint's published recipe for nuScenes: one cycle over 20 epochs as DSVT's, from 1e-4 up to 1e-3 for 4 GPUs x 4
# samples.
_base_ = ["./dsvt_nuscenes_20e.py"]

optim_wrapper = dict(optimizer=dict(lr=1e-4, weight_decay=0.01))
auto_scale_lr = dict(base_batch_size=16)
