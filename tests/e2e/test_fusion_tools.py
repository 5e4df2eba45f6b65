"""The real tools on a detector of points and images: train, test with pictures, begin from a LiDAR detector."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.e2e.conftest import ToolRunner

CONFIG = "configs/sparsefusion/sparsefusion_r50_demo.py"
SMALL = [
    "image_scale=[0.6,0.6]", "image_size=[64,96]", "num_queries=16", "grid.point_range=[-25.6,-25.6,-5,25.6,25.6,3]",
    "model.image_branch.backbone.base_channels=4", "model.image_branch.neck.in_channels=[16,32,64,128]",
    "train_dataloader.num_workers=0", "train_dataloader.persistent_workers=False", "test_dataloader.num_workers=0",
]  # fmt: skip

pytestmark = pytest.mark.slow


def test_from_the_synthetic_world_to_pictures(tool: ToolRunner, tmp_path: Path) -> None:
    root, work, show = tmp_path / "data", tmp_path / "work", tmp_path / "show"
    tool(
        "create_data", "synthetic", "--root", root, "--scenes", "1", "--val-scenes", "1", "--frames", "2",
        "--sweeps", "1", "--image-scale", "0.1",
    )  # fmt: skip
    options = ["--cfg-options", f"data_root={root}", *SMALL]

    with pytest.raises(SystemExit) as ended:
        tool("doctor", CONFIG, *options)
    assert ended.value.code == 0

    lidar, start = tmp_path / "lidar.pth", tmp_path / "start.safetensors"
    torch.save({"state_dict": {"pts_bbox_head.class_encoding.bias": torch.rand(64)}}, lidar)
    printed = tool("initialise_fusion", CONFIG, "--lidar", lidar, "--out", start, *options)
    assert "1 tensors loaded" in printed and start.exists()

    tool("train", CONFIG, "--work-dir", work, *options, f"load_from={start}", "train_cfg.max_iters=2")
    assert (work / "iter_2.pth").exists()
    printed = tool("test", CONFIG, work, "--work-dir", work, "--show-dir", show, *options)
    assert "mAP" in printed and len(list(show.glob("*.png"))) >= 2
    picture = tmp_path / "candidates.png"
    tool("draw_candidates", CONFIG, work, "--out", picture, "--threshold", "0", *options)
    assert picture.stat().st_size > 10_000
