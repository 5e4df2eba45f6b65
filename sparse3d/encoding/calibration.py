"""What a camera-aware network is told of a rig.

Source: BEVDepth (Li et al., AAAI 2023), section 4.2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sparse3d.structures import Cameras

NUM_CODES = 27


def calibration_codes(cameras: Sequence[Cameras]) -> Tensor:
    """Return what the network is told of B rigs of N cameras, ``[B, N, 27]`` float32.

    Focal lengths and principal point of the image as recorded; the augmentation of the image, then of the world; the
    camera's pose in the frame of the points before augmentation. The codes of a camera that sees nothing are those of
    one that stands in the origin.
    """
    return torch.stack([_codes(rig) for rig in cameras]).float()


def _codes(rig: Cameras) -> Tensor:
    k, image, bev = rig.intrinsics, rig.image_aug, rig.bev_aug
    sees = rig.sees[:, None, None]
    cam2lidar = torch.linalg.inv(torch.where(sees, rig.lidar2cam @ bev, torch.eye(4).to(bev)))
    numbers = [
        *(k[:, row, column] for row, column in ((0, 0), (1, 1), (0, 2), (1, 2))),
        *(image[:, row, column] for row in (0, 1) for column in (0, 1, 2)),
        *(bev[:, row, column] for row, column in ((0, 0), (0, 1), (1, 0), (1, 1), (2, 2))),
    ]
    return torch.cat([torch.stack(numbers, dim=1), cam2lidar[:, :3].flatten(1)], dim=1)
