"""Made-up scans have the size and spread of real ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sparse3d.config import load_config
from sparse3d.deploy.scans import SENSORS, config_scan, make_scan
from sparse3d_ops import voxelize
from tests.conftest import REPOSITORY

NUSCENES, WAYMO = (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0), (-74.88, -74.88, -2.0, 74.88, 74.88, 4.0)


@pytest.mark.parametrize(
    ("sensor", "grid", "size", "points", "voxels"),
    [
        ("nuscenes", NUSCENES, (0.3, 0.3, 8.0), (230_000, 300_000), (9_000, 25_000)),
        ("waymo", WAYMO, (0.32, 0.32, 6.0), (120_000, 180_000), (6_000, 20_000)),
    ],
)
def test_a_scan_is_as_large_as_a_real_one(sensor: str, grid: tuple, size: tuple, points: tuple, voxels: tuple) -> None:
    scan = make_scan(sensor)
    assert points[0] < len(scan) < points[1]
    assert bool(torch.isfinite(scan).all())
    found = voxelize(scan, torch.zeros(len(scan), dtype=torch.int64), grid, size, 1)
    assert voxels[0] < len(found.coords) < voxels[1]
    lags = scan[:, 4].unique()
    assert len(lags) == SENSORS[sensor].sweeps
    assert torch.equal(scan, make_scan(sensor))
    assert make_scan(sensor, num_features=4).shape[1] == 4


def test_a_folder_without_frames(tmp_path: Path) -> None:
    config = load_config(REPOSITORY / "configs" / "demo" / "pillar_demo.py")
    with pytest.raises(FileNotFoundError, match="holds neither an index"):
        config_scan(config, tmp_path)


def test_the_first_frame_of_a_folder(shared: Path) -> None:
    config = load_config(REPOSITORY / "configs" / "demo" / "pillar_demo.py")
    scan = config_scan(config, shared / "data" / "nuscenes_frame")
    assert scan.shape[1] == 5
    assert 50_000 < len(scan) < 110_000  # the frame and two copies of it in place of its sweeps
