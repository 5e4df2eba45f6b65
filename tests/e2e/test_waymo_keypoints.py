"""VoxelKP with the real tools on a tiny synthetic data set in Waymo's format: write it, train, test with pictures."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparse3d.datasets.protobuf_wire import Message

from .conftest import ToolRunner

CONFIG = "configs/voxelkp/voxelkp_demo.py"

pytestmark = pytest.mark.slow


def options(data: Path) -> list[str]:
    return [
        "--cfg-options",
        f"data_root={data}",
        "train_dataloader.num_workers=0",
        "train_dataloader.persistent_workers=False",
        "test_dataloader.num_workers=0",
        "model.head.decoder.score_threshold=-1.0",  # two steps of training: nobody would be found
        "model.head.decoder.top_k=5",
    ]


def test_train_test_and_submit(tool: ToolRunner, tmp_path: Path) -> None:
    data, work, pictures, submission = (tmp_path / name for name in ("data", "work", "pictures", "poses.bin"))
    tool(
        "create_data", "synthetic-waymo", "--root", data, "--scenes", "1", "--val-scenes", "1", "--frames", "2",
        "--image-scale", "0.1", "--laser-scale", "0.5", "--points", "float32", "--workers", "1",
    )  # fmt: skip
    tool("train", CONFIG, "--work-dir", work, *options(data), "train_cfg.max_iters=2")
    assert (work / "iter_2.pth").exists()
    printed = tool(
        "test", CONFIG, work, "--show-dir", pictures, *options(data), f"test_evaluator.submission.path={submission}"
    )
    assert "Waymo keypoints (voxelkp)" in printed and "keypoints/MPJPE/ALL" in printed
    poses = Message(submission.read_bytes()).messages(7)
    assert 2 <= len(poses) <= 10 and poses[0].message(1).text(1).startswith("synthetic_")
    assert len(list(pictures.glob("people_*.png"))) == len(list(pictures.glob("bev_*.png"))) == 2
