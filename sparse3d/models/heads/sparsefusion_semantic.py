"""SparseFusion's semantic transfer: cells of the bird's-eye map look at the images, then become a heat map.

    1. a cell becomes a 3D point (`encoding/seen_cells.py`)
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

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparse3d.decoding.sparsebev import inverse_sigmoid
from sparse3d.encoding.camera_geometry import CameraGeometry
from sparse3d.encoding.cell_heights import CellHeights
from sparse3d.encoding.seen_cells import SeenCells, cell_points
from sparse3d.structures import Grid

from ..layers.decoder import DeformableDecoderLayer
from ..layers.deformable import ImageMemory
from ..layers.position import PlainPositionEmbedding
from .sparsefusion_layers import add_positions, heatmap_block, projection


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

    def see(self, heights: CellHeights, cameras: CameraGeometry) -> SeenCells:
        """Return which cells the cameras see, by the heights of the points in them; see step 1."""
        return SeenCells.find(cell_points(heights, self.grid), cameras)

    def forward(
        self,
        bev: Tensor,  # [B, C, Y, X]
        seen: SeenCells,
        images: ImageMemory,
    ) -> Tensor:  # [B, K, Y, X]
        """Return the logits of a heat map.

        Args:
            bev: bird's-eye map.
            seen: the cells that the cameras see.
            images: maps of C channels, without positions.
        """
        cells = self.cell_projection(bev.flatten(2).transpose(1, 2))
        maps = [self.image_projection(level.movedim(2, -1)).movedim(-1, 2) for level in images.maps]
        looked = self._look(cells, ImageMemory(tuple(maps), images.hidden), seen)
        features = torch.cat([seen.merge(looked.to(cells.dtype), cells), seen.by_any(cells)], dim=-1)
        return self.heatmap(self.reduce(features.transpose(1, 2).unflatten(2, bev.shape[2:])))

    def _look(self, cells: Tensor, images: ImageMemory, seen: SeenCells) -> Tensor:
        """Return features ``[B N, L, C]`` of the cells that each camera sees; see steps 2 and 3."""
        maps, hidden = ([each.flatten(0, 1)[:, None] for each in part] for part in (images.maps, images.hidden))
        shown = _read_images([level[:, 0] for level in maps], seen.references)
        positions = self.query_position(torch.cat([inverse_sigmoid(seen.references), seen.depths.log()], dim=-1))
        memory = ImageMemory(add_positions(maps, self.key_position), tuple(hidden))
        views = torch.zeros_like(seen.rows)  # each camera is a batch of its own
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
