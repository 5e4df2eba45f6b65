# CenterPoint with focal convolutions after the first three stages, LiDAR only, as the code released for nuScenes builds
# it: features scaled by importance, no weights of neighbours.
_base_ = ["../centerpoint/centerpoint_voxel0075_nuscenes.py"]

model = dict(
    point_branch=dict(
        backbone=dict(
            type="FocalEncoder",
            focal_stages=[1, 2, 3],
            focal=dict(threshold=0.5, top_k=True, scale_by_importance=True, weigh_foreground=False),
            importance_targets="rotated",
        )
    )
)
