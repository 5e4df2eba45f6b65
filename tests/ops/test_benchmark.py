"""The benchmark tool runs, reports every case it timed, and its result set is one both metrics score alike."""

from __future__ import annotations

import importlib
import json
import subprocess
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "benchmark_ops.py"


def test_times_reach_the_table_and_the_file(python: str, tmp_path: Path) -> None:
    out = tmp_path / "times.json"
    command = [
        python,
        str(TOOL),
        "--suite",
        "windows",
        "metric",
        "--samples",
        "4",
        "--threads",
        "1",
        "--json",
        str(out),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    written = json.loads(out.read_text())
    assert written["machine"]["threads"] == 1
    assert {timing["suite"] for timing in written["timings"]} == {"windows", "metric"}
    for timing in written["timings"]:
        assert timing["milliseconds"] > 0
        assert (timing["ratio"] is None) == (timing["function"] == "sparse3d")
        assert f"{timing['milliseconds']:.2f}" in done.stdout


def test_the_generated_results_score_as_in_the_development_kit(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nuscenes", reason="nuscenes-devkit is not installed")
    from sparse3d.evaluation import evaluate_detections

    monkeypatch.syspath_prepend(TOOL.parent)
    benchmark = importlib.import_module("benchmark_ops")
    tables = benchmark.detection_tables(20)
    expected, _ = benchmark.devkit_metric(*tables)["nuscenes-devkit"]()
    result = evaluate_detections(*tables)
    assert 0.1 < expected.mean_ap < 0.9
    assert result.mean_ap == pytest.approx(expected.mean_ap, abs=1e-12)
    assert result.nd_score == pytest.approx(expected.nd_score, abs=1e-12)
