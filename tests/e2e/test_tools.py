"""The real tools, end to end, on a tiny synthetic data set: write it, train, resume, test with pictures, overfit."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from pathlib import Path

import pytest

from sparse3d.engine import CheckpointError, NonFiniteError
from tests.conftest import REPOSITORY
from tools.common import plain_errors

CONFIG = "configs/demo/pillar_demo.py"
TABLES = ("attribute", "calibrated_sensor", "category", "ego_pose", "instance", "log", "map")

pytestmark = pytest.mark.slow


def run(python: str, *command: str | Path, status: int = 0) -> str:
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
    assert result.returncode == status, printed[-4000:]
    return printed


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, python: str) -> Path:
    root = tmp_path_factory.mktemp("data") / "synthetic"
    run(
        python, "tools/create_data.py", "synthetic", "--root", root, "--scenes", "1", "--val-scenes", "1",
        "--frames", "3", "--sweeps", "1", "--image-scale", "0.1",
    )  # fmt: skip
    return root


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, python: str, data: Path) -> Path:
    folder = tmp_path_factory.mktemp("work")
    run(
        python, "tools/train.py", CONFIG, "--work-dir", folder, "--cfg-options", *options(data), "train_cfg.max_iters=3"
    )
    return folder


def options(data: Path) -> list[str]:
    return [
        f"data_root={data}",
        "train_dataloader.num_workers=0",
        "train_dataloader.persistent_workers=False",
        "test_dataloader.num_workers=0",
    ]


def test_the_synthetic_set_is_complete_and_indexed(data: Path) -> None:
    for name in TABLES:
        assert json.loads((data / "v1.0-trainval" / f"{name}.json").read_text())
    assert (data / "sparse3d_train.arrow").exists() and (data / "sparse3d_val.arrow").exists()


def test_a_full_folder_is_not_overwritten(data: Path, python: str) -> None:
    printed = run(python, "tools/create_data.py", "synthetic", "--root", data, "--scenes", "1", status=1)
    assert str(data) in printed


def test_training_leaves_a_checkpoint_and_goes_on_from_it(trained: Path, python: str, data: Path) -> None:
    assert (trained / "iter_3.pth").exists()
    run(
        python, "tools/train.py", CONFIG, "--work-dir", trained, "--resume",
        "--cfg-options", *options(data), "train_cfg.max_iters=4",
    )  # fmt: skip
    assert (trained / "iter_4.pth").exists()


def test_testing_prints_the_table_and_draws(trained: Path, python: str, data: Path, tmp_path: Path) -> None:
    printed = run(
        python, "tools/test.py", CONFIG, trained, "--work-dir", tmp_path, "--show-dir", tmp_path / "show",
        "--cfg-options", *options(data), "model.head.decoder.score_threshold=0.0",
    )  # fmt: skip
    assert "NDS" in printed and "traffic_cone" in printed
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert 0 <= metrics["nuscenes/mAP"] <= 1
    shown = tmp_path / "show"
    assert len(list(shown.glob("bev_*.png"))) == 3
    assert len(list(shown.glob("cameras_*.png"))) == 3
    assert (shown / "scene.html").stat().st_size > 100_000


def test_an_unknown_checkpoint_is_one_clear_line(python: str, tmp_path: Path) -> None:
    printed = run(python, "tools/test.py", CONFIG, tmp_path / "none.pth", status=1)
    assert "no checkpoint at" in printed and "Traceback" not in printed


def test_errors_that_say_all_are_one_line() -> None:
    for error in (CheckpointError("a.pth is damaged"), NonFiniteError("loss"), OSError(errno.ENOSPC, "no space")):
        with pytest.raises(SystemExit, match=r"^train: "), plain_errors("train"):
            raise error
    with pytest.raises(FileNotFoundError), plain_errors("train"):
        raise FileNotFoundError(errno.ENOENT, "nothing there")


def test_overfit_tells_by_its_exit_status(python: str, data: Path, tmp_path: Path) -> None:
    small = ["grid.point_range=[-25.6,-25.6,-5.0,25.6,25.6,3.0]", *options(data)]
    common = ["tools/overfit.py", CONFIG, "--work-dir", tmp_path, "--every", "5", "--cfg-options", *small]
    failed = run(python, *common[:2], "--iterations", "5", *common[2:], status=1)
    assert "NOT reached" in failed
    reached = run(python, *common[:2], "--iterations", "5", "--target", "0.0", *common[2:])
    assert "reached" in reached
    assert list(tmp_path.glob("overfit_*.png")) and (tmp_path / "overfit.pth").exists()


@pytest.mark.parametrize("tool", ["train", "test", "create_data", "overfit", "benchmark_ops"])
def test_help_suffices(tool: str, python: str) -> None:
    assert "usage" in run(python, f"tools/{tool}.py", "--help")
