"""Adaptive sampling in space and time: each query looks at points around its box, in all frames.

    p        = c + R(yaw) (offset ∘ (l, w, h))                     offsets from the query, G groups of P points
    p(t)     = p - v lag(t)                                        where the box was if it moved evenly; z and yaw stay
    seen     = Σ over levels  softmax(weights)_l · feature_l(project(p(t)))

Source: SparseBEV (Liu et al., ICCV 2023), section 3.3.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sparse3d_ops import sample_views

from .frame_views import FrameViews

FARTHEST = 0.5  # untrained points lie inside the box
LEVEL_WEIGHTS = ("published", "own")
VIEWS = ("first", "all")


class AdaptiveSampling(nn.Module):
    """Choose points, look at them, and weigh the levels.

    Args:
        channels: width C.
        num_groups: groups G of channels with points of their own.
        num_points: points P of a group in a frame.
        num_levels: levels L of the features.
        level_weights: ``"published"`` gives frame t of group g the level weights of group ``(t G + g) // T``, as the
            published code does by mistake and its weights expect; ``"own"`` gives it its own. With one frame they are
            the same.
        views: ``"first"`` looks at a point in the first camera that sees it, and in camera 0 at wherever the
            projection leads if none does, as the published code does; ``"all"`` takes the mean over all cameras that
            see it, as the paper says, and nothing if none does.

    Raises:
        ValueError: if an option is unknown.
    """

    def __init__(
        self,
        channels: int,
        num_groups: int,
        num_points: int,
        num_levels: int,
        *,
        level_weights: str = "published",
        views: str = "first",
    ) -> None:
        super().__init__()
        if level_weights not in LEVEL_WEIGHTS or views not in VIEWS:
            raise ValueError(
                f"level_weights must be one of {', '.join(LEVEL_WEIGHTS)} and views of {', '.join(VIEWS)}, "
                f"got {level_weights!r} and {views!r}"
            )
        self.num_groups, self.num_points, self.num_levels = num_groups, num_points, num_levels
        self.own_level_weights, self.all_views = level_weights == "own", views == "all"
        self.offsets = nn.Linear(channels, num_groups * num_points * 3)
        self.level_weights = nn.Linear(channels, num_groups * num_points * num_levels)
        nn.init.zeros_(self.offsets.weight)
        nn.init.uniform_(self.offsets.bias, -FARTHEST, FARTHEST)

    def forward(
        self,
        boxes: Tensor,  # [B, Q, 9]
        queries: Tensor,  # [B, Q, C]
        frames: FrameViews,
    ) -> Tensor:  # [B, Q, G, T * P, C / G]
        """Return what the queries see; a group's points lie frame after frame."""
        points = self.points(boxes, queries, frames.lags)
        weights = self.weights(queries, frames.lags.shape[1])
        locations, views, shares = self.look(points, frames)
        seen = sample_views(frames.features, locations, views, weights[..., None, :] * shares[..., None])
        return seen.flatten(3, 4)

    def points(self, boxes: Tensor, queries: Tensor, lags: Tensor) -> Tensor:
        """Return points ``[B, Q, G, T, P, 3]`` of boxes ``[B, Q, 9]`` in metres, for lags ``[B, T]`` in seconds.

        No gradient flows into the velocity.
        """
        offsets = self.offsets(queries).unflatten(2, (self.num_groups * self.num_points, 3))
        around = points_around(boxes, offsets)
        moved = boxes[:, :, None, 7:9].detach() * lags[:, None, :, None]  # [B, Q, T, 2]
        moved = torch.nn.functional.pad(moved, (0, 1))[:, :, None, :, None]
        return around.unflatten(2, (self.num_groups, self.num_points))[:, :, :, None] - moved

    def weights(self, queries: Tensor, num_frames: int) -> Tensor:
        """Return level weights ``[B, Q, G, T, P, L]``; they add up to 1 over levels."""
        shape = (self.num_groups, self.num_points, self.num_levels)
        weights = self.level_weights(queries).unflatten(2, shape).softmax(dim=-1)
        return weights[:, :, self._weights_of(num_frames, queries.device)]

    def _weights_of(self, num_frames: int, device: torch.device) -> Tensor:
        """Return the group ``[G, T]`` whose level weights group g uses in frame t; see ``level_weights``."""
        group = torch.arange(self.num_groups, device=device)[:, None]
        frame = torch.arange(num_frames, device=device)
        return (
            group.expand(-1, num_frames) if self.own_level_weights else (frame * self.num_groups + group) // num_frames
        )

    def look(self, points: Tensor, frames: FrameViews) -> tuple[Tensor, Tensor, Tensor]:
        """Project points ``[B, Q, G, T, P, 3]`` and choose the V cameras that look at them.

        Returns:
            Locations ``[B, Q, G, T, P, V, 2]`` in parts of the image, cameras ``[B, Q, G, T, P, V]`` and their shares
            of the result, alike.
        """
        by_frame = points.permute(0, 3, 1, 2, 4, 5)  # [B, T, Q, G, P, 3]
        locations, visible = frames.project(by_frame.flatten(2, 4))
        locations = locations.unflatten(3, by_frame.shape[2:5]).permute(0, 3, 4, 1, 5, 2, 6)
        visible = visible.unflatten(3, by_frame.shape[2:5]).permute(0, 3, 4, 1, 5, 2)
        if self.all_views:
            shares = visible / visible.sum(dim=-1, keepdim=True).clamp(min=1)
            cameras = torch.arange(visible.shape[-1], device=points.device).expand(visible.shape)
            return locations, cameras, shares.to(points.dtype)
        first = visible.to(torch.uint8).argmax(dim=-1, keepdim=True)
        chosen = locations.gather(5, first[..., None].expand(*first.shape, 2))
        return chosen, first, torch.ones_like(chosen[..., 0])


def points_around(
    boxes: Tensor,  # [..., 9]
    offsets: Tensor,  # [..., K, 3]
) -> Tensor:  # [..., K, 3]
    """Return the points that lie at ``offsets`` from the middle of boxes, in parts of their length, width, height."""
    boxes = boxes[..., None, :]
    return _turn(offsets * boxes[..., 3:6], boxes[..., 6]) + boxes[..., :3]


def _turn(vectors: Tensor, yaws: Tensor) -> Tensor:
    """Turn ``[..., 3]`` about the z axis by angles ``[...]``."""
    x, y, z = vectors.unbind(-1)
    cos, sin = yaws.cos(), yaws.sin()
    return torch.stack([cos * x - sin * y, sin * x + cos * y, z], dim=-1)
