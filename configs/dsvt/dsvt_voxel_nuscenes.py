# DSVT's voxel form on nuScenes; the authors published none. Widths and windows of its pillar form for nuScenes, stages
# and attention pooling of its voxel form for Waymo: 32 layers of 0.25 m. Points above or below the range are dropped.
_base_ = ["./dsvt_pillar_nuscenes.py"]

grid = dict(voxel_size=[0.3, 0.3, 0.25])

stage = dict(
    channels=128,
    num_heads=8,
    ffn_channels=256,
    num_blocks=1,
    set_size=90,
    shifts=((0, 0, 0), (0, 15, 15)),
)
stages = [
    dict(**stage, window_shape=(32, 30, 30)),
    dict(**stage, window_shape=(8, 30, 30), stride=(4, 1, 1)),
    dict(**stage, window_shape=(2, 30, 30), stride=(4, 1, 1)),
    dict(**stage, window_shape=(1, 30, 30), stride=(2, 1, 1)),
]
model = dict(
    data_preprocessor=dict(keep_outside_z=False),
    point_branch=dict(backbone=dict(stages="$stages", pooling="attention")),
)
