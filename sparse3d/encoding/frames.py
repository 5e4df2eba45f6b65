"""The cameras of several frames, the present one first: where points of its LiDAR frame appear, and how old each is.

    (u w, v w, w, 1) = lidar2img (p, 1)

`lidar2img` of an earlier frame takes points of the present one, so the vehicle's own motion is in it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sparse3d.structures import Cameras


def frame_matrices(cameras: Sequence[Cameras], num_frames: int) -> Tensor:
    """Return ``lidar2img`` ``[B, T, N, 4, 4]`` float32 of B samples with T frames of N cameras."""
    return torch.stack([rig.lidar2img for rig in cameras]).float().unflatten(1, (num_frames, -1))


def frame_ages(cameras: Sequence[Cameras], num_frames: int) -> Tensor:
    """Return the seconds ``[B, T]`` float32 that frames lie before the first one; differences are taken in float64."""
    times = torch.stack([rig.timestamps for rig in cameras]).unflatten(1, (num_frames, -1))
    return (times[:, :1] - times).mean(dim=2).float()
