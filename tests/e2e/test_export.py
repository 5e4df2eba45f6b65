"""The deployment tools, end to end: export weights, run them without the framework, time both, refuse bad weights."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import torch

from sparse3d.config import load_config
from sparse3d.deploy import Runtime
from sparse3d.deploy.scans import make_scan
from sparse3d.registry import MODELS
from tests.conftest import REPOSITORY

CONFIG = "configs/demo/pillar_demo.py"
SMALL = ["--cfg-options", "grid.point_range=[-25.6,-25.6,-5,25.6,25.6,3]"]
FOCAL = "configs/focals_conv/focals_conv_demo.py"

pytestmark = pytest.mark.slow


def run(python: str, *command: str | Path, status: int = 0) -> str:
    """Run a tool from the repository's root and return what it printed."""
    done = subprocess.run([python, *map(str, command)], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return MODELS.build(load_config(REPOSITORY / CONFIG).model).state_dict()


@pytest.fixture(scope="module")
def exported(python: str, state: dict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    torch.save({"state_dict": state}, folder / "weights.pth")
    printed = run(
        python, "tools/export.py", CONFIG, folder / "weights.pth", "--out", folder / "model", "--tensorrt", *SMALL
    )
    assert "TensorRT takes every operator" in printed
    assert "build_engine.sh" in printed or "engine:" in printed
    return folder / "model"


def test_an_exported_checkpoint_detects(exported: Path) -> None:
    runtime = Runtime(exported, threads=1)
    assert runtime.manifest.model == "pillar_demo"
    assert runtime.manifest.preparation["encoding"]["scales"][0] == 25.0
    found = runtime(make_scan("nuscenes", seed=1))
    assert len(found) > 0
    assert bool((found.scores.diff() <= 0).all())


def test_both_sides_are_timed(python: str, exported: Path, tmp_path: Path) -> None:
    out = tmp_path / "times.json"
    run(python, "tools/benchmark_deploy.py", CONFIG, exported, "--runs", "1", "--json", out, *SMALL)
    timings = json.loads(out.read_text())["timings"]
    stages = {who: [each["stage"] for each in times] for who, times in timings.items()}
    assert stages["PyTorch"][0] == "voxelize"
    assert stages["runtime (CPUExecutionProvider)"] == [
        "prepare", "model", "decode", "whole model"
    ]  # fmt: skip
    for times in timings.values():
        parts = {each["stage"]: each["median"] for each in times}
        whole = parts.pop("whole model")
        assert all(0 < part < whole for part in parts.values())


def test_a_chain_of_graphs(python: str, tmp_path: Path) -> None:
    """Focals Conv on a small grid: four graphs, four commands, growth between them timed as stages of its own."""
    grid = ["--cfg-options", "grid.point_range=[-6.4,-6.4,-3.0,6.4,6.4,3.0]"]
    printed = run(
        python, "tools/export.py", FOCAL, "--random-weights", "--out", tmp_path / "model", "--tensorrt", *grid
    )
    assert "TensorRT takes every operator" in printed
    script = tmp_path / "model" / "build_engine.sh"
    if script.exists():
        assert [line.split("=")[1].split(" ")[0] for line in script.read_text().splitlines() if "--onnx" in line] == [
            f"model_{number}.onnx" for number in range(4)
        ]
    out = tmp_path / "times.json"
    run(python, "tools/benchmark_deploy.py", FOCAL, tmp_path / "model", "--runs", "1", "--json", out, *grid)
    stages = [each["stage"] for each in json.loads(out.read_text())["timings"]["runtime (CPUExecutionProvider)"]]
    assert stages[1:4] == ["model_0", "between graphs (1)", "model_1"]
    assert stages[-2:] == ["decode", "whole model"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--random-weights", "--dialect", "autoware", "--tensorrt"], "17 nodes of Autoware's plugins"),
        (["--precision", "int8", "--calibration", "2"], "int8"),
    ],
    ids=["autoware", "int8"],
)
def test_sparse_convolutions_in_other_forms(python: str, tmp_path: Path, options: list[str], expected: str) -> None:
    """The small encoder without its focal convolutions; int8 takes it as initialised: rounding stays small."""
    changes = ["grid.point_range=[-6.4,-6.4,-3.0,6.4,6.4,3.0]", "model.point_branch.backbone.focal_stages=[]"]
    config = load_config(REPOSITORY / FOCAL, {"model.point_branch.backbone.focal_stages": []})
    torch.manual_seed(0)
    torch.save({"state_dict": MODELS.build(config.model).state_dict()}, tmp_path / "weights.pth")
    weights = [] if "--random-weights" in options else [tmp_path / "weights.pth"]
    command = ["tools/export.py", FOCAL, *weights, "--out", tmp_path / "model", *options, "--cfg-options", *changes]
    printed = run(python, *command)
    assert expected in printed
    assert len(Runtime(tmp_path / "model", threads=1)(make_scan("nuscenes", seed=1))) > 0


def test_a_model_is_timed_stage_by_stage(python: str, tmp_path: Path) -> None:
    """On a small grid; the straightforward form of the backbone has to compute the same, or the tool fails."""
    out = tmp_path / "times.json"
    grid = ["--cfg-options", "grid.point_range=[-9.6,-9.6,-5,9.6,9.6,3]", "grid.stride=2"]
    run(python, "tools/benchmark_model.py", "configs/dsvt/dsvt_pillar_centerhead_nuscenes.py", "--runs", "2",
        "--json", out, *grid)  # fmt: skip
    result = json.loads(out.read_text())
    stages = [each["stage"] for each in result["stages"]]
    blocks = [f"block 0.{number}" for number in range(4)]
    assert stages == [
        "voxelize",
        "encode points",
        "partition",
        *blocks,
        "map backbone",
        "head",
        "decode",
        "whole model",
    ]
    assert all(0 < each["median"] <= each["p90"] for each in result["stages"])
    assert result["ratio"] > 0
    assert result["peak_memory_mb"] > 50


def test_weights_that_do_not_fit(python: str, state: dict, tmp_path: Path) -> None:
    """Everything that is wrong with them is listed at once."""
    wrong = {**state, "stranger": torch.zeros(1), "head.shared.1.weight": torch.zeros(7)}
    del wrong["head.shared.0.weight"]
    torch.save({"state_dict": wrong}, tmp_path / "weights.pth")
    command = ["tools/export.py", CONFIG, tmp_path / "weights.pth", "--out", tmp_path / "model"]
    printed = run(python, *command, status=1)
    assert "export: the checkpoint does not fit Detector3D; 3 entries" in printed
    assert "missing head.shared.0.weight" in printed
    assert "unexpected stranger" in printed
    assert "head.shared.1.weight: the model has [32], the checkpoint [7]" in printed
    assert "Traceback" not in printed
    assert not (tmp_path / "model").exists()
