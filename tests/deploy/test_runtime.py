"""The runtime: training's boxes from a directory, without mmengine, and one clear error for whatever is wrong."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from sparse3d.deploy import Runtime
from sparse3d.deploy.parity import TOLERANCES, compare_boxes
from sparse3d.models import Detector3D
from sparse3d.structures import Detections
from tests.models.build import CLASS_NAMES, random_sample

from .conftest import MAX_POINTS, MAX_VOXELS


@torch.no_grad()
def predict(detector: Detector3D, points: torch.Tensor) -> Detections:
    sample = random_sample()
    sample.points = points
    found = detector.test_step([sample])[0].pred
    return Detections(found.boxes, found.scores, found.labels)


@pytest.mark.parametrize("num_points", [1500, 300, 17, 1, 0])
def test_boxes_are_those_of_training(exported: Path, detector: Detector3D, num_points: int) -> None:
    """Any number of voxels in the stated range; the graph was traced with another one."""
    points = random_sample(num_points, seed=7).points
    found, expected = Runtime(exported, threads=1)(points), predict(detector, points)
    parity = compare_boxes(expected, found, TOLERANCES["fp32"])
    assert parity.complete
    assert len(expected) == 120 or num_points < 2
    assert torch.equal(found.labels.sort().values, expected.labels.sort().values)


def test_points_outside_of_the_grid_do_not_matter(exported: Path) -> None:
    runtime, points = Runtime(exported, threads=1), random_sample(300).points
    far = points.clone()
    far[:, 0] += 1000
    both, alone = runtime(torch.cat([points, far])), runtime(points)
    assert torch.equal(both.boxes.tensor, alone.boxes.tensor)


def test_numpy_points_are_welcome(exported: Path) -> None:
    runtime, points = Runtime(exported, threads=1), random_sample(300).points
    assert torch.equal(runtime(points.numpy()).scores, runtime(points).scores)
    assert runtime.class_names == CLASS_NAMES


def test_the_golden_scan_gives_the_golden_boxes(exported: Path) -> None:
    with np.load(exported / "golden.npz") as golden:
        found = Runtime(exported, threads=1)(golden["points"])
        np.testing.assert_allclose(found.boxes.numpy(), golden["boxes"], atol=1e-4)
        np.testing.assert_array_equal(found.labels.numpy(), golden["labels"])
        assert len(golden["boxes"]) == 120


def test_needs_no_mmengine(exported: Path, python: str, tmp_path: Path) -> None:
    """Neither imported nor importable; the same for the other packages that only training needs."""
    np.save(tmp_path / "points.npy", random_sample(300).points.numpy())
    code = (
        "import sys; sys.modules.update({name: None for name in ('mmengine', 'cv2', 'pyarrow', 'matplotlib', 'rich')});"
        "import numpy as np; from sparse3d.deploy import Runtime;"
        f"found = Runtime({str(exported)!r}, threads=1)(np.load({str(tmp_path / 'points.npy')!r}));"
        "print(len(found), found.boxes.tensor.shape[1], 'sparse3d.models' in sys.modules)"
    )
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["120", "9", "False"], done.stderr


# -- what can be wrong with a directory --------------------------------------------------------------------------------


def test_no_directory_at_all(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no deploy.json, so this is no exported model"):
        Runtime(tmp_path)


@pytest.mark.parametrize("name", ["model.onnx", "golden.npz", "parity.json"])
def test_a_missing_file(copied: Path, name: str) -> None:
    (copied / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{name} missing; the directory is incomplete"):
        Runtime(copied)


@pytest.mark.parametrize("kept", [0, 1000])
def test_a_file_that_was_cut_off(copied: Path, kept: int) -> None:
    graph = copied / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"model.onnx: wrong checksum, the file was changed or cut off"):
        Runtime(copied)


def test_one_changed_byte(copied: Path) -> None:
    graph = copied / "model.onnx"
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(bytes(content))
    with pytest.raises(ValueError, match="wrong checksum"):
        Runtime(copied)


def test_a_manifest_that_was_cut_off(copied: Path) -> None:
    manifest = copied / "deploy.json"
    manifest.write_text(manifest.read_text()[:700])
    with pytest.raises(ValueError, match=r"deploy.json: not readable as JSON .*; the directory is damaged"):
        Runtime(copied)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"version": 99}, "expected format sparse3d-deploy version 3"), ({"grid": None}, "entries .'grid'. are missing")],
)
def test_a_manifest_of_another_kind(copied: Path, change: dict, message: str) -> None:
    path = copied / "deploy.json"
    content = {**json.loads(path.read_text()), **change}
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))
    with pytest.raises(ValueError, match=message):
        Runtime(copied)


def test_a_provider_that_is_not_there(exported: Path) -> None:
    with pytest.raises(ValueError, match=r"onnxruntime has no FancyProvider; it has .*CPUExecutionProvider"):
        Runtime(exported, providers=["FancyProvider"])


# -- what can be wrong with points -------------------------------------------------------------------------------------


def test_too_many_voxels(exported: Path) -> None:
    points = random_sample(8 * MAX_VOXELS).points
    with pytest.raises(ValueError, match=rf"has \d+ voxels in the grid, .* at most {MAX_VOXELS}; .* --max-voxels \d+"):
        Runtime(exported, threads=1)(points)


def test_too_many_points(exported: Path) -> None:
    points = random_sample(1).points.mul(0).repeat(MAX_POINTS + 1, 1)
    with pytest.raises(ValueError, match=rf"has {MAX_POINTS + 1} points in the grid, .* --max-points"):
        Runtime(exported, threads=1)(points)


@pytest.mark.parametrize(
    "points",
    [torch.zeros(5, 4), torch.zeros(5, 5, dtype=torch.float64), torch.zeros(5)],
    ids=["narrow", "double", "1d"],
)
def test_points_of_another_shape(exported: Path, points: torch.Tensor) -> None:
    with pytest.raises(
        ValueError, match=r"points: expected \[P, 5\] float32, the columns that the model was trained on"
    ):
        Runtime(exported, threads=1)(points)


def test_points_that_are_not_finite(exported: Path) -> None:
    points = random_sample(10).points
    points[3, 4] = torch.nan
    with pytest.raises(ValueError, match="1 of 10 rows hold NaN or infinity"):
        Runtime(exported, threads=1)(points)
