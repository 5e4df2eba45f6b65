"""Moving each object by itself, with its points: a turn about its own axis, and a scale about its own centre.

p' = c + s R (p - c)      for the points and keypoints of an object with centre c;  size' = s size,  yaw' = yaw + angle

A point belongs to the first box that contains it. Objects may come to overlap.

Source: SECOND (Yan et al., Sensors 2018, section 3.4.1), as VoxelKP (Shi and Wonka, ICCV 2025) is trained. The code
released with VoxelKP stops after the first object where there are keypoints, and scales these about the sensor.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sparse3d_ops import points_in_boxes

from ...registry import TRANSFORMS
from ...structures import Boxes3D, Sample
from .geometry import interval


@TRANSFORMS.register_module()
class RandomObjectMoves:
    """Turn and scale every object of ``gt`` by random numbers of its own.

    Args:
        angles: radians ``(low, high)``, drawn evenly for each object.
        factors: ``(low, high)``, likewise.

    Raises:
        ValueError: if an interval is empty, or a factor is not positive.
    """

    def __init__(
        self, angles: Sequence[float] = (-np.pi / 20, np.pi / 20), factors: Sequence[float] = (0.95, 1.05)
    ) -> None:
        self.angles = interval("RandomObjectMoves", "angles", angles)
        self.factors = interval("RandomObjectMoves", "factors", factors)
        if self.factors[0] <= 0:
            raise ValueError(f"RandomObjectMoves: factors must be positive, got {self.factors}")

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return the sample with moved objects."""
        count = len(sample.gt.boxes)
        angles, factors = (
            torch.from_numpy(rng.uniform(*bounds, count)).float() for bounds in (self.angles, self.factors)
        )
        gt = sample.gt.clone()
        gt.boxes = _move_boxes(gt.boxes, angles, factors)
        if "keypoints" in gt:
            owner = torch.arange(count)[:, None].expand(gt.keypoints.shape[:2])
            gt.keypoints = _move(gt.keypoints, owner, sample.gt.boxes, angles, factors)
        return sample.replace(points=_move_points(sample.points, sample.gt.boxes, angles, factors), gt=gt)


def _move_points(points: Tensor, boxes: Boxes3D, angles: Tensor, factors: Tensor) -> Tensor:
    owner = points_in_boxes(points[:, :3].contiguous(), boxes.tensor[:, :7].contiguous())
    (rows,) = (owner >= 0).nonzero(as_tuple=True)
    moved = points.clone()
    moved[rows, :3] = _move(points[rows, :3], owner[rows], boxes, angles, factors)
    return moved


def _move_boxes(boxes: Boxes3D, angles: Tensor, factors: Tensor) -> Boxes3D:
    tensor = boxes.tensor.clone()
    tensor[:, 3:6] *= factors[:, None]
    tensor[:, 6] += angles
    if boxes.has_velocity:
        tensor[:, 7:9] = _turn(boxes.velocities, angles)
    return Boxes3D(tensor)


def _move(
    places: Tensor,  # [..., 3]
    owner: Tensor,  # [...]
    boxes: Boxes3D,
    angles: Tensor,  # [N]
    factors: Tensor,  # [N]
) -> Tensor:  # [..., 3]
    """Move places with the objects that own them."""
    centers = boxes.centers[owner]
    local = places - centers
    turned = torch.cat([_turn(local[..., :2], angles[owner]), local[..., 2:]], dim=-1)
    return centers + turned * factors[owner][..., None]


def _turn(vectors: Tensor, angles: Tensor) -> Tensor:
    """Turn vectors ``[..., 2]`` by angles ``[...]``."""
    x, y = vectors.unbind(-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.stack([cos * x - sin * y, sin * x + cos * y], dim=-1)
