"""MatrixVT's graph: images and what is known of their cameras in, named outputs of the head out.

In half precision the view transform stays in float32: it computes distributions, and sums over hundreds of columns.
"""

from __future__ import annotations

import torch
from torch import nn

from sparse3d.models import Detector3D

from .camera_inputs import CameraInputs
from .image_inputs import ImageInputs
from .map_graph import MapGraph
from .named import Named
from .sensor_scan import CameraScan


class CameraGraph(nn.Module):
    """Image backbone, neck, view transform, map and head.

    Args:
        detector: in eval mode; the graph takes over its modules and casts them.
        dtype: of everything but the view transform.
    """

    def __init__(self, detector: Detector3D, dtype: torch.dtype) -> None:
        super().__init__()
        branch = detector.image_branch
        self.dtype = dtype
        self.backbone, self.neck = branch.backbone.to(dtype), branch.neck.to(dtype)
        self.view_transform = branch.view_transform
        self.map_graph = MapGraph(branch.bev_backbone, detector.head, dtype)

    def forward(self, named: Named) -> Named:
        """Run everything between the tensors of ``CameraInputs`` and those of the head's outputs."""
        images = named["images"].to(self.dtype)
        features = self.neck(self.backbone(images.flatten(0, 1)))[0].float().unflatten(0, images.shape[:2])
        bev, _ = self.view_transform.transport(features, named["codes"], named["ring"], named["ray"])
        return self.map_graph(bev.to(self.dtype))


def camera_inputs(detector: Detector3D, scan: CameraScan) -> CameraInputs:
    """Describe how images become the inputs of a detector's graph; sizes are those of a scan.

    Raises:
        ValueError: if training would pad images of that size, which a graph does not.
    """
    normalizer, transform = detector.data_preprocessor.normalizer, detector.image_branch.view_transform
    height, width = scan.images.shape[-2:]
    if height % normalizer.size_divisor or width % normalizer.size_divisor:
        raise ValueError(f"export: images of {height} x {width} are no multiples of {normalizer.size_divisor}")
    with torch.no_grad():
        features = detector.image_branch.extract(torch.zeros(1, 1, 3, height, width))[0]
    return CameraInputs(
        grid=transform.grid,
        images=ImageInputs.of(normalizer, scan),
        num_columns=features.shape[-1],
        depth_bins=transform.depth_bins,
        cells=transform.cells,
    )
