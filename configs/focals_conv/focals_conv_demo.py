# A small focal detector for the synthetic world: trained by the clock on two CPU cores, to look at what its focal
# convolutions keep and grow (tools/draw_focal_voxels.py).
_base_ = ["../demo/pillar_demo.py"]

grid = dict(point_range=[-25.6, -25.6, -3.0, 25.6, 25.6, 3.0], voxel_size=[0.1, 0.1, 0.15], stride=8)

model = dict(
    point_branch=dict(
        _delete_=True,
        type="SparseConvBranch",
        grid="$grid",
        voxel_encoder=dict(type="MeanVoxelEncoder", num_features="$num_point_features"),
        backbone=dict(
            type="FocalEncoder",
            grid="$grid",
            in_channels="$num_point_features",
            channels=[8, 16, 32, 32],
            num_blocks=[1, 1, 1, 1],
            block="plain",
            out_channels=32,
            focal_stages=[1, 2, 3],
            focal=dict(threshold=0.5, top_k=False),
        ),
        bev_backbone=dict(
            type="SECONDBEVBackbone",
            in_channels=64,
            num_blocks=[1, 1],
            strides=[1, 2],
            channels=[32, 48],
            up_strides=[1, 2],
            up_channels=[24, 24],
        ),
    ),
)
