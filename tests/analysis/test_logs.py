"""Curves of runs that went through, were resumed, or are still being written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sparse3d.analysis.logs import draw_curves, read_run, summarise
from tests.e2e.conftest import ToolRunner, tool  # noqa: F401 (a fixture)


def write(folder: Path, time: str, entries: list[dict], tail: str = "") -> None:
    path = folder / time / "vis_data" / "scalars.json"
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries) + tail)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    write(folder, "20260101_000000", [{"loss": 3.0, "lr": 0.1, "step": 10}, {"loss": 9.0, "step": 20}])
    write(
        folder,
        "20260102_000000",
        [{"loss": 2.0, "step": 20}, {"loss": 1.0, "step": 30}, {"mAP": 0.5, "step": 30}],
        '{"l',
    )
    return folder


def test_a_resumed_run_is_one_curve(run: Path) -> None:
    curves = read_run(run).curves
    np.testing.assert_array_equal(curves["loss"][0], [10, 20, 30])
    np.testing.assert_array_equal(curves["loss"][1], [3, 2, 1])
    assert curves["mAP"][1].tolist() == [0.5] and "step" not in curves
    assert summarise(read_run(run), "loss") == (1.0, 1.0, 3.0)


def test_pictures_and_what_is_not_there(run: Path, tmp_path: Path) -> None:
    draw_curves(tmp_path / "curves.png", [read_run(run)], ["loss", "lr"])
    assert (tmp_path / "curves.png").stat().st_size > 5000
    with pytest.raises(ValueError, match="no run logged time; there are loss, lr, mAP"):
        draw_curves(tmp_path / "none.png", [read_run(run)], ["time"])
    with pytest.raises(FileNotFoundError, match="work directory"):
        read_run(tmp_path / "nothing")


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    write(tmp_path / "run", "a", [], '{"loss\n{"loss": 1, "step": 1}\n')
    with pytest.raises(ValueError, match="line 1"):
        read_run(tmp_path / "run")


def test_the_tool_compares_runs(run: Path, tmp_path: Path, tool: ToolRunner) -> None:  # noqa: F811
    printed = tool("analyze_logs", run, "--keys", "loss", "lr", "--out", tmp_path / "a.svg")
    assert "loss" in printed and "30" in printed and (tmp_path / "a.svg").exists()
