"""The real tools on camera detectors: train, test with pictures, look at the data."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

CONFIG = "configs/sparsebev/sparsebev_r18_demo.py"
SMALL = [
    "past=[0.5]", "num_frames=2",
    "image_size=[64,160]", "resize_factors=[0.9,1.2]", "num_queries=16", "model.head.num_layers=2",
    "model.image_branch.backbone.base_channels=8", "model.image_branch.neck.in_channels=[8,16,32,64]",
    "train_dataloader.num_workers=0", "train_dataloader.persistent_workers=False", "test_dataloader.num_workers=0",
]  # fmt: skip

FROM_ABOVE = "configs/matrixvt/matrixvt_r18_demo.py"
SMALL_FROM_ABOVE = [
    "image_size=[64,160]", "resize_factors=[0.9,1.2]", "grid.point_range=[-25.6,-25.6,-5,25.6,25.6,3]",
    "train_dataloader.num_workers=0", "train_dataloader.persistent_workers=False", "test_dataloader.num_workers=0",
]  # fmt: skip

pytestmark = pytest.mark.slow


def run(python: str, *command: str | Path) -> str:
    """Run a tool from the repository's root and return what it printed."""
    result = subprocess.run(
        [python, *map(str, command)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "COLUMNS": "200"},
    )
    printed = result.stdout + result.stderr
    assert result.returncode == 0, printed[-4000:]
    return printed


@pytest.fixture(scope="module")
def root(python: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small synthetic world."""
    root = tmp_path_factory.mktemp("world") / "data"
    run(
        python, "tools/create_data.py", "synthetic", "--root", root, "--scenes", "1", "--val-scenes", "1",
        "--frames", "3", "--sweeps", "1", "--image-scale", "0.1",
    )  # fmt: skip
    return root


def test_from_the_synthetic_world_to_pictures(python: str, root: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    options = ["--cfg-options", f"data_root={root}", *SMALL]
    run(python, "tools/train.py", CONFIG, "--work-dir", work, *options, "train_cfg.max_iters=2")
    assert (work / "iter_2.pth").exists()
    show = tmp_path / "show"
    printed = run(
        python, "tools/test.py", CONFIG, work, "--work-dir", work, "--show-dir", show, *options,
        "model.head.decoder.score_threshold=0.0",
    )  # fmt: skip
    assert "mAP" in printed and len(list(show.glob("cameras_*.png"))) == 3
    points = tmp_path / "points.png"
    run(python, "tools/draw_sampling_points.py", CONFIG, work, "--out", points, "--frame", "1", *options)
    assert points.stat().st_size > 10_000


def test_a_detector_from_above_trains_with_depth_and_tests_without_points(
    python: str, root: Path, tmp_path: Path
) -> None:
    work, show = tmp_path / "work", tmp_path / "show"
    options = ["--cfg-options", f"data_root={root}", *SMALL_FROM_ABOVE]
    printed = run(
        python, "tools/train.py", FROM_ABOVE, "--work-dir", work, *options, "train_cfg.max_iters=2",
        "default_hooks.logger.interval=1",
    )  # fmt: skip
    assert "loss_depth" in printed and (work / "iter_2.pth").exists()
    printed = run(
        python, "tools/test.py", FROM_ABOVE, work, "--work-dir", work, "--show-dir", show, *options,
        "model.head.decoder.score_threshold=0.0",
    )  # fmt: skip
    assert "mAP" in printed and len(list(show.glob("cameras_*.png"))) == 3
