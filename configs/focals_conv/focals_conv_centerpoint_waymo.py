# CenterPoint without residual blocks, with focal convolutions after the first three stages, as published for Waymo.
_base_ = ["../centerpoint/centerpoint_voxel01_waymo.py"]

model = dict(
    point_branch=dict(
        backbone=dict(
            type="FocalEncoder",
            channels=[16, 32, 64, 64],
            num_blocks=[1, 2, 2, 2],
            block="plain",
            focal_stages=[1, 2, 3],
            focal=dict(threshold=0.5, top_k=True),
            importance_targets="rotated",
        )
    )
)
