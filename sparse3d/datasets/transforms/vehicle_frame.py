"""From the LiDAR's frame to the vehicle's, for detectors that were trained in it.

Source: BEVDepth (Li et al., AAAI 2023), whose published code averages the vehicle's poses at the times of the cameras.
"""

from __future__ import annotations

import numpy as np
import torch

from ...registry import TRANSFORMS
from ...structures import Frame, Sample
from ..poses import invert_poses, make_poses, quaternion_of
from .geometry import move_world
from .loading import require_unmoved


@TRANSFORMS.register_module()
class ToVehicleFrame:
    """Express points, boxes and cameras in the frame of the vehicle: x forward, y left, z up from the ground.

    It is the mean of the vehicle's frames when the cameras of the frame were exposed, or the one at the LiDAR's time
    where no camera is on record. Predictions come back in the LiDAR's frame, as from every detector.

    Raises:
        ValueError: if something has moved the sample before.
    """

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return the sample in the other frame; that is no augmentation."""
        require_unmoved(sample, "ToVehicleFrame")
        matrix = invert_poses(_mean_pose(sample.frame)) @ sample.frame.lidar2global
        moved = move_world(sample, matrix)
        if "cameras" not in sample:
            return moved
        return moved.replace(cameras=sample.cameras.change_frame(torch.from_numpy(matrix)))


def _mean_pose(frame: Frame) -> np.ndarray:
    """Return the mean of the vehicle's poses, 4x4: of the translations, and of the quaternions as they are."""
    poses = np.stack([camera.ego2global for camera in frame.cameras] or [frame.ego2global])
    quaternions = np.stack([quaternion_of(pose[:3, :3]) for pose in poses])
    quaternions *= np.where(quaternions @ quaternions[0] < 0, -1.0, 1.0)[:, None]  # q and -q are one rotation
    return make_poses(poses[:, :3, 3].mean(axis=0), quaternions.mean(axis=0))
