"""Range images to points: against the formula cell by cell, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sparse3d.datasets.poses import invert_poses
from sparse3d.datasets.waymo_range_image import LaserCalibration, points_of

ROWS, COLUMNS = 6, 20


def rigid(rng: np.random.Generator, reach: float) -> np.ndarray:
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    pose = np.eye(4)
    pose[:3, :3] = rotation * np.sign(np.linalg.det(rotation))
    pose[:3, 3] = rng.uniform(-reach, reach, 3)
    return pose


def axis_turn(axis: int, angle: float) -> np.ndarray:
    cos, sin = math.cos(angle), math.sin(angle)
    turn = np.eye(3)
    first, second = [(1, 2), (2, 0), (0, 1)][axis]
    turn[first, first], turn[first, second], turn[second, first], turn[second, second] = cos, -sin, sin, cos
    return turn


@pytest.fixture
def scene() -> tuple[np.ndarray, LaserCalibration, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    image = rng.uniform(1, 70, (ROWS, COLUMNS, 4)).astype(np.float32)
    image[..., 3] = rng.choice([-1, 0, 1], (ROWS, COLUMNS))
    image[rng.random((ROWS, COLUMNS)) < 0.3] = -1
    calibration = LaserCalibration(rigid(rng, 3.0), np.sort(rng.uniform(-0.4, 0.1, ROWS)), (-0.4, 0.1))
    pose = rigid(rng, 2000.0)
    cell_poses = np.concatenate(
        [rng.uniform(-3, 3, (ROWS, COLUMNS, 3)), pose[:3, 3] + rng.normal(size=(ROWS, COLUMNS, 3))], axis=2
    ).astype(np.float32)
    return image, calibration, pose, cell_poses


@pytest.mark.parametrize("moving", [False, True])
def test_each_cell_by_the_formula(scene, moving: bool) -> None:
    image, calibration, pose, cell_poses = scene
    expected = []
    for row in range(ROWS):
        for column in range(COLUMNS):
            distance, intensity, elongation, zone = image[row, column].tolist()
            if distance <= 0:
                continue
            inclination = calibration.inclinations[ROWS - 1 - row]
            azimuth = (2 * (COLUMNS - column - 0.5) / COLUMNS - 1) * math.pi
            azimuth -= math.atan2(calibration.extrinsic[1, 0], calibration.extrinsic[0, 0])
            local = distance * np.array(
                [
                    math.cos(azimuth) * math.cos(inclination),
                    math.sin(azimuth) * math.cos(inclination),
                    math.sin(inclination),
                ]
            )
            point = calibration.extrinsic[:3, :3] @ local + calibration.extrinsic[:3, 3]
            if moving:
                roll, pitch, yaw, *place = cell_poses[row, column].tolist()
                world = axis_turn(2, yaw) @ axis_turn(1, pitch) @ axis_turn(0, roll) @ point + place
                point = (invert_poses(pose) @ np.append(world, 1))[:3]
            expected.append((*point, intensity, elongation, zone == 1))
    found = points_of(image, calibration, pose, cell_poses if moving else None)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.array(expected), rtol=1e-6, atol=1e-5)


def test_evenly_spread_beams(scene) -> None:
    image, calibration, pose, _ = scene
    even = LaserCalibration(calibration.extrinsic, np.zeros(0), (-0.5, 0.7))
    np.testing.assert_allclose(even.beams(6), [0.6, 0.4, 0.2, 0.0, -0.2, -0.4], atol=1e-12)
    assert len(points_of(image, even, pose, None)) == (image[..., 0] > 0).sum()


def test_an_empty_image_has_no_points(scene) -> None:
    _, calibration, pose, _ = scene
    assert points_of(np.full((ROWS, COLUMNS, 4), -1, np.float32), calibration, pose, None).shape == (0, 6)


def test_what_does_not_fit_is_refused(scene) -> None:
    image, calibration, pose, cell_poses = scene
    with pytest.raises(ValueError, match=r"a range image is \[H, W, 4\]"):
        points_of(image[..., :3], calibration, pose, None)
    with pytest.raises(ValueError, match=r"expected poses \[6, 20, 6\] of the cells, got \[5, 20, 6\]"):
        points_of(image, calibration, pose, cell_poses[:5])
    with pytest.raises(ValueError, match="the calibration has 6 beams, the range image 5 rows"):
        points_of(image[:5], calibration, pose, None)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_broken_cells_are_refused(scene, value: float) -> None:
    image, calibration, pose, _ = scene
    image[2, 7] = [value, 1, 1, -1]
    with pytest.raises(ValueError, match="1 cells hold NaN or infinity, the first is row 2, column 7"):
        points_of(image, calibration, pose, None)
