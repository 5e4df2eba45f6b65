"""doctor, browse_dataset, print_config: the real tools on a small data set."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest

from sparse3d.datasets.create import create_nuscenes_index
from tests.conftest import REPOSITORY

CONFIG = "tests/configs/small_transfusion.py"
SYNTH = REPOSITORY / "tests" / "data" / "golden" / "nuscenes_synth"

pytestmark = pytest.mark.slow


Run = Callable[..., str]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a tool as its file does when it is called, but in this process: ten imports of torch take a minute."""
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.syspath_prepend(str(REPOSITORY / "tools"))

    def call(tool: str, *arguments: str | Path, status: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", [f"tools/{tool}.py", *map(str, arguments)])
        code: int | str | None = 0
        try:
            runpy.run_path(f"tools/{tool}.py", run_name="__main__")
        except SystemExit as end:
            code = end.code
        printed = capsys.readouterr()
        text = printed.out + (code if isinstance(code, str) else "")  # a message means status 1
        assert (1 if isinstance(code, str) else code or 0) == status, text[-4000:]
        return text

    return call


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides that point a config at the small data set."""
    (index,) = create_nuscenes_index(SYNTH, "mini", splits=["mini_train"], out=tmp_path_factory.mktemp("index"))
    return [f"data_root={SYNTH}", f"train_dataset.index={index}", f"test_dataset.index={index}"]


def test_the_doctor_finds_nothing_wrong_with_a_sound_config(python: str, data: list[str]) -> None:
    command = [python, "tools/doctor.py", CONFIG, "--cfg-options", *data]
    printed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=True).stdout
    assert printed.endswith("no problem found\n")
    for check in ("environment", "grid", "schedule", "data", "files", "labels", "boxes", "calibration", "samples"):
        assert re.search(rf"^ok +{check} ", printed, re.MULTILINE), check


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("data_root=nowhere", r"problem data .*nowhere"),
        ("grid.voxel_size=[0.7,0.7,8.0]", r"problem grid "),
        ("grid.point_range=[-51.2,-51.2,6.0,51.2,51.2,14.0]", r"problem boxes .*100% above or below"),
    ],
)
def test_the_doctor_names_what_is_broken(run: Run, data: list[str], override: str, problem: str) -> None:
    printed = run("doctor", CONFIG, "--cfg-options", *data, override, status=1)
    assert re.search(problem, printed)
    assert "->" in printed and "Traceback" not in printed


def test_browse_draws_what_the_pipeline_makes(run: Run, data: list[str], tmp_path: Path) -> None:
    config = tmp_path / "with_images.py"
    config.write_text(
        f"_base_ = ['{REPOSITORY / CONFIG}']\n"
        "train_pipeline = ['$load_points', dict(type='LoadImages'), "
        "dict(type='LoadAnnotations', class_names='$class_names'), dict(type='RandomFlip', x=1.0)]\n"
    )
    command = ("browse_dataset", config, "--work-dir", tmp_path)
    printed = run(*command, "--samples", "2", "--start", "1", "--cfg-options", *data)
    folder = tmp_path / "browse_train"
    assert f"pictures of 2 samples are in {folder}" in printed
    pictures = sorted(path.name[:10] for path in folder.iterdir())
    assert pictures == ["bev_000001", "bev_000002", "cameras_00", "cameras_00"]
    assert all(cv2.imread(str(path)).std() > 5 for path in folder.iterdir())
    printed = run(*command, "--start", "99", "--cfg-options", *data, status=1)
    assert "no sample 99, the train set has 4" in printed
    printed = run(*command, "--cfg-options", "data_root=nowhere", status=1)
    assert "browse_dataset: " in printed and "nowhere" in printed


def test_the_config_is_printed_resolved(run: Run, tmp_path: Path) -> None:
    printed = run("print_config", CONFIG, "--cfg-options", "grid.stride=4")
    assert "$" not in printed
    assert printed.count("stride=4") >= 3  # wherever the grid is used
    again = tmp_path / "again.py"
    again.write_text(printed)
    assert run("print_config", again) == printed
    assert run("print_config", CONFIG, "--entry", "model.head.every_cell.1") == "'traffic_cone'\n"
    assert "num_queries = 40" in run("print_config", CONFIG, "--entry", "model.head")
    assert "there is no 'hat'" in run("print_config", CONFIG, "--entry", "model.hat", status=1)


@pytest.mark.parametrize("tool", ["doctor", "browse_dataset", "print_config"])
def test_help_suffices(tool: str, run: Run) -> None:
    assert "usage" in run(tool, "--help")
