"""The benchmark of the data path runs, both forms give the same samples, and the results are written."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from sparse3d.datasets.create import create_nuscenes_index
from tests.conftest import REPOSITORY

SYNTH = REPOSITORY / "tests" / "data" / "golden" / "nuscenes_synth"


@pytest.mark.slow
def test_benchmark(tmp_path: Path, python: str) -> None:
    for folder in ("samples", "sweeps"):
        shutil.copytree(SYNTH / folder, tmp_path / folder)
    create_nuscenes_index(SYNTH, "mini", splits=["mini_train"], out=tmp_path)
    out = tmp_path / "results.json"
    command = [
        python, "tools/benchmark_data.py", "configs/demo/pillar_demo.py", "--workers", "0", "--samples", "4",
        "--json", str(out), "--cfg-options", f"data_root={tmp_path}", "train_dataset.index=sparse3d_mini_train.arrow",
    ]  # fmt: skip
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "where the time goes" in result.stdout
    results = json.loads(out.read_text())
    assert results["samples"] == results["frames"] == 4
    assert [row["workers"] for row in results["loader"]] == [0]
    assert results["loader"][0]["frames_per_second"] > 0
    names = [step["step"] for step in results["steps"]]
    assert names[:2] == ["index record", "LoadPoints"] and names[-1] == "voxels"
    assert sum(step["share"] for step in results["steps"]) == pytest.approx(1)
    for row in results["comparison"].values():
        assert row["speedup"] == pytest.approx(row["plain"] / row["sparse3d"])
