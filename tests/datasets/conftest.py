"""A small synthetic data set in Waymo's format, written once for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparse3d.datasets.synthetic import write_synthetic_waymo

WAYMO = dict(scenes=1, val_scenes=1, frames=3, seed=4, laser_scale=0.25, image_scale=0.05)


@pytest.fixture(scope="session")
def synthetic_waymo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder; tests read it, those that change something copy it first."""
    root = tmp_path_factory.mktemp("waymo") / "data"
    write_synthetic_waymo(root, **WAYMO, workers=1, progress=False)
    return root
