from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.config import Config

from sparse3d.config import load_config

BASE = """
grid = dict(point_range=[0, 0, 0, 8, 8, 8], voxel_size=[1, 1, 8])
class_names = ["car", "bus"]
model = dict(point=dict(grid="$grid"), head=dict(grid="$grid", tasks=["$class_names"]))
"""


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_references_stand_for_top_level_entries(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, "base.py", BASE))
    assert config.model.point.grid == config.grid
    assert config.model.head.tasks == [["car", "bus"]]


def test_a_child_that_changes_the_grid_changes_every_use(tmp_path: Path) -> None:
    write(tmp_path, "base.py", BASE)
    child = write(tmp_path, "child.py", "_base_ = './base.py'\ngrid = dict(voxel_size=[2, 2, 8])\n")
    config = load_config(child)
    assert config.model.point.grid.voxel_size == [2, 2, 8]
    assert config.model.head.grid.point_range == [0, 0, 0, 8, 8, 8]


def test_overrides_change_every_use(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, "base.py", BASE), {"grid.voxel_size": [4, 4, 8]})
    assert config.model.head.grid.voxel_size == [4, 4, 8]


def test_a_dumped_config_is_whole(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, "base.py", BASE))
    config.dump(str(tmp_path / "dump.py"))
    assert Config.fromfile(str(tmp_path / "dump.py"))._cfg_dict == config._cfg_dict
    assert "$" not in (tmp_path / "dump.py").read_text()


def test_an_unknown_name_is_an_error_with_a_hint(tmp_path: Path) -> None:
    path = write(tmp_path, "base.py", "grid = dict(a=1)\nmodel = dict(grid='$girt', other=dict(grid='$gird'))\n")
    with pytest.raises(KeyError, match=r"model\.grid.*did you mean grid"):
        load_config(path)


def test_a_circle_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path, "base.py", "a = ['$b']\nb = ['$a']\n")
    with pytest.raises(KeyError, match="refers to itself"):
        load_config(path)
