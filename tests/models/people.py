"""People of points: skeletons in a random pose, and LiDAR points along their bones."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from sparse3d.structures import Boxes3D, Grid, InstanceData, Sample
from sparse3d.structures.skeleton import BONES, MISSING, NUM_KEYPOINTS, OCCLUDED, VISIBLE

GRID = Grid((-12.8, -6.4, -2, 12.8, 6.4, 2), (0.2, 0.2, 0.2), stride=8)
CENTER_RANGE = (-20, -20, -10, 20, 20, 10)
# Forward, left, up of a person who stands upright, metres from the middle of the body.
STANDING = np.array(
    [
        [0.12, 0.0, 0.72], [0, 0.2, 0.5], [0, -0.2, 0.5], [0.05, 0.28, 0.25], [0.05, -0.28, 0.25], [0.2, 0.28, 0.05],
        [0.2, -0.28, 0.05], [0, 0.12, 0.0], [0, -0.12, 0.0], [0.05, 0.12, -0.4], [0.05, -0.12, -0.4], [0, 0.12, -0.8],
        [0, -0.12, -0.8], [0.02, 0.0, 0.75],
    ]
)  # fmt: skip


def people(count: int, seed: int) -> InstanceData:
    """People at least 3 m apart along x; keypoints are seen, hidden or missing at random."""
    rng = np.random.default_rng(seed)
    x = np.linspace(-10.5, 10.5, count) + rng.uniform(-0.5, 0.5, count)
    center = np.stack([x, rng.uniform(-5, 5, count), rng.uniform(-0.3, 0.3, count)], axis=1)
    yaw = rng.uniform(-np.pi, np.pi, count)
    turn = np.stack([np.cos(yaw), -np.sin(yaw), np.sin(yaw), np.cos(yaw)], axis=1).reshape(-1, 2, 2)
    pose = STANDING + rng.normal(scale=0.05, size=(count, NUM_KEYPOINTS, 3))
    pose[..., :2] = pose[..., :2] @ turn.transpose(0, 2, 1)
    box = np.concatenate([center, rng.uniform([0.6, 0.6, 1.7], [0.9, 0.9, 1.9], (count, 3)), yaw[:, None]], axis=1)
    visibility = rng.choice([MISSING, OCCLUDED, VISIBLE], p=[0.1, 0.2, 0.7], size=(count, NUM_KEYPOINTS))
    keypoints = np.where((visibility == MISSING)[..., None], center[:, None], center[:, None] + pose)
    return InstanceData(
        boxes=Boxes3D(torch.from_numpy(box).float()),
        labels=torch.zeros(count, dtype=torch.int64),
        keypoints=torch.from_numpy(keypoints).float(),
        keypoint_visibility=torch.from_numpy(visibility),
    )


def sample_of(gt: InstanceData, seed: int, clutter: int = 300) -> Sample:
    """Points along the bones between keypoints that are there, and clutter on the ground."""
    rng = np.random.default_rng(seed)
    start, end = np.array(BONES).T
    there = (gt.keypoint_visibility != MISSING).numpy()
    person, bone = np.nonzero(there[:, start] & there[:, end])
    places = gt.keypoints.numpy()
    share = rng.uniform(size=(len(bone), 12, 1))
    along = (1 - share) * places[person, start[bone]][:, None] + share * places[person, end[bone]][:, None]
    ground = rng.uniform([-12, -6, -1.0], [12, 6, -0.9], (clutter, 3))
    xyz = np.concatenate([along.reshape(-1, 3) + rng.normal(scale=0.03, size=(along[..., 0].size, 3)), ground])
    sample = Sample()
    sample.points = torch.from_numpy(np.concatenate([xyz, rng.uniform(size=(len(xyz), 2))], axis=1)).float()
    sample.gt = gt
    return sample


def encoder_config(**changes: Any) -> dict[str, Any]:
    return dict(
        type="VoxelKPEncoder",
        grid=GRID,
        in_channels=5,
        **{**dict(channels=[8, 8, 16, 16, 16, 16], out_channels=32), **changes},
    )


def head_config(**changes: Any) -> dict[str, Any]:
    decoder = dict(center_range=CENTER_RANGE, score_threshold=0.3, iou_exponents=[0.68], nms_quarter_turn=False)
    return dict(type="KeypointHead", grid=GRID, in_channels=32, decoder=decoder, **changes)


def detector_config() -> dict[str, Any]:
    return dict(
        type="Detector3D",
        data_preprocessor=dict(type="Preprocessor", grid=GRID, num_features=5),
        point_branch=dict(
            type="SparseMapBranch",
            voxel_encoder=dict(type="MeanVoxelEncoder", num_features=5, max_points=5),
            backbone=encoder_config(),
        ),
        head=head_config(),
    )
