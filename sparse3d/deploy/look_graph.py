"""Focals Conv-F's first graph: images -> the map that voxels look at; the others are those of `sparse_graph.py`."""

from __future__ import annotations

import torch
from torch import nn

from sparse3d.models import Detector3D

from .image_inputs import ImageInputs
from .inputs import PointInputs
from .look_inputs import LookInputs
from .named import Named
from .sensor_scan import CameraScan


class LookGraph(nn.Module):
    """Backbone and neck; takes them over from a detector in eval mode and casts them."""

    def __init__(self, detector: Detector3D, dtype: torch.dtype) -> None:
        super().__init__()
        self.backbone = detector.image_branch.backbone.to(dtype)
        self.neck = detector.image_branch.neck.to(dtype)
        self.dtype = dtype

    def forward(self, named: Named) -> Named:
        """Return the finest map."""
        images = named["images"].to(self.dtype)
        return {"image_map": self.neck(self.backbone(images[0]))[0].float()[None]}


def look_inputs(detector: Detector3D, points: PointInputs, scan: CameraScan) -> LookInputs:
    """Describe how points and images become the inputs of a detector's graphs; sizes are those of a scan."""
    encoder = detector.point_branch.backbone
    return LookInputs(
        points=points,
        images=ImageInputs.of(detector.data_preprocessor.normalizer, scan),
        pixels=detector.point_branch.pixels,
        channels=encoder.image_focal.conv.in_channels,
        scored=int("1" in encoder.focals),
    )
