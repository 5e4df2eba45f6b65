"""MatrixVT: image features to a bird's-eye map by two small matrices.

    BEV = ((depth · ring) ∘ ray)ᵀ · feature         depth [N W, D], feature [N W, C] of all image columns

`prime.py` makes depth and feature of the columns, `encoding/ring_ray.py` the matrices. A cell in the direction of a
column receives its feature weighted by the depth of every bin that the ring gives the cell, those that only another
column reaches there included: that is the approximation.

Everything after the depth network is computed in float32.

Source: MatrixVT (Zhou et al., ICCV 2023), sections 3.2 and 3.3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor

from sparse3d.encoding import CELLS, RingRay, calibration_codes
from sparse3d.registry import MODELS
from sparse3d.structures import Cameras, Grid

from ..images.depth_net import DepthNet
from ..layers.precision import full_precision
from .prime import DepthReducer, HoriConv

KEPT_RIGS = 8


@MODELS.register_module()
class MatrixVT(BaseModule):
    """Depth network, prime extraction and the feature transporting matrix.

    Args:
        grid: the grid; its stride gives the map's cells.
        depth_bins: lower edge of the first bin, upper edge of the last one, size, in metres.
        in_channels: of the image features.
        mid_channels: width of the depth network.
        channels: C, of the bird's-eye map.
        prime_channels: width of the convolutions along the image columns.
        cells: how points are assigned to cells, ``"published"`` or ``"exact"``, see ``RingRay``.

    Raises:
        ValueError: if there is no depth bin, or the assignment is unknown.
    """

    def __init__(
        self,
        grid: Grid | Mapping[str, Any],
        depth_bins: Sequence[float],
        in_channels: int,
        mid_channels: int,
        channels: int,
        prime_channels: int = 512,
        cells: str = "published",
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        low, high, size = depth_bins
        if not 0 < low < high or size <= 0 or cells not in CELLS:
            raise ValueError(
                f"MatrixVT: expected depth_bins (low, high, size) and cells of {CELLS}, got {depth_bins}, {cells!r}"
            )
        self.grid, self.cells = Grid.build(grid), cells
        self.depth_bins = (float(low), float(high), float(size))
        self.num_bins = round((high - low) / size)
        self.depth_net = DepthNet(in_channels, mid_channels, channels, self.num_bins)
        self.depth_reducer = DepthReducer(channels)
        self.horiconv = HoriConv(channels, prime_channels)
        self._kept: dict[tuple, RingRay] = {}

    def forward(
        self,
        features: Tensor,  # [B, N, in_channels, h, w]
        cameras: Sequence[Cameras],
        image_size: tuple[int, int],
    ) -> tuple[Tensor, Tensor]:  # [B, C, Y, X], [B N, D, h, w]
        """Return the bird's-eye map and the depth probabilities of all pixels.

        Args:
            features: of the images of B rigs of N cameras.
            cameras: the rigs.
            image_size: ``(height, width)`` of the images, padding included.
        """
        codes = calibration_codes(cameras).to(features.device)
        rigs = [self.matrices(rig, image_size, features.shape[-1]) for rig in cameras]
        ring, ray = (torch.stack([getattr(rig, name) for rig in rigs]).to(features.device) for name in ("ring", "ray"))
        return self.transport(features, codes, ring, ray)

    def transport(
        self,
        features: Tensor,  # [B, N, in_channels, h, w]
        codes: Tensor,  # [B, N, 27]
        ring: Tensor,  # [B, D, Y X]
        ray: Tensor,  # [B, N w, Y X]
    ) -> tuple[Tensor, Tensor]:  # [B, C, Y, X], [B N, D, h, w]
        """Do what ``forward`` does where everything about the rigs is known; these are standard operators alone."""
        logits, context = self.depth_net(features.flatten(0, 1), codes.flatten(0, 1))
        return self.project(logits, context, ring, ray)

    @full_precision
    def project(
        self,
        logits: Tensor,  # [B N, D, h, w]
        context: Tensor,  # [B N, C, h, w]
        ring: Tensor,  # [B, D, Y X]
        ray: Tensor,  # [B, N w, Y X]
    ) -> tuple[Tensor, Tensor]:
        """Return the map and the depth probabilities for what the depth network said."""
        probabilities, context = logits.float().softmax(dim=1), context.float()
        depth, feature = (
            columns.unflatten(0, (len(ring), -1)).transpose(2, 3).flatten(1, 2)  # [B, N w, D or C]
            for columns in (self.depth_reducer(context, probabilities), self.horiconv(context))
        )
        transported = ((depth @ ring) * ray).transpose(1, 2) @ feature  # [B, Y X, C]
        return transported.transpose(1, 2).unflatten(2, self.grid.out_shape), probabilities

    def depths(self) -> Tensor:
        """Return the lower edges of the bins, ``[D]`` float64, metres."""
        low, _, size = self.depth_bins
        return low + size * torch.arange(self.num_bins, dtype=torch.float64)

    def matrices(self, rig: Cameras, image_size: tuple[int, int], num_columns: int) -> RingRay:
        """Return the matrices of a rig; those of the rigs met last are kept."""
        lidar2img = rig.lidar2img
        key = (lidar2img.cpu().numpy().tobytes(), lidar2img.device, image_size, num_columns)
        if key not in self._kept:
            if len(self._kept) == KEPT_RIGS:
                self._kept.pop(next(iter(self._kept)))
            with torch.inference_mode(False):  # training may meet the rig next
                self._kept[key] = RingRay.build(rig, image_size, num_columns, self.depths(), self.grid, self.cells)
        return self._kept[key]
