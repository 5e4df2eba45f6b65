"""Range images of Waymo's lasers, and the points in them.

For row i and column j of an image with H rows and W columns, of a laser with extrinsic E (laser -> vehicle):

    inclination  given for each row, from low to high, or evenly  min + (i + 1/2) / H (max - min);  row 0 is the highest
    azimuth      (2 (W - j - 1/2) / W - 1) pi - atan2(E[1, 0], E[0, 0])
    laser        range (cos azimuth cos inclination, sin azimuth cos inclination, sin inclination)
    vehicle      R_E p + t_E
    TOP only     the laser turns while the vehicle drives: each cell has the vehicle's pose of its own moment, with
                 rotation Rz(yaw) Ry(pitch) Rx(roll); from there to the world, and back with the pose of the frame

A cell holds a point where its range is positive. All of this is in float64: poses reach 1e5 m. Points come row by row.

Source: the range image of the Waymo Open Dataset (Sun et al., CVPR 2020, section 3.2), and its published conversion.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .poses import invert_poses
from .waymo_schema import POINT_COLUMNS

NUM_COLUMNS = len(POINT_COLUMNS)
CHANNELS, POSE_CHANNELS = 4, 6  # range, intensity, elongation, no-label zone; roll, pitch, yaw, x, y, z


@dataclass(frozen=True, eq=False)
class LaserCalibration:
    """Where a laser is, and where its beams point.

    Args:
        extrinsic: ``[4, 4]`` float64, laser -> vehicle.
        inclinations: ``[H]`` float64 radians, ascending; empty where beams are evenly spread between the bounds.
        bounds: lowest and highest inclination in radians.
    """

    extrinsic: np.ndarray
    inclinations: np.ndarray
    bounds: tuple[float, float]

    def beams(self, rows: int) -> np.ndarray:
        """Return the inclination ``[rows]`` of each row, the highest first.

        Raises:
            ValueError: if the calibration is for another number of rows.
        """
        if len(self.inclinations) not in (0, rows):
            raise ValueError(f"the calibration has {len(self.inclinations)} beams, the range image {rows} rows")
        low, high = self.bounds
        even = low + (np.arange(rows) + 0.5) / rows * (high - low)
        return (self.inclinations if len(self.inclinations) else even)[::-1]


def points_of(
    image: np.ndarray,  # [H, W, 4] float32
    calibration: LaserCalibration,
    pose: np.ndarray,  # [4, 4] float64, vehicle -> world at the frame's time
    cell_poses: np.ndarray | None,  # [H, W, 6] float32, vehicle -> world at each cell's time; TOP alone has them
) -> np.ndarray:
    """Return the points ``[P, 6]`` float32 of a range image, in the vehicle frame; see ``POINT_COLUMNS``.

    Raises:
        ValueError: if the shapes do not fit, or a cell with a point holds NaN or infinity.
    """
    _check(image, cell_poses)
    rows, columns = np.nonzero(~(image[..., 0] <= 0))  # NaN is no empty cell
    cells = image[rows, columns]
    poses = None if cell_poses is None else cell_poses[rows, columns].astype(np.float64)
    broken = ~np.isfinite(cells if poses is None else np.concatenate([cells, poses], axis=1)).all(axis=1)
    if broken.any():
        row, column = rows[broken][0], columns[broken][0]
        raise ValueError(f"{broken.sum()} cells hold NaN or infinity, the first is row {row}, column {column}")
    points = _in_vehicle(cells[:, 0].astype(np.float64), rows, columns, image.shape[:2], calibration)
    if poses is not None:
        points = _undo_motion(points, poses, pose)
    out = np.empty((len(points), NUM_COLUMNS), dtype=np.float32)
    out[:, :3], out[:, 3:5], out[:, 5] = points, cells[:, 1:3], cells[:, 3] == 1
    return out


def _check(image: np.ndarray, cell_poses: np.ndarray | None) -> None:
    if image.ndim != 3 or image.shape[2] != CHANNELS:
        raise ValueError(f"a range image is [H, W, {CHANNELS}], got {list(image.shape)}")
    if cell_poses is not None and cell_poses.shape != (*image.shape[:2], POSE_CHANNELS):
        raise ValueError(
            f"expected poses {[*image.shape[:2], POSE_CHANNELS]} of the cells, got {list(cell_poses.shape)}"
        )


def _in_vehicle(
    ranges: np.ndarray, rows: np.ndarray, columns: np.ndarray, size: tuple[int, int], calibration: LaserCalibration
) -> np.ndarray:
    """Return ``[P, 3]`` in the axes of the vehicle, at the moment of each cell."""
    height, width = size
    extrinsic = calibration.extrinsic
    inclination = calibration.beams(height)[rows]
    azimuth = (2 * (width - columns - 0.5) / width - 1) * np.pi - np.arctan2(extrinsic[1, 0], extrinsic[0, 0])
    level = ranges * np.cos(inclination)
    local = np.stack([np.cos(azimuth) * level, np.sin(azimuth) * level, np.sin(inclination) * ranges], axis=1)
    return local @ extrinsic[:3, :3].T + extrinsic[:3, 3]


def _undo_motion(points: np.ndarray, cell_poses: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Move points ``[P, 3]`` from the vehicle at the moment of each cell to the vehicle at the frame's time."""
    world = np.einsum("pij,pj->pi", rotations_of(cell_poses[:, :3]), points) + cell_poses[:, 3:]
    world2vehicle = invert_poses(pose)
    return world @ world2vehicle[:3, :3].T + world2vehicle[:3, 3]


def rotations_of(angles: np.ndarray) -> np.ndarray:
    """Return ``Rz(yaw) Ry(pitch) Rx(roll)`` ``[P, 3, 3]`` of ``(roll, pitch, yaw)`` ``[P, 3]`` in radians."""
    (sr, sp, sy), (cr, cp, cy) = np.sin(angles).T, np.cos(angles).T
    entries = [
        cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr,
        sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr,
        -sp, cp * sr, cp * cr,
    ]  # fmt: skip
    return np.stack(entries, axis=1).reshape(-1, 3, 3)
