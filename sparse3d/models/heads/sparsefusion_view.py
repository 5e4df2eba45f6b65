"""SparseFusion's view transformer: what cameras found, brought to the LiDAR frame and refined there.

    lift     the box of a camera's level frame in the LiDAR frame: place, heading and velocity are turned, sizes stay
    gate     q ← q · sigmoid(MLP(BN(R, t, fx, fy, cx, cy)))
    position logits of x, y (12 cells more than the map on either side), z (±10 m), sin yaw, cos yaw; vx, vy; logits of
             (u, v)
    layer    all camera queries of a sample attend to each other

Centres are refined; height, size, heading and velocity are predicted anew. Nothing flows back through the lifted boxes.

Source: SparseFusion (Xie et al., ICCV 2023), section 3.3.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparse3d.decoding.sparsebev import inverse_sigmoid
from sparse3d.encoding.camera_geometry import CameraGeometry, select
from sparse3d.structures import Grid

from ..layers.decoder import QueryDecoderLayer
from ..layers.norm import RowNorm
from ..layers.position import PlainPositionEmbedding
from .sparsefusion_camera import CameraPredictions
from .sparsefusion_layers import BoxBranches, Predictions, projection

MARGIN = 12  # cells around the map
HEIGHT_LIMIT = 10.0  # metres
CAMERA_NUMBERS = 16
POSITION_NUMBERS = 9


def lift(found: CameraPredictions, cameras: CameraGeometry, grid: Grid) -> dict[str, Tensor]:
    """Return the codes ``[B, Q, 1 to 3]`` of boxes that cameras found, in the LiDAR frame, without gradient."""
    codes = {name: code.detach() for name, code in found.codes.items()}
    places = cameras.to_lidar(found.places.detach(), found.views, places=True)
    lower, cell = (places.new_tensor(values[:2]) for values in (grid.lower, grid.cell_size))
    heading = cameras.to_lidar(F.pad(codes["rot"].flip(-1), (0, 1)), found.views, places=False)
    velocity = cameras.to_lidar(F.pad(codes["vel"], (0, 1)), found.views, places=False)
    return {
        "center": (places[..., :2] - lower) / cell,
        "height": places[..., 2:],
        "dim": codes["dim"],
        "rot": heading[..., :2].flip(-1),
        "vel": velocity[..., :2],
    }


def camera_numbers(
    cameras: CameraGeometry,
    views: Tensor,  # [B, Q]
) -> Tensor:  # [B, Q, 16]
    """Return R (row by row), t, fx, fy, cx, cy of the queries' cameras."""
    intrinsics = cameras.intrinsics
    numbers = [
        cameras.rotations.flatten(2),
        cameras.shifts,
        intrinsics.diagonal(dim1=2, dim2=3)[..., :2],
        intrinsics[..., :2, 2],
    ]
    return select(torch.cat(numbers, dim=-1), views)


class CameraGate(nn.Module):
    """Share of each channel that passes, by the numbers of the camera."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = RowNorm(CAMERA_NUMBERS)
        self.network = nn.Sequential(
            *(nn.Linear(CAMERA_NUMBERS, channels), nn.ReLU(inplace=True)),
            *(nn.Linear(channels, channels), nn.ReLU(inplace=True)),
            nn.Linear(channels, channels),
        )

    def forward(self, numbers: Tensor) -> Tensor:
        """Return ``[B, Q, C]`` in ``[0, 1]`` for ``[B, Q, 16]``."""
        return self.network(self.norm(numbers.flatten(0, 1))).sigmoid().unflatten(0, numbers.shape[:2])


class ViewTransformer(nn.Module):
    """Refines lifted candidates.

    Args:
        grid: the grid of the map's cells.
        channels: width C.
        num_classes: K.
        num_heads: attention heads.
        ffn_channels: hidden width of the feed-forward network.
        dropout: of the layer.
    """

    def __init__(
        self, grid: Grid, channels: int, num_classes: int, num_heads: int, ffn_channels: int, dropout: float
    ) -> None:
        super().__init__()
        height, width = grid.out_shape
        self.extent = (width + 2 * MARGIN, height + 2 * MARGIN)  # cells
        self.gate = CameraGate(channels)
        self.projection = projection(channels)
        self.query_position = PlainPositionEmbedding(POSITION_NUMBERS, channels)
        self.key_position = PlainPositionEmbedding(POSITION_NUMBERS, channels)
        self.layer = QueryDecoderLayer(
            channels, num_heads, ffn_channels, self_attention="none", dropout=dropout, attention_dropout=dropout
        )
        self.branches = BoxBranches(channels, num_classes)

    def forward(
        self,
        queries: Tensor,  # [B, Q, C]
        lifted: dict[str, Tensor],  # [B, Q, 1 to 3] each
        positions: Tensor,  # [B, Q, 2]
        numbers: Tensor,  # [B, Q, 16]
        bias: Tensor | None = None,  # [B, Q, Q]
    ) -> tuple[Tensor, Predictions]:  # [B, Q, C]
        """Refine candidates.

        Args:
            queries: their features.
            lifted: their boxes in the LiDAR frame.
            positions: logits of ``(u, v)`` in their images.
            numbers: of their cameras.
            bias: added to the scores of the attention; -inf hides a candidate from another one.
        """
        queries = self.projection(queries * self.gate(numbers))
        where = self._positions(lifted, positions)
        queries = self.layer(queries, self.query_position(where), queries, self.key_position(where), bias)
        return queries, self.branches(queries, lifted["center"])

    def _positions(self, lifted: dict[str, Tensor], positions: Tensor) -> Tensor:
        """Return ``[B, Q, 9]``; see the top of the file."""
        bounded = [
            (lifted["center"] + MARGIN) / positions.new_tensor(self.extent),
            (lifted["height"] + HEIGHT_LIMIT) / (2 * HEIGHT_LIMIT),
            (lifted["rot"] + 1) / 2,
        ]
        return torch.cat([inverse_sigmoid(torch.cat(bounded, dim=-1)), lifted["vel"], positions], dim=-1)
