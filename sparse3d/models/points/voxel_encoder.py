"""Dynamic voxel feature encoder: a small PointNet over the points of each voxel, no cap on points or voxels.

What it is told about a point is defined in `sparse3d_ops.descriptors`.

Layer: Linear without bias -> BatchNorm -> ReLU -> maximum over the points of each voxel. Every layer but the last has
half its nominal width and passes on [point's feature, its voxel's maximum]; the last one passes on the maximum alone.
A layer's product with the broadcast half is taken once a voxel and then gathered, which is the same sum.

In eval mode BatchNorm is a fixed map: its scale goes into the weight, its shift becomes a bias. What the last layer
adds to all points of a voxel alike, and ReLU, then commute with the maximum, even in rounding, so they are done once a
voxel.

Source: DSVT (Wang et al., CVPR 2023), after the dynamic voxelization of MVF (Zhou et al., CoRL 2019).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from sparse3d.registry import MODELS
from sparse3d.structures import Grid, Voxels
from sparse3d_ops import Segments, SegmentTree, describe_points, segment_gather, segment_max
from sparse3d_ops.descriptors import NUM_OFFSETS

from ..layers.norm import RowNorm
from ..layers.precision import full_precision

NORM = dict(eps=1e-3, momentum=0.01)


@MODELS.register_module()
class DynamicVoxelEncoder(BaseModule):
    """Encode the points of each voxel into one feature; pillars are voxels as tall as the range.

    Runs in float32 even under autocast: half precision cannot hold metres to the centimetre.

    Args:
        grid: the grid that the voxels were made with.
        num_features: F, columns of the point tensor, ``x, y, z`` first.
        channels: nominal widths of the layers, e.g. ``[128, 128]``; all but the last even.
        with_distance: append the distance to the sensor.
        scales: typical size of each number of the descriptor; it is divided by them, so that metres, intensities up to
            255 and centimetres weigh alike from the first step on. None, as published: the norms have to find that.

    Raises:
        ValueError: if there is no layer, or a width that is halved is odd.
    """

    def __init__(
        self,
        grid: Grid | Mapping[str, Any],
        num_features: int,
        channels: Sequence[int],
        with_distance: bool = False,
        scales: Sequence[float] | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if not channels or any(width % 2 for width in channels[:-1]):
            raise ValueError(f"channels: expected at least one width, all but the last even, got {list(channels)}")
        self.grid = Grid.build(grid)
        self.num_features = num_features
        self.with_distance = with_distance
        self.out_channels = channels[-1]
        num_inputs = num_features + NUM_OFFSETS + int(with_distance)
        self.register_buffer("scales", _check_scales(scales, num_inputs), persistent=False)
        widths_in = [num_inputs, *channels[:-1]]
        widths_out = [*(width // 2 for width in channels[:-1]), channels[-1]]
        self.layers = nn.ModuleList(VoxelLayer(a, b) for a, b in zip(widths_in, widths_out, strict=True))

    @full_precision
    def forward(self, voxels: Voxels) -> Tensor:
        """Return the voxels' features ``[V, C]`` float32, in the order of ``voxels.coords``.

        Raises:
            ValueError: if the points have another number of columns.
        """
        points = voxels.points
        if points.ndim != 2 or points.shape[1] != self.num_features:
            raise ValueError(f"voxels.points: expected [P, {self.num_features}], got {list(points.shape)}")
        segments = Segments.from_index(voxels.point_to_voxel, len(voxels.coords))
        descriptors = describe_points(
            points,
            voxels.coords,
            segments,
            self.grid.lower,
            self.grid.voxel_size,
            with_distance=self.with_distance,
            scales=self.scales,
        )
        return self.encode(descriptors, segments)

    def encode(
        self,
        descriptors: Tensor,  # [P, F + 6 (+ 1)]
        segments: Segments | SegmentTree,
    ) -> Tensor:  # [V, C]
        """Run the layers on described points."""
        of_points, of_voxels = descriptors, None
        for layer in self.layers[:-1]:
            of_points = layer(of_points, of_voxels, segments)
            of_voxels = segment_max(of_points, segments)
        return self.layers[-1].maximum(of_points, of_voxels, segments)


def _check_scales(scales: Sequence[float] | None, num_inputs: int) -> Tensor | None:
    if scales is None:
        return None
    if len(scales) != num_inputs or not all(scale > 0 for scale in scales):
        raise ValueError(
            f"scales: expected {num_inputs} positive numbers, one for each of the descriptor, got {scales}"
        )
    return torch.tensor(scales, dtype=torch.float32)


class VoxelLayer(nn.Module):
    """One layer up to the maximum: Linear, BatchNorm, ReLU on [point's feature, its voxel's feature]."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_channels, out_channels, bias=False)
        self.norm = RowNorm(out_channels, **NORM)

    def forward(
        self,
        of_points: Tensor,  # [P, A]
        of_voxels: Tensor | None,  # [V, B], A + B = in_channels
        segments: Segments | SegmentTree,
    ) -> Tensor:  # [P, out_channels]
        """Return the points' new features."""
        width = of_points.shape[1]
        weight, bias = (self.linear.weight, None) if self.training else self._fold()
        product = F.linear(of_points, weight[:, :width], bias)
        if of_voxels is not None:
            product = product + segment_gather(F.linear(of_voxels, weight[:, width:]), segments)
        return F.relu(self.norm(product) if self.training else product)

    def maximum(
        self,
        of_points: Tensor,  # [P, A]
        of_voxels: Tensor | None,  # [V, B]
        segments: Segments | SegmentTree,
    ) -> Tensor:  # [V, out_channels]
        """Return the maximum over each voxel's points of what ``forward`` returns."""
        if self.training:
            return segment_max(self(of_points, of_voxels, segments), segments)
        width, (weight, bias) = of_points.shape[1], self._fold()
        top = segment_max(F.linear(of_points, weight[:, :width]), segments)
        if of_voxels is not None:
            top = top + F.linear(of_voxels, weight[:, width:])
        return F.relu(top + bias)

    def _fold(self) -> tuple[Tensor, Tensor]:
        """Return weight and bias of Linear and BatchNorm together."""
        norm = self.norm
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        return self.linear.weight * scale[:, None], norm.bias - norm.running_mean * scale
