"""SparseFusion's graph: points, images and what is known of them together in, named outputs of the head out.

In half precision what reads depths (`geometric_transfer.py`) and the head, which computes with positions, stay in
float32.
"""

from __future__ import annotations

import torch
from torch import nn

from sparse3d.models import Detector3D

from .fusion_inputs import FusionInputs, geometry_of, seen_of
from .image_inputs import ImageInputs
from .inputs import PointInputs
from .named import Named
from .outputs import SparseFusionOutputs, as_output
from .sensor_scan import CameraScan
from .sparse_graph import SparseGraph


class FusionGraph(nn.Module):
    """Both branches and the head.

    Args:
        points: the sparse encoder.
        detector: in eval mode; the graph takes over the rest of its modules and casts them.
        image_size: ``(height, width)`` of the network's input.
        dtype: of backbones and necks.
    """

    def __init__(
        self, points: SparseGraph, detector: Detector3D, image_size: tuple[int, int], dtype: torch.dtype
    ) -> None:
        super().__init__()
        branch = detector.image_branch
        self.points, self.image_size, self.dtype = points, image_size, dtype
        self.backbone, self.neck, self.depth = branch.backbone.to(dtype), branch.neck.to(dtype), branch.depth
        self.bev_backbone = detector.point_branch.bev_backbone.to(dtype)
        self.head, self.outputs = detector.head, SparseFusionOutputs.of(detector.head)

    def forward(self, named: Named) -> Named:
        """Run everything between the tensors of ``FusionInputs`` and those of the head's outputs."""
        images = named["images"].to(self.dtype)
        levels = [level.float() for level in self.neck(self.backbone(images.flatten(0, 1)))]
        fused = self.depth(named["depth_maps"].flatten(0, 1), levels)
        output = self.head.from_maps(
            self.bev_backbone(self.points.make_map(named)).float(),
            seen_of(named),
            [level.unflatten(0, images.shape[:2]) for level in fused],
            geometry_of(named, self.image_size),
        )
        return {name: as_output(each) for name, each in self.outputs.name(output).items()}


def fusion_inputs(detector: Detector3D, points: PointInputs, scan: CameraScan) -> FusionInputs:
    """Describe how points and images become the inputs of a detector's graph; sizes are those of a scan."""
    return FusionInputs(
        points=points,
        images=ImageInputs.of(detector.data_preprocessor.normalizer, scan),
        height_points=detector.point_branch.max_points,
        lag_column=detector.image_branch.lag_column,
    )
