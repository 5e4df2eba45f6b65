"""Where a camera detector looks: the points that its best queries sample in the last layer.

Source: SparseBEV (Liu et al., ICCV 2023), section 3.3; `models/layers/adaptive_sampling.py` has the formula.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..models import SparseBEVHead
from ..models.layers.frame_views import FrameViews


@dataclass(frozen=True)
class SampledPoints:
    """Points of some queries in one frame.

    Args:
        points: ``[N, K, 3]`` in metres, LiDAR frame of the present, moved to where the object was in that frame.
        pixels: ``[N, K, V, 2]`` ``(u, v)`` in the network's images; NaN in a camera that has no share in the result.
        cameras: ``[N, K, V]`` int64, the cameras that look at a point.
    """

    points: Tensor
    pixels: Tensor
    cameras: Tensor


class SamplingWatch:
    """What the last layer of a head did in its newest call."""

    def __init__(self, layer: nn.Module) -> None:
        self._sampling = layer.sampling
        self._inputs: tuple[Tensor, Tensor, FrameViews] | None = None
        self._logits: Tensor | None = None

    @torch.no_grad()
    def best(self, count: int, frame: int = 0) -> SampledPoints:
        """Return the points of the ``count`` queries with the highest scores; of the first sample of the batch.

        Args:
            count: queries; all where there are fewer.
            frame: 0 is the present one.

        Raises:
            RuntimeError: if the head was not called.
        """
        if self._inputs is None or self._logits is None:
            raise RuntimeError("SamplingWatch: the head was not called while it was watched")
        boxes, queries, frames = self._inputs
        rows = self._logits[0].amax(dim=1).topk(min(count, self._logits.shape[1])).indices
        points = self._sampling.points(boxes, queries, frames.lags)
        locations, cameras, shares = self._sampling.look(points, frames)
        pixels = locations * locations.new_tensor(frames.image_size[::-1])
        pixels = pixels.masked_fill(shares[..., None] == 0, torch.nan)
        return SampledPoints(*(each[0, rows, :, frame].flatten(1, 2) for each in (points, pixels, cameras)))

    def sampled(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """Remember what the points were chosen from."""
        self._inputs = inputs

    def refined(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """Remember the scores of the queries."""
        self._logits = output[1]


@contextmanager
def watch_sampling(head: SparseBEVHead) -> Iterator[SamplingWatch]:
    """Watch a head while it is called within the ``with`` block."""
    watch = SamplingWatch(head.layer)
    handles = [
        head.layer.sampling.register_forward_hook(watch.sampled),
        head.layer.register_forward_hook(watch.refined),
    ]
    try:
        yield watch
    finally:
        for handle in handles:
            handle.remove()
