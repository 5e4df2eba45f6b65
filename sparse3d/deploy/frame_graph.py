"""SparseBEV's graph: images of several frames and their projections in, named outputs of the head out.

In half precision only backbone and neck are: the head computes with positions.
"""

from __future__ import annotations

import torch
from torch import nn

from sparse3d.models import Detector3D
from sparse3d.models.layers.frame_views import FrameViews
from sparse3d_ops import FeatureMaps

from .frame_inputs import FrameInputs
from .image_inputs import ImageInputs
from .named import Named
from .outputs import TopKOutputs
from .sensor_scan import CameraScan


class FrameGraph(nn.Module):
    """Backbone, neck and head.

    Args:
        detector: in eval mode; the graph takes over its modules and casts them.
        image_size: ``(height, width)`` of the network's input.
        dtype: of backbone and neck.
    """

    def __init__(self, detector: Detector3D, image_size: tuple[int, int], dtype: torch.dtype) -> None:
        super().__init__()
        branch = detector.image_branch
        self.image_size, self.dtype = image_size, dtype
        self.backbone, self.neck = branch.backbone.to(dtype), branch.neck.to(dtype)
        self.head, self.outputs = detector.head, TopKOutputs.of(detector.head)

    def forward(self, named: Named) -> Named:
        """Run everything between the tensors of ``FrameInputs`` and those of the head's outputs."""
        levels = self.neck(self.backbone(named["images"][0].to(self.dtype)))
        shape = named["lidar2img"].shape[:3]
        maps = FeatureMaps([level.float().unflatten(0, shape) for level in levels])
        return self.outputs.name(self.head.refine(FrameViews(maps, named["lidar2img"], named["ages"], self.image_size)))


def frame_inputs(detector: Detector3D, scan: CameraScan) -> FrameInputs:
    """Describe how images become the inputs of a detector's graph; sizes are those of a scan."""
    images = ImageInputs.of(detector.data_preprocessor.normalizer, scan)
    return FrameInputs(detector.head.grid, images, detector.head.num_frames)
