"""The benchmark tool runs, reports every case it timed, and its result set is one both metrics score alike."""

from __future__ import annotations

import importlib
import json
import subprocess
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch

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
    rows = json.loads(out.read_text())
    assert {row["suite"] for row in rows} == {"windows", "metric"}
    for row in rows:
        assert row["ms"] > 0 and row["threads"] == 1
        assert (row["ratio"] is None) == (row["peer"] is None)
        assert row["backend"] != row["peer"] or row["ratio"] == 1
        assert f"{row['ms']:.2f}" in done.stdout


def test_the_generated_results_score_as_in_the_development_kit(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nuscenes", reason="nuscenes-devkit is not installed")
    from sparse3d.evaluation import evaluate_detections

    monkeypatch.syspath_prepend(TOOL.parent)
    benchmark = importlib.import_module("ops_suites.metric")
    tables = benchmark.detection_tables(20)
    expected, _ = benchmark.devkit_metric(*tables)["nuscenes-devkit"]()
    result = evaluate_detections(*tables)
    assert 0.1 < expected.mean_ap < 0.9
    assert result.mean_ap == pytest.approx(expected.mean_ap, abs=1e-12)
    assert result.nd_score == pytest.approx(expected.nd_score, abs=1e-12)


def test_sparse_convolution_is_timed_on_the_voxels_of_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every function of every case runs; where spconv is installed the suite itself checks that the numbers agree."""
    monkeypatch.syspath_prepend(TOOL.parent)
    suite, timing = (importlib.import_module(f"ops_suites.{name}") for name in ("sparse_conv", "timing"))
    monkeypatch.setattr(suite, "CHANNELS", (16,))
    cells = torch.randperm(8 * 12 * 14, generator=torch.Generator().manual_seed(0))[:150]
    indices = torch.stack([cells // 168, cells // 14 % 12, cells % 14], dim=1).to(torch.int16)
    np.savez(tmp_path / "scan.npz", indices=indices.numpy(), spatial_shape=np.array([41, 12, 14]))
    cases = list(suite.sparse_conv_suite(Namespace(voxels=tmp_path / "scan.npz")))
    assert {case.name for case in cases} == {"subm3 map", "stride2 map", "subm3", "subm3, map at hand", "encoder"}
    for case in cases:
        for function in (case.ours, *case.others.values()):
            assert function() is not None
    assert {"cpu", "gemm"} <= {row.backend for row in timing.run_case("sparse_conv", cases[2])}
    np.savez(tmp_path / "other.npz", voxels=indices.numpy())
    with pytest.raises(SystemExit, match=r"no array indices, spatial_shape; found voxels"):
        suite.load_sites(Namespace(voxels=tmp_path / "other.npz"))


def test_sparse_convolution_has_voxels_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(TOOL.parent)
    sites = importlib.import_module("ops_suites.sparse_conv").load_sites(Namespace(voxels=None))
    assert sites.spatial_shape == (41, 1440, 1440)
    assert len(sites) > 50_000


def test_sampling_is_timed_and_weighed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both functions of every case give the same; memory is measured of both as well."""
    monkeypatch.syspath_prepend(TOOL.parent)
    suite = importlib.import_module("ops_suites.sampling")
    monkeypatch.setattr(suite, "QUERIES", 5)
    monkeypatch.setattr(suite, "LEVELS", suite.FEW)
    *timed, memory = suite.sampling_suite(Namespace())
    assert [case.step for case in timed] == ["forward", "forward + backward"]
    for case in timed:
        # the reference rounds places on its tall image, to parts in 1e6 of a pixel that gradients multiply by its width
        torch.testing.assert_close(case.ours(), case.others["grid_sample"](), atol=1e-3, rtol=1e-3)
    assert memory.unit == "MiB" and memory.peer == "grid_sample"
    for function in suite.few_and_all("sparse3d"):
        assert len(function()) == 2 + len(suite.FEW)
