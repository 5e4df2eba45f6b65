"""No-label zones: polygons on the ground where nobody annotated, so that a detection there is no false alarm.

A box is in a zone if, seen from above, the two share a point: a corner of the box lies in the polygon, a corner of the
polygon lies in the box, or their outlines cross. A point is in a polygon if a ray from it along +x crosses the outline
an odd number of times.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..structures import Boxes3D

OUTLINE = (0, 1, 5, 4)  # corners seen from above, in the order of structures.boxes.CORNER_SIGNS


def boxes_in_zones(boxes: Boxes3D, zones: Sequence[np.ndarray]) -> np.ndarray:
    """Return the mask ``[N]`` of boxes that overlap a zone.

    Args:
        boxes: N boxes in the frame of the zones.
        zones: polygons ``[K, 2]``, x and y of their corners in order; K may differ.
    """
    outlines = boxes.corners()[:, OUTLINE, :2].double().numpy()  # [N, 4, 2]
    overlaps = np.zeros(len(boxes), bool)
    for zone in zones:  # a handful
        overlaps |= _overlaps(outlines, np.asarray(zone, np.float64))
    return overlaps


def _overlaps(
    outlines: np.ndarray,  # [N, 4, 2]
    zone: np.ndarray,  # [K, 2]
) -> np.ndarray:  # [N]
    in_zone = _inside(outlines, zone).any(axis=1)
    holds = _inside(np.broadcast_to(zone, (len(outlines), *zone.shape)), outlines[:, None]).any(axis=1)
    return in_zone | holds | _crosses(outlines, zone)


def _inside(
    points: np.ndarray,  # [N, P, 2]
    polygon: np.ndarray,  # [..., K, 2]
) -> np.ndarray:  # [N, P]
    """Return which points lie in a polygon, or in their own one."""
    start, end = polygon, np.roll(polygon, -1, axis=-2)
    x, y = points[..., None, 0], points[..., None, 1]
    spans = (start[..., 1] > y) != (end[..., 1] > y)
    rise = np.where(start[..., 1] == end[..., 1], 1.0, end[..., 1] - start[..., 1])
    crossing = start[..., 0] + (y - start[..., 1]) / rise * (end[..., 0] - start[..., 0])
    return (spans & (x < crossing)).sum(axis=-1) % 2 == 1


def _crosses(
    outlines: np.ndarray,  # [N, 4, 2]
    zone: np.ndarray,  # [K, 2]
) -> np.ndarray:  # [N]
    """Return which outlines cross that of the zone: the ends of each edge lie on both sides of the other."""
    a, b = outlines[:, :, None], np.roll(outlines, -1, axis=1)[:, :, None]
    c, d = zone, np.roll(zone, -1, axis=0)
    return ((_side(a, b, c) * _side(a, b, d) < 0) & (_side(c, d, a) * _side(c, d, b) < 0)).any(axis=(1, 2))


def _side(start: np.ndarray, end: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Return a number that is positive for a point to the left of an edge, negative to its right."""
    along, to = end - start, point - start
    return along[..., 0] * to[..., 1] - along[..., 1] * to[..., 0]
