"""Detectors of points and of images on a tiny synthetic data set in Waymo's format: write it, train, test, submit."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sparse3d.datasets.protobuf_wire import Message

from .conftest import ToolRunner

POINTS = "configs/demo/waymo_tiny.py"
IMAGES = "configs/sparsebev/sparsebev_r50_waymo.py"
ALONE = [
    "train_dataloader.num_workers=0", "train_dataloader.persistent_workers=False", "test_dataloader.num_workers=0",
]  # fmt: skip
SMALL = [
    "past=[0.1]", "num_frames=2", "num_queries=16", "pretrained=None",
    "image_size=[64,96]", "resize_factors=[1.0,1.2]", "test_factors=[1.0,1.0]", "model.head.num_layers=1",
    "model.image_branch.backbone.depth=18", "model.image_branch.backbone.base_channels=8",
    "model.image_branch.neck.in_channels=[8,16,32,64]", "train_dataset.interval=1", "max_epochs=1",
    "model.head.decoder.score_threshold=0.0",
]  # fmt: skip

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("waymo") / "data"


@pytest.fixture
def written(tool: ToolRunner, data: Path) -> Path:
    if not data.exists():
        tool(
            "create_data", "synthetic-waymo", "--root", data, "--scenes", "1", "--val-scenes", "1", "--frames", "2",
            "--image-scale", "0.05", "--laser-scale", "0.5", "--points", "float16", "--workers", "1",
        )  # fmt: skip
    return data


def test_a_damaged_segment_is_named_or_skipped(tool: ToolRunner, written: Path, tmp_path: Path) -> None:
    root = tmp_path / "damaged"
    for split in ("training", "validation"):
        shutil.copytree(written / split, root / "training", dirs_exist_ok=True)
    path = root / "training" / "lidar_pose" / "synthetic_0_0000.parquet"
    path.write_bytes(path.read_bytes()[:-1000])
    command = ("create_data", "waymo", "--root", root, "--points", "float32", "--workers", "1")
    with pytest.raises(SystemExit, match=r"create_data waymo: .*lidar_pose/synthetic_0_0000\.parquet: no readable"):
        tool(*command)
    assert not list(root.glob("*.arrow"))
    printed = tool(*command, "--skip-bad")
    assert "skipped 1 segments:" in printed and "lidar_pose/synthetic_0_0000.parquet: no readable" in printed
    assert [file.stem for file in root.glob("sparse3d_points/train/*")] == ["synthetic_0_0001"]


def test_points(tool: ToolRunner, written: Path, tmp_path: Path) -> None:
    options = ["--cfg-options", f"data_root={written}", *ALONE, "model.head.decoder.score_threshold=-1.0"]
    submission = tmp_path / "objects.bin"
    tool("train", POINTS, "--work-dir", tmp_path, *options, "train_cfg.max_iters=2")
    printed = tool("test", POINTS, tmp_path, *options, f"test_evaluator.submission.path={submission}")
    assert "Waymo detection (lidar)" in printed
    assert "waymo/mAPH/L2" in printed
    assert "OBJECT_TYPE_TYPE_CYCLIST_LEVEL_2" in printed and "TYPE_SIGN" not in printed
    first, *_ = Message(submission.read_bytes()).messages(1)
    assert first.text(4) == "synthetic_0_0001"


def test_images(tool: ToolRunner, written: Path, tmp_path: Path) -> None:
    options = ["--cfg-options", f"data_root={written}", *ALONE, *SMALL]
    tool("train", IMAGES, "--work-dir", tmp_path, *options)
    printed = tool("test", IMAGES, tmp_path, *options)
    assert "Waymo detection (camera)" in printed
    assert "waymo/mAPL/L2" in printed and "CAMERA_TYPE_VEHICLE_FRONT" in printed
