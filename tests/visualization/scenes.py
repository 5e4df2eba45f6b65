"""Small scenes whose pictures are known by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from mmengine.structures import InstanceData

from sparse3d.structures import Boxes3D

NAMES = ("car", "truck", "pedestrian")
NO_POINTS = torch.zeros(0, 4)


def box(
    x: float,
    y: float,
    z: float = 0.0,
    *,
    size: Sequence[float] = (4, 2, 1.5),
    yaw: float = 0.0,
    v: Sequence[float] = (0, 0),
) -> list[float]:
    return [x, y, z, *size, yaw, *v]


def truth(*boxes: list[float], labels: Sequence[int] | None = None) -> InstanceData:
    labels = [0] * len(boxes) if labels is None else labels
    return InstanceData(
        boxes=Boxes3D(torch.tensor(boxes).reshape(-1, 9)), labels=torch.tensor(labels, dtype=torch.int64)
    )


def predictions(
    *boxes: list[float], labels: Sequence[int] | None = None, scores: Sequence[float] | None = None
) -> InstanceData:
    instances = truth(*boxes, labels=labels)
    instances.scores = torch.tensor([0.9] * len(boxes) if scores is None else scores)
    return instances


QUARTER = math.pi / 2
