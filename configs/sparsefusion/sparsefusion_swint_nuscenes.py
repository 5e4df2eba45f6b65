# SparseFusion as published with Swin-T: 4 GPUs x 3 samples.
_base_ = ["./sparsefusion_r50_nuscenes.py"]

load_from = "pretrain/sparsefusion_swint_initial.safetensors"
model = dict(
    image_branch=dict(
        backbone=dict(
            _delete_=True,
            type="SwinTransformer",
            channels=96,
            depths=[2, 2, 6, 2],
            num_heads=[3, 6, 12, 24],
            window_size=7,
            drop_path=0.2,
        ),
        neck=dict(in_channels=[96, 192, 384, 768]),
    )
)
# The longest name that fits decides. Norms outside of the backbone are not decayed, but for those that the original
# calls by other names.
optim_wrapper = dict(
    optimizer=dict(lr=7.5e-5),
    paramwise_cfg=dict(
        custom_keys={
            "image_branch.backbone": dict(decay_mult=5.0),
            "attention.position_bias": dict(decay_mult=0.0),
            "norm": dict(decay_mult=0.0),
            "head.view.projection.1": dict(decay_mult=0.0),
            "head.fusion.lidar_projection.1": dict(decay_mult=0.0),
            "head.fusion.camera_projection.1": dict(decay_mult=0.0),
            "head.view.gate": dict(),
            "image_branch.depth": dict(),
        }
    ),
)
auto_scale_lr = dict(base_batch_size=12)
train_dataloader = dict(batch_size=3)
