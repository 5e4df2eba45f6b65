"""SparseFusion's semantic transfer: cells of the bird's-eye map look at the images, then become a heat map.

    1. a cell becomes a 3D point: its middle, as high as its points lie on average (lowest and highest)
    2. for each camera that sees it, it becomes a query: its feature + the maximum over levels of what the image shows
       there, placed by (logit u, logit v, log depth)
    3. the queries of a camera attend to each other and look at its image
    4. a cell that several cameras see takes the maximum; one that none sees keeps its own feature
    5. heat map = conv(reduce(features, 1 where a camera sees the cell))

Cells of all cameras are padded to one length, so that one call of each layer serves them all.

Source: SparseFusion (Xie et al., ICCV 2023), section 3.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparse3d.decoding.sparsebev import inverse_sigmoid
from sparse3d.structures import Grid

from ..layers.camera_geometry import CameraGeometry
from ..layers.decoder import DeformableDecoderLayer
from ..layers.deformable import ImageMemory
from ..layers.position import PlainPositionEmbedding
from ..points.cell_heights import CellHeights
from .sparsefusion_layers import add_positions, cell_middles, heatmap_block, projection


class SemanticTransfer(nn.Module):
    """Bird's-eye map and images -> heat map.

    Args:
        grid: the grid of the map's cells.
        channels: width C of map and images.
        num_classes: K.
        num_levels: image maps.
        num_heads: attention heads.
        ffn_channels: hidden width of the feed-forward network.
        dropout: of the decoder layer.
    """

    def __init__(
        self,
        grid: Grid,
        channels: int,
        num_classes: int,
        num_levels: int,
        num_heads: int,
        ffn_channels: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.grid = grid
        self.cell_projection = projection(channels)
        self.image_projection = projection(channels)
        self.query_position = PlainPositionEmbedding(3, channels)
        self.key_position = PlainPositionEmbedding(2, channels)
        self.layer = DeformableDecoderLayer(channels, num_heads, ffn_channels, num_levels, dropout=dropout)
        self.reduce = heatmap_block(channels + 1, channels)
        self.heatmap = nn.Conv2d(channels, num_classes, 3, padding=1)

    def forward(
        self,
        bev: Tensor,  # [B, C, Y, X]
        heights: CellHeights,
        images: ImageMemory,
        cameras: CameraGeometry,
    ) -> Tensor:  # [B, K, Y, X]
        """Return the logits of a heat map.

        Args:
            bev: bird's-eye map.
            heights: of the points in its cells.
            images: maps of C channels, without positions.
            cameras: that the images come from.
        """
        cells = self.cell_projection(bev.flatten(2).transpose(1, 2))
        maps = [self.image_projection(level.movedim(2, -1)).movedim(-1, 2) for level in images.maps]
        seen = SeenCells.find(self._points(heights), cameras)
        looked = self._look(cells, ImageMemory(tuple(maps), images.hidden), seen)
        merged = seen.merge(looked.to(cells.dtype), cells)
        features = torch.cat([merged, seen.by_any[..., None].to(merged.dtype)], dim=-1)
        return self.heatmap(self.reduce(features.transpose(1, 2).unflatten(2, bev.shape[2:])))

    def _points(self, heights: CellHeights) -> Tensor:
        """Return the cells as points ``[B, Y X, 3]`` in metres, at a height of NaN where they are empty; see step 1."""
        height = heights.middle.where(heights.occupied, torch.nan)
        middles = cell_middles(height.shape[1:], height.device)
        lower, size = (middles.new_tensor(values[:2]) for values in (self.grid.lower, self.grid.cell_size))
        ground = (middles * size + lower).expand(len(height), -1, -1)
        return torch.cat([ground, height.flatten(1)[..., None]], dim=-1)

    def _look(self, cells: Tensor, images: ImageMemory, seen: SeenCells) -> Tensor:
        """Return features ``[B N, L, C]`` of the cells that each camera sees; see steps 2 and 3."""
        maps, hidden = ([each.flatten(0, 1)[:, None] for each in part] for part in (images.maps, images.hidden))
        shown = _read_images([level[:, 0] for level in maps], seen.references)
        positions = self.query_position(torch.cat([inverse_sigmoid(seen.references), seen.depths.log()], dim=-1))
        memory = ImageMemory(add_positions(maps, self.key_position), tuple(hidden))
        views = torch.zeros_like(seen.cells)  # each camera is a batch of its own
        return self.layer(seen.gather(cells) + shown, positions, seen.references, views, memory, seen.bias())


def _read_images(
    maps: Sequence[Tensor],  # L of [G, C, H, W]
    references: Tensor,  # [G, Q, 2]
) -> Tensor:  # [G, Q, C]
    """Return the maximum over levels of what images show at ``(u, v)``; beyond their edge the edge goes on."""
    grid = (2 * references - 1)[:, None]
    levels = [
        F.grid_sample(level.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)[:, :, 0]
        for level in maps
    ]
    return torch.stack(levels).amax(dim=0).transpose(1, 2)


@dataclass(frozen=True)
class SeenCells:
    """The cells that each camera sees, padded to one length L of at least 1.

    Args:
        cells: ``[B N, L]`` int64, 0 where there is none.
        filled: ``[B N, L]`` bool.
        references: ``[B N, L, 2]`` ``(u, v)`` in parts of the padded image.
        depths: ``[B N, L, 1]`` metres.
        by_any: ``[B, Y X]`` bool, a camera sees the cell.
    """

    cells: Tensor
    filled: Tensor
    references: Tensor
    depths: Tensor
    by_any: Tensor

    @classmethod
    def find(
        cls,
        points: Tensor,  # [B, Y X, 3]
        cameras: CameraGeometry,
    ) -> SeenCells:
        """Return what the cameras see of points, of which those with NaN are not seen."""
        pixels, depths = cameras.project(points)
        visible = cameras.inside(pixels, depths)
        group, cell = visible.flatten(0, 1).nonzero().unbind(1)
        counts = visible.flatten(0, 1).sum(dim=1)
        slot = torch.arange(len(group), device=group.device) - (counts.cumsum(0) - counts)[group]
        length = max(int(counts.max()), 1)

        def pad(values: Tensor, fill: float) -> Tensor:
            padded = values.new_full((len(counts), length, *values.shape[1:]), fill)
            return padded.index_put((group, slot), values)

        size = pixels.new_tensor(cameras.image_size[::-1])
        return cls(
            cells=pad(cell, 0),
            filled=pad(torch.ones_like(cell, dtype=torch.bool), False),
            references=pad(pixels.flatten(0, 1)[group, cell] / size, 0.5),
            depths=pad(depths.flatten(0, 1)[group, cell][:, None], 1.0),
            by_any=visible.any(dim=1),
        )

    def gather(self, cells: Tensor) -> Tensor:
        """Return the rows ``[B N, L, C]`` of features of all cells ``[B, Y X, C]``."""
        return cells.flatten(0, 1)[self._rows(cells)]

    def bias(self) -> Tensor:
        """Return ``[B N, 1, L]``: -inf hides padding, except from a camera that sees nothing else."""
        hidden = ~self.filled & self.filled.any(dim=1, keepdim=True)
        return torch.zeros_like(self.references[..., 0]).masked_fill(hidden, -torch.inf)[:, None]

    def merge(
        self,
        looked: Tensor,  # [B N, L, C]
        cells: Tensor,  # [B, Y X, C]
    ) -> Tensor:  # [B, Y X, C]
        """Return ``cells`` where no camera looked, else the maximum over cameras; see step 4."""
        rows = self._rows(cells)[self.filled][:, None].expand(-1, cells.shape[2])
        flat = cells.flatten(0, 1).scatter_reduce(0, rows, looked[self.filled], "amax", include_self=False)
        return flat.view_as(cells)

    def _rows(self, cells: Tensor) -> Tensor:
        """Return ``[B N, L]``, rows of ``cells`` ``[B, Y X, C]`` flattened."""
        sample = torch.arange(len(self.cells), device=cells.device) // (len(self.cells) // len(cells))
        return self.cells + sample[:, None] * cells.shape[1]
