# DSVT voxel detector as published for Waymo: 32 layers of 0.1875 m, four stages of one block with attention pooling
# along z between them.
_base_ = ["./dsvt_pillar_waymo.py"]

grid = dict(voxel_size=[0.32, 0.32, 0.1875])

stage = dict(
    channels=192,
    num_heads=8,
    ffn_channels=384,
    num_blocks=1,
    set_size=48,
    shifts=((0, 0, 0), (0, 6, 6)),
    hybrid_factor=(1, 2, 2),
)
stages = [
    dict(**stage, window_shape=(32, 12, 12)),
    dict(**stage, window_shape=(8, 12, 12), stride=(4, 1, 1)),
    dict(**stage, window_shape=(2, 12, 12), stride=(4, 1, 1)),
    dict(**stage, window_shape=(1, 12, 12), stride=(2, 1, 1)),
]
model = dict(point_branch=dict(backbone=dict(stages="$stages", pooling="attention")))
