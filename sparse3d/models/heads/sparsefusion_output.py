"""What SparseFusion's head says about a batch."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sparse3d.decoding.transfusion import Queries
from sparse3d.encoding.camera_geometry import CameraGeometry

from .sparsefusion_camera import CameraPredictions, ImageQueries
from .sparsefusion_layers import Predictions


@dataclass(frozen=True)
class SparseFusionOutput:
    """What the head says about a batch.

    Args:
        heatmap: ``[B, K, Y, X]`` logits of the bird's-eye map.
        image_heatmaps: ``[B, N, K, H, W]`` logits, one a level.
        lidar_queries: where the P queries of the LiDAR started.
        camera_queries: where the Q queries of the cameras started.
        lidar: what the LiDAR decoder says.
        camera: what the camera decoder says.
        view: what the view transformer says.
        fusion: what the P + Q candidates say in the end.
        cameras: that the images come from.
    """

    heatmap: Tensor
    image_heatmaps: list[Tensor]
    lidar_queries: Queries
    camera_queries: ImageQueries
    lidar: Predictions
    camera: CameraPredictions
    view: Predictions
    fusion: Predictions
    cameras: CameraGeometry
