"""An index as an info file of mmdetection3d and back, by the tool."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparse3d.datasets import FrameIndex
from sparse3d.datasets.create import create_nuscenes_index
from tests.conftest import REPOSITORY

from .conftest import ToolRunner

SYNTH = REPOSITORY / "tests" / "data" / "golden" / "nuscenes_synth"


def test_info_files_both_ways(tool: ToolRunner, tmp_path: Path) -> None:
    for folder in SYNTH.iterdir():
        (tmp_path / folder.name).symlink_to(folder)
    create_nuscenes_index(tmp_path, "v1.0-mini")
    for split in ("mini_train", "mini_val"):
        index, infos, again = f"sparse3d_{split}.arrow", f"nuscenes_infos_{split}.pkl", f"again_{split}.arrow"
        assert infos in tool("create_data", "to-mmdet3d", "--root", tmp_path, "--index", index, "--out", infos)
        assert again in tool("create_data", "from-mmdet3d", "--root", tmp_path, "--infos", infos, "--out", again)
        before, after = FrameIndex(tmp_path / index, tmp_path), FrameIndex(tmp_path / again, tmp_path)
        assert [frame.token for frame in after] == [frame.token for frame in before]
    with pytest.raises(SystemExit, match=r"create_data from-mmdet3d: .*sparse3d_mini_val\.arrow: no readable pickle"):
        tool(
            "create_data", "from-mmdet3d", "--root", tmp_path, "--infos", "sparse3d_mini_val.arrow", "--out", "x.arrow"
        )
    assert not (tmp_path / "x.arrow").exists()
