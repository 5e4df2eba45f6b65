"""Frames of cameras, and where points of the present LiDAR frame appear in them.

    (u w, v w, w, 1) = lidar2img (p, 1),      visible: w > 1e-5 and 0 < u, v < 1        u, v in parts of the image

`lidar2img` as in `encoding/frames.py`; what the point itself did between two frames is the caller's business.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparse3d.encoding.frames import frame_ages, frame_matrices
from sparse3d.structures.cameras import MIN_DEPTH
from sparse3d_ops import FeatureMaps

from ..features import Features


@dataclass(frozen=True)
class FrameViews:
    """Image features of B samples with T frames of N cameras.

    Args:
        features: ``[B, T, N, C, H, W]`` a level, float32.
        lidar2img: ``[B, T, N, 4, 4]`` float32, points of the LiDAR frame -> pixels.
        lags: ``[B, T]`` float32, seconds that a frame lies before the first one, the mean over its cameras.
        image_size: ``(height, width)`` of the images that the features were made of, padding included.
    """

    features: FeatureMaps
    lidar2img: Tensor
    lags: Tensor
    image_size: tuple[int, int]

    @classmethod
    def group(cls, features: Features, num_frames: int) -> FrameViews:
        """Sort the cameras of a batch into frames.

        Raises:
            ValueError: if there are no image features, or the cameras cannot be sorted into so many frames.
        """
        if features.images is None or features.image_size is None:
            raise ValueError("features.images: expected the image branch's maps, got None")
        counts = {len(cameras) for cameras in features.cameras}
        if len(counts) != 1 or min(counts) % num_frames:
            raise ValueError(
                f"cameras: {sorted(counts)} views a sample cannot be {num_frames} frames of as many cameras each; "
                "check `past` of the data set and give LoadImages the names of the cameras"
            )
        device = features.images[0].device
        return cls(
            FeatureMaps([level.float().unflatten(1, (num_frames, -1)) for level in features.images]),
            frame_matrices(features.cameras, num_frames).to(device),
            frame_ages(features.cameras, num_frames).to(device),
            features.image_size,
        )

    def project(
        self,
        points: Tensor,  # [B, T, K, 3]
    ) -> tuple[Tensor, Tensor]:  # [B, T, N, K, 2], [B, T, N, K]
        """Return where each frame's points appear in its cameras, and whether they are visible.

        Locations ``(u, v)`` are in parts of the image; what is not in front of a camera is divided by a depth of 1e-5.
        """
        homogeneous = torch.nn.functional.pad(points, (0, 1), value=1.0)
        projected = homogeneous[:, :, None] @ self.lidar2img.transpose(-1, -2)
        depth = projected[..., 2:3]
        size = points.new_tensor(self.image_size[::-1])
        locations = projected[..., :2] / depth.clamp(min=MIN_DEPTH) / size
        inside = (locations > 0) & (locations < 1)
        return locations, inside.all(dim=-1) & (depth[..., 0] > MIN_DEPTH)
