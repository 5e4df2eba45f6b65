"""SparseFusion's camera detector: queries at the peaks of heat maps look at the image that they come from.

    heat maps   one network a level; queries are the hottest peaks of all levels, cameras and classes
    q_0         feature of the peak's pixel + embedding of its class
    layer       queries of a camera attend to each other and look at its image
    box         in the camera's level frame (`encoding/camera_geometry.py`), of which the image says:

    center   (u, v) of the centre in parts of the padded image      depth   of the centre, metres
    dim      log (l, w, h)      rot   (sin yaw, cos yaw)      vel   (vx, vy)

Source: SparseFusion (Xie et al., ICCV 2023), section 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sparse3d.decoding.transfusion import Queries
from sparse3d.encoding.camera_geometry import CameraGeometry

from ..layers.decoder import DeformableDecoderLayer
from ..layers.deformable import ImageMemory
from ..layers.position import PlainPositionEmbedding
from .sparsefusion_layers import BRANCH_CHANNELS, add_positions, heatmap_block
from .transfusion_queries import find_peaks, select_queries

CAMERA_BRANCHES = {"center": 2, "depth": 1, "dim": 3, "rot": 2, "vel": 2}
LONE_QUERIES = ("zero", "keep")


class ImageHeatmaps(nn.ModuleList):
    """Heat maps of K classes, one network a level."""

    def __init__(self, channels: int, num_classes: int, num_levels: int) -> None:
        super().__init__(
            nn.Sequential(heatmap_block(channels, channels), nn.Conv2d(channels, num_classes, 3, padding=1))
            for _ in range(num_levels)
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return logits ``[B, N, K, H, W]`` for one map ``[B, N, C, H, W]`` a level."""
        return [
            network(level.flatten(0, 1)).unflatten(0, level.shape[:2])
            for network, level in zip(self, maps, strict=True)
        ]


@dataclass(frozen=True)
class ImageQueries:
    """Where the camera queries of a batch stand.

    Args:
        views: ``[B, Q]`` int64, camera of each.
        pixels: ``[B, Q]`` int64, its place among the pixels of all levels of that camera, finest level first.
        labels: ``[B, Q]`` int64, class that each is a peak of.
        heat: ``[B, Q]``, height of the peak in ``[0, 1]``.
    """

    views: Tensor
    pixels: Tensor
    labels: Tensor
    heat: Tensor

    def gather(self, maps: Sequence[Tensor]) -> Tensor:
        """Return the features ``[B, Q, C]`` of the queries' pixels in ``[B, N, C, H, W]`` a level."""
        pixels = torch.cat([level.flatten(3) for level in maps], dim=3)  # [B, N, C, pixels]
        samples = torch.arange(len(pixels), device=pixels.device)[:, None]
        return pixels[samples, self.views, :, self.pixels]


def image_peaks(logits: Sequence[Tensor], peak_size: int) -> Tensor:
    """Return the heat at peaks ``[B, K, N, pixels]``, 0 elsewhere, for ``[B, N, K, H, W]`` a level."""
    levels = [find_peaks(level.detach().float().sigmoid().flatten(0, 1), peak_size) for level in logits]
    peaks = [peak.unflatten(0, level.shape[:2]).flatten(3) for peak, level in zip(levels, logits, strict=True)]
    return torch.cat(peaks, dim=3).transpose(1, 2)


def select_image_queries(
    peaks: Tensor,  # [B, K, N, pixels]
    num_queries: int,
) -> ImageQueries:
    """Return the hottest peaks of each sample in descending order."""
    found: Queries = select_queries(peaks, num_queries)
    num_pixels = peaks.shape[3]
    return ImageQueries(found.cells // num_pixels, found.cells % num_pixels, found.labels, found.heat)


@dataclass(frozen=True)
class CameraPredictions:
    """What camera queries say about their boxes.

    Args:
        codes: ``[B, Q, 1 to 3]`` by branch; see the top of the file.
        logits: ``[B, Q, K]``.
        places: ``[B, Q, 3]`` metres, the centres in the level frames of the queries' cameras.
        views: ``[B, Q]`` int64, those cameras.
    """

    codes: dict[str, Tensor]
    logits: Tensor
    places: Tensor
    views: Tensor


class CameraDecoder(nn.Module):
    """One decoder layer and its predictions.

    Args:
        channels: width C.
        num_classes: K.
        num_levels: image maps.
        num_heads: attention heads.
        ffn_channels: hidden width of the feed-forward network.
        dropout: of the layer.
        lone_queries: a query that is the only one of its camera becomes ``"zero"``, as the published code has it, or
            is refined like any other, ``"keep"``.

    Raises:
        ValueError: if ``lone_queries`` is another word.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        num_levels: int,
        num_heads: int,
        ffn_channels: int,
        dropout: float,
        lone_queries: str = "zero",
    ) -> None:
        super().__init__()
        if lone_queries not in LONE_QUERIES:
            raise ValueError(f"lone_queries must be one of {', '.join(LONE_QUERIES)}, got {lone_queries!r}")
        self.lone_become_zero = lone_queries == "zero"
        self.query_position = PlainPositionEmbedding(2, channels)
        self.key_position = PlainPositionEmbedding(2, channels)
        self.layer = DeformableDecoderLayer(channels, num_heads, ffn_channels, num_levels, dropout=dropout)
        self.branches = nn.ModuleDict({name: _branch(channels, out) for name, out in CAMERA_BRANCHES.items()})
        self.class_branch = nn.Sequential(
            *(nn.Linear(channels, BRANCH_CHANNELS, bias=False), nn.LayerNorm(BRANCH_CHANNELS), nn.ReLU(inplace=True)),
            nn.Linear(BRANCH_CHANNELS, num_classes),
        )

    def forward(
        self,
        queries: Tensor,  # [B, Q, C]
        positions: Tensor,  # [B, Q, 2]
        views: Tensor,  # [B, Q]
        images: ImageMemory,
        cameras: CameraGeometry,
    ) -> tuple[Tensor, Tensor, CameraPredictions]:  # [B, Q, C], [B, Q, 2]
        """Refine queries.

        Args:
            queries: their features.
            positions: logits of ``(u, v)`` in parts of the padded image.
            views: their cameras.
            images: maps of C channels, without positions.
            cameras: that the images come from.

        Returns:
            Features, refined positions (without gradient), and what the queries say.
        """
        neighbours = views[:, :, None] == views[:, None]
        bias = torch.zeros_like(neighbours, dtype=positions.dtype).masked_fill(~neighbours, -torch.inf)
        memory = ImageMemory(add_positions(images.maps, self.key_position), images.hidden)
        queries = self.layer(queries, self.query_position(positions), positions.sigmoid(), views, memory, bias)
        if self.lone_become_zero:
            queries = queries * (neighbours.sum(dim=2) > 1)[..., None]
        codes = {name: branch(queries).float() for name, branch in self.branches.items()}
        moved = positions + codes["center"]
        codes["center"] = moved.sigmoid()
        pixels = codes["center"] * positions.new_tensor(cameras.image_size[::-1])
        places = cameras.rays(pixels, codes["depth"], views)
        return queries, moved.detach(), CameraPredictions(codes, self.class_branch(queries), places, views)


def _branch(channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Linear(channels, BRANCH_CHANNELS), nn.ReLU(inplace=True)),
        *(nn.Linear(BRANCH_CHANNELS, BRANCH_CHANNELS), nn.ReLU(inplace=True)),
        nn.Linear(BRANCH_CHANNELS, out_channels),
    )
