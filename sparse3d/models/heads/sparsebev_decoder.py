"""The decoder layer of SparseBEV, applied several times with the same weights.

    f ← f + position(c);   f ← LN(attention(f));   f ← LN(mixing(sampling(box, f), f));   f ← LN(f + FFN(f))
    c ← sigmoid(logit(c) + Δ(f));   all other numbers of the box are predicted anew

Source: SparseBEV (Liu et al., ICCV 2023), sections 3.1 to 3.4.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sparse3d.decoding.sparsebev import CODE_SIZE, decode_queries, inverse_sigmoid

from ..layers.adaptive_mixing import AdaptiveMixing
from ..layers.adaptive_sampling import AdaptiveSampling
from ..layers.frame_views import FrameViews
from ..layers.scale_adaptive_attention import ScaleAdaptiveAttention

UNTRAINED_SCORE = 0.01
NO_LAG = 1e-5  # seconds; frames closer than that, or later ones, give no speed


class SparseBEVDecoderLayer(nn.Module):
    """One refinement of the queries and their boxes.

    Args:
        point_range: ``(x0, y0, z0, x1, y1, z1)`` in metres.
        num_classes: K.
        channels: width C.
        num_frames: T.
        num_points: points P of a group in a frame.
        num_levels: levels of the features.
        num_groups: groups G of channels.
        num_heads: attention heads.
        ffn_channels: hidden width of the feed-forward network.
        dropout: of attention and feed-forward network.
        velocity: ``"displacement"`` takes the last two numbers for the way that a box moved since the second frame, as
            the published weights expect; ``"speed"`` takes them for m/s.
        clamp_tau: see ``ScaleAdaptiveAttention``.
        sampling: ``level_weights`` and ``views`` of ``AdaptiveSampling``.
        mixing: ``out_points``, ``queries_at_once`` and ``recompute`` of ``AdaptiveMixing``.

    Raises:
        ValueError: if an option is unknown, or heads or groups do not divide the width.
    """

    def __init__(
        self,
        point_range: Sequence[float],
        num_classes: int,
        channels: int = 256,
        num_frames: int = 8,
        num_points: int = 4,
        num_levels: int = 4,
        num_groups: int = 4,
        num_heads: int = 8,
        ffn_channels: int = 512,
        dropout: float = 0.1,
        velocity: str = "displacement",
        clamp_tau: bool = False,
        sampling: Mapping[str, Any] | None = None,
        mixing: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if velocity not in ("displacement", "speed"):
            raise ValueError(f"velocity must be 'displacement' or 'speed', got {velocity!r}")
        if channels % num_groups:
            raise ValueError(f"channels: {channels} are not divisible by {num_groups} groups")
        self.point_range = tuple(point_range)
        self.velocity_is_displacement = velocity == "displacement"
        self.position = nn.Sequential(
            *(nn.Linear(3, channels), nn.LayerNorm(channels), nn.ReLU(inplace=True)),
            *(nn.Linear(channels, channels), nn.LayerNorm(channels), nn.ReLU(inplace=True)),
        )
        self.attention = ScaleAdaptiveAttention(channels, num_heads, dropout, clamp_tau=clamp_tau)
        self.sampling = AdaptiveSampling(channels, num_groups, num_points, num_levels, **(sampling or {}))
        self.mixing = AdaptiveMixing(channels, num_groups, num_frames * num_points, **(mixing or {}))
        self.ffn = nn.Sequential(
            *(nn.Linear(channels, ffn_channels), nn.ReLU(inplace=True), nn.Dropout(dropout)),
            *(nn.Linear(ffn_channels, channels), nn.Dropout(dropout)),
        )
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(channels) for _ in range(3))
        self.class_branch = _class_branch(channels, num_classes)
        self.box_branch = nn.Sequential(
            *(nn.Linear(channels, channels), nn.ReLU(inplace=True)),
            *(nn.Linear(channels, channels), nn.ReLU(inplace=True)),
            nn.Linear(channels, CODE_SIZE),
        )

    def forward(
        self,
        codes: Tensor,  # [B, Q, 10]
        queries: Tensor,  # [B, Q, C]
        frames: FrameViews,
        hidden: Tensor | None = None,  # [Q, Q]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Refine queries and boxes.

        Args:
            codes: query codes of the boxes.
            queries: their features.
            frames: what the cameras saw.
            hidden: True where the row's query must not see the column's.

        Returns:
            Features ``[B, Q, C]``, class logits ``[B, Q, K]`` and query codes ``[B, Q, 10]``.
        """
        queries = queries + self.position(codes[..., :3])
        boxes = decode_queries(codes, self.point_range)
        queries = self.norm1(self.attention(queries, boxes[..., :2], hidden))
        queries = self.norm2(self.mixing(self.sampling(boxes, queries, frames), queries))
        queries = self.norm3(queries + self.ffn(queries))
        return queries, self.class_branch(queries), self._refine(codes, self.box_branch(queries), frames.lags)

    def _refine(self, codes: Tensor, regressed: Tensor, lags: Tensor) -> Tensor:
        place = (inverse_sigmoid(codes[..., :3]) + regressed[..., :3]).sigmoid()
        velocity = regressed[..., 8:]
        if self.velocity_is_displacement and lags.shape[1] > 1:
            lag = lags[:, 1].where(lags[:, 1] >= NO_LAG, 1.0)
            velocity = velocity / lag[:, None, None]
        return torch.cat([place, regressed[..., 3:8], velocity], dim=-1)


def _class_branch(channels: int, num_classes: int) -> nn.Sequential:
    last = nn.Linear(channels, num_classes)
    nn.init.constant_(last.bias, math.log(UNTRAINED_SCORE / (1 - UNTRAINED_SCORE)))
    return nn.Sequential(
        *(nn.Linear(channels, channels), nn.LayerNorm(channels), nn.ReLU(inplace=True)),
        *(nn.Linear(channels, channels), nn.LayerNorm(channels), nn.ReLU(inplace=True)),
        last,
    )
