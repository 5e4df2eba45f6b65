"""What the parts of SparseFusion's head share: predictions of 3D boxes, projections, places of cells and pixels.

    center   where the centre is, in cells        height   of the centre, in metres
    dim      log (l, w, h)                        rot      (sin yaw, cos yaw)
    vel      (vx, vy)                             logits   one a class

Source: SparseFusion (Xie et al., ICCV 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sparse3d.decoding.sparsebev import inverse_sigmoid
from sparse3d.encoding.cell_heights import cell_middles

from ..images.fpn import ChannelNorm
from ..layers.norm import RowNorm
from ..layers.position import PlainPositionEmbedding

BRANCHES = {"center": 2, "height": 1, "dim": 3, "rot": 2, "vel": 2}
BRANCH_CHANNELS = 64


@dataclass(frozen=True)
class Predictions:
    """What candidates say about their boxes.

    Args:
        codes: ``[B, Q, 1 to 3]`` by branch; see the top of the file.
        logits: ``[B, Q, K]``.
    """

    codes: dict[str, Tensor]
    logits: Tensor


class BoxBranches(nn.ModuleDict):
    """A small network for each number of a box, and one for its class."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__({name: _branch(channels, out) for name, out in {**BRANCHES, "heatmap": num_classes}.items()})

    def forward(
        self,
        queries: Tensor,  # [B, Q, C]
        origins: Tensor,  # [B, Q, 2]
    ) -> Predictions:
        """Return what queries say; centres are regressed from ``origins``, in cells."""
        found = {name: branch(queries.flatten(0, 1)).unflatten(0, queries.shape[:2]) for name, branch in self.items()}
        logits = found.pop("heatmap")
        return Predictions({**found, "center": found["center"].float() + origins}, logits)


def _branch(channels: int, out_channels: int) -> nn.Sequential:
    hidden = nn.Sequential(
        nn.Linear(channels, BRANCH_CHANNELS, bias=False), RowNorm(BRANCH_CHANNELS), nn.ReLU(inplace=True)
    )
    return nn.Sequential(hidden, nn.Linear(BRANCH_CHANNELS, out_channels))


def projection(channels: int) -> nn.Sequential:
    """Return Linear and LayerNorm on rows ``[..., C]``."""
    return nn.Sequential(nn.Linear(channels, channels), nn.LayerNorm(channels))


def heatmap_block(in_channels: int, channels: int) -> nn.Sequential:
    """Return conv3x3, LayerNorm over channels and ReLU on maps."""
    convolution = nn.Conv2d(in_channels, channels, 3, padding=1)
    return nn.Sequential(convolution, ChannelNorm(channels), nn.ReLU(inplace=True))


def pixel_positions(shape: Sequence[int], device: torch.device) -> Tensor:
    """Return logits ``[H W, 2]`` of the middles ``(u, v)`` of the pixels of a map, in parts of the image."""
    height, width = shape
    middles = cell_middles(shape, device)
    return inverse_sigmoid(middles / middles.new_tensor([width, height]))


def add_positions(maps: Sequence[Tensor], embedding: PlainPositionEmbedding) -> tuple[Tensor, ...]:
    """Return image maps ``[B, N, C, H, W]`` with the embedded positions of their pixels."""
    placed = []
    for level in maps:
        height, width = level.shape[-2:]
        embedded = embedding(pixel_positions((height, width), level.device))
        placed.append(level + embedded.T.unflatten(1, (height, width)))
    return tuple(placed)
