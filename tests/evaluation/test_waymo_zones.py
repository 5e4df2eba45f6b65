"""Boxes in no-label zones, against shapes filled by OpenCV."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from sparse3d.evaluation.waymo_zones import boxes_in_zones
from sparse3d.structures import Boxes3D

KERNEL = np.ones((3, 3), np.uint8)
SQUARE = np.array([[0.0, 0], [10, 0], [10, 10], [0, 10]])
HORSESHOE = np.array([[0.0, 0], [10, 0], [10, 10], [7, 10], [7, 3], [3, 3], [3, 10], [0, 10]])


def box(x: float, y: float, length: float = 1, width: float = 1, yaw: float = 0) -> list[float]:
    return [x, y, 0, length, width, 1, yaw]


@pytest.mark.parametrize(
    ("where", "zone", "overlaps"),
    [
        (box(5, 5), SQUARE, True),  # within
        (box(5, 5, 30, 30), SQUARE, True),  # around
        (box(5, 5, 30, 1), SQUARE, True),  # across: no corner of either lies in the other
        (box(10.4, 5), SQUARE, True),
        (box(10.6, 5), SQUARE, False),
        (box(10.6, 5, yaw=np.pi / 4), SQUARE, True),
        (box(5, 7), HORSESHOE, False),
        (box(5, 7, 5), HORSESHOE, True),
    ],
)
def test_boxes_in_a_zone(where: list[float], zone: np.ndarray, overlaps: bool) -> None:
    for corners in (zone, zone[::-1]):
        assert boxes_in_zones(Boxes3D([where]), [corners]).tolist() == [overlaps]


def test_a_box_may_be_in_any_zone() -> None:
    boxes = Boxes3D([box(5, 5), box(105, 5), box(50, 50)])
    assert boxes_in_zones(boxes, [SQUARE, SQUARE + [100, 0]]).tolist() == [True, True, False]
    assert boxes_in_zones(boxes, []).tolist() == [False] * 3
    assert boxes_in_zones(boxes[:0], [SQUARE]).shape == (0,)


def test_random_boxes_and_zones_agree_with_filled_shapes() -> None:
    rng = np.random.default_rng(0)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
    zone = (rng.uniform(5, 20, 9) * [np.cos(angles), np.sin(angles)]).T
    data = rng.uniform([-25, -25, 0, 0.5, 0.5, 1, -4], [25, 25, 1, 8, 8, 2, 4], (200, 7))
    boxes = Boxes3D(torch.from_numpy(data))
    found = boxes_in_zones(boxes, [zone])
    assert 20 < found.sum() < 180
    outlines = boxes.corners()[:, (0, 1, 5, 4), :2].numpy()
    sure = 0
    for inside, outline in zip(found, outlines, strict=True):
        filled = _fill(outline)
        if (filled & cv2.erode(_fill(zone), KERNEL)).any():
            assert inside
        elif not (filled & cv2.dilate(_fill(zone), KERNEL)).any():
            assert not inside
        else:
            continue  # they touch within the width of a pixel
        sure += 1
    assert sure > 190


def _fill(polygon: np.ndarray) -> np.ndarray:
    picture = np.zeros((1400, 1400), np.uint8)
    return cv2.fillPoly(picture, [np.round((polygon + 35) * 20).astype(np.int32)], 1)
