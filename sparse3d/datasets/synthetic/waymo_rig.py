"""The recording car of Waymo's kind: one spinning laser of 64 beams on the roof, four near ones, five cameras.

Mounts, inclinations and focal lengths are those of a published Waymo car (Sun et al., CVPR 2020), rounded. Vehicle
axes: x forward, y left, z up; laser axes: x out of the housing, z up. The roof's revolution begins behind the vehicle.
The near lasers turn in step with it, and their range images are written as the vehicle stands at the frame's time.
"""

from __future__ import annotations

import numpy as np

from .rig import CAMERA_AXES, Camera, Laser, make_mount

FRAME_INTERVAL = 100_000  # microseconds between frames, and for a revolution
TOP_SHAPE, NEAR_SHAPE = (64, 2650), (200, 600)  # rows and columns of range images
TOP_BOUNDS = (-17.6, 2.4)  # degrees; beams lie closer together at the horizon
NEAR_BOUNDS = (-90.0, 30.0)  # degrees, evenly spread
TOP_RANGE, NEAR_RANGE = 75.0, 20.0  # metres
NOISE = 0.003  # metres
LEVEL = np.eye(3)

# Position in `LASERS` -> translation, yaw in degrees.
LASER_PLACES = {
    1: ((1.43, 0.0, 2.184), 148.0),
    2: ((4.07, 0.0, 0.691), 0.0),
    3: ((3.245, 1.025, 0.981), 90.0),
    4: ((3.245, -1.025, 0.981), -90.0),
    5: ((-1.154, 0.0, 0.466), 180.0),
}
FRONT_SIZE, SIDE_SIZE = (1920, 1280), (1920, 886)  # pixels
SHOT = -FRAME_INTERVAL // 2  # microseconds: the beam looks forward in the middle of the revolution


def _camera(name: str, translation: tuple[float, float, float], yaw: float, size: tuple[int, int]) -> Camera:
    """Describe a camera; it is exposed as the roof's beam passes its axis."""
    center = (size[0] / 2, size[1] / 2 if size == FRONT_SIZE else 240.0)  # the side cameras look down
    delay = SHOT - round(yaw / 360 * FRAME_INTERVAL)
    return Camera(name, make_mount(translation, yaw, 0.0, 0.0, CAMERA_AXES), 2070.0, center, delay, size)


# In the order of `CAMERA_NAMES`.
CAMERAS = (
    _camera("FRONT", (1.544, -0.023, 2.116), 0.0, FRONT_SIZE),
    _camera("FRONT_LEFT", (1.497, 0.095, 2.115), 45.0, FRONT_SIZE),
    _camera("FRONT_RIGHT", (1.495, -0.097, 2.116), -45.0, FRONT_SIZE),
    _camera("SIDE_LEFT", (1.432, 0.116, 2.115), 90.0, SIDE_SIZE),
    _camera("SIDE_RIGHT", (1.43, -0.116, 2.116), -90.0, SIDE_SIZE),
)


def make_lasers(scale: float) -> dict[int, Laser]:
    """Return the lasers by their position in `LASERS`; range images have ``scale`` times the full rows and columns."""
    return {number: _laser(number, *place, scale) for number, place in LASER_PLACES.items()}


def _laser(number: int, translation: tuple[float, float, float], yaw: float, scale: float) -> Laser:
    rows, columns = (max(round(side * scale), 1) for side in (TOP_SHAPE if number == 1 else NEAR_SHAPE))
    return Laser(
        mount=make_mount(translation, yaw, 0.0, 0.0, LEVEL),
        elevations=top_inclinations(rows) if number == 1 else near_inclinations(rows),
        columns=columns,
        first_azimuth=np.pi - np.deg2rad(yaw),  # column 0 looks back along the vehicle
        revolution=FRAME_INTERVAL / 1e6,
        max_range=TOP_RANGE if number == 1 else NEAR_RANGE,
        noise=NOISE,
        from_stamp=number != 1,
        view=np.pi if number == 1 else np.pi / 2,
    )


def top_inclinations(rows: int) -> np.ndarray:
    """Return the inclinations ``[rows]`` of the roof's beams in radians, ascending."""
    low, high = np.deg2rad(TOP_BOUNDS)
    share = (np.arange(rows) + 0.5) / rows
    return low + (high - low) * (1 - (1 - share) ** 1.6)


def near_inclinations(rows: int) -> np.ndarray:
    """Return the inclinations ``[rows]`` of a near laser in radians, ascending."""
    low, high = np.deg2rad(NEAR_BOUNDS)
    return low + (np.arange(rows) + 0.5) / rows * (high - low)
