"""Street: the cross section of a road, and the way from its own axes to the world's.

`s` runs along the street, `n` to its left; traffic keeps to the right, so direction +1 uses negative `n`. From the
middle outwards: lanes, a cycle lane, a strip for parking, the kerb, the pavement, and what is built behind it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

KERB_HEIGHT = 0.15  # metres
PAVEMENT_WIDTH = 4.0
CYCLE_WIDTH = 1.8
STRIP_WIDTH = 2.7
CROSSWALK = (0.8, 4.0)  # from the junction's edge outwards, metres
STOP_LINE = 5.0


@dataclass(frozen=True)
class Street:
    """A straight street.

    Args:
        x, y, yaw: the pose of ``s = n = 0`` in the world, metres and radians.
        start, end: the range of ``s``.
        lanes: lanes in each direction.
        lane_width: metres.
        junction: ``s`` of the middle of the junction and half its length along this street; None without one.
    """

    x: float
    y: float
    yaw: float
    start: float
    end: float
    lanes: int
    lane_width: float
    junction: tuple[float, float] | None = None

    @property
    def half_width(self) -> float:
        """Metres from the middle to the kerb."""
        return self.lanes * self.lane_width + CYCLE_WIDTH + STRIP_WIDTH

    def lane(self, direction: int, index: int) -> float:
        """Return ``n`` of the middle of a lane; index 0 is next to the middle of the street."""
        return -direction * self.lane_width * (index + 0.5)

    def cycle_lane(self, direction: int) -> float:
        """Return ``n`` of the middle of the cycle lane."""
        return -direction * (self.lanes * self.lane_width + CYCLE_WIDTH / 2)

    def strip(self, direction: int) -> float:
        """Return ``n`` of the middle of the parking strip."""
        return -direction * (self.half_width - STRIP_WIDTH / 2)

    def pose(self, s: np.ndarray | float, n: np.ndarray | float, heading: np.ndarray | float = 0.0) -> np.ndarray:
        """Return world poses ``[..., 3]`` ``(x, y, yaw)``; ``heading`` is relative to the street."""
        s, n, heading = np.broadcast_arrays(s, n, heading)
        cos, sin = np.cos(self.yaw), np.sin(self.yaw)
        return np.stack([self.x + s * cos - n * sin, self.y + s * sin + n * cos, self.yaw + heading], axis=-1)

    def coordinates(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return ``(s, n)`` of world positions."""
        cos, sin = np.cos(self.yaw), np.sin(self.yaw)
        return (x - self.x) * cos + (y - self.y) * sin, (y - self.y) * cos - (x - self.x) * sin

    def blocks(self, setback: float) -> list[tuple[float, float]]:
        """Return the ranges of ``s`` that stay ``setback`` metres away from the junction."""
        if self.junction is None:
            return [(self.start, self.end)]
        middle, half = self.junction
        return [(self.start, middle - half - setback), (middle + half + setback, self.end)]

    def stop_line(self, direction: int) -> float | None:
        """Return the distance travelled at the stop line by what drives in ``direction``; None without a junction."""
        if self.junction is None:
            return None
        middle, half = self.junction
        distance = middle - self.start if direction > 0 else self.end - middle
        return distance - half - STOP_LINE

    def travelled(self, distance: np.ndarray, direction: int) -> np.ndarray:
        """Return ``s`` after ``distance`` metres from the end where ``direction`` enters the street."""
        return self.start + distance if direction > 0 else self.end - distance


def ground_height(streets: tuple[Street, ...], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the height of the ground in metres: 0 on a road, the kerb's height elsewhere."""
    on_road = np.zeros(np.shape(x), dtype=bool)
    for street in streets:
        on_road |= np.abs(street.coordinates(x, y)[1]) <= street.half_width
    return np.where(on_road, 0.0, KERB_HEIGHT)


def street_table(streets: tuple[Street, ...]) -> np.ndarray:
    """Return what kernels need to know of streets, ``[S, 9]`` float64.

    Columns: x, y, cos yaw, sin yaw, half width, width of the lanes of one direction, width of a lane, ``s`` of the
    junction (minus infinity without one), half its length.
    """
    rows = []
    for street in streets:
        middle, half = street.junction if street.junction is not None else (-np.inf, 0.0)
        lanes = street.lanes * street.lane_width
        axes = (np.cos(street.yaw), np.sin(street.yaw))
        rows.append((street.x, street.y, *axes, street.half_width, lanes, street.lane_width, middle, half))
    return np.array(rows)
