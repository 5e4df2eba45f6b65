"""The doctor on a sound config, and on configs and data with one fault each."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
from mmengine.registry import init_default_scope

from sparse3d.config import load_config
from sparse3d.datasets import FrameIndex, write_index
from sparse3d.datasets.create import create_nuscenes_index
from sparse3d.doctor import Finding, diagnose
from sparse3d.structures import Frame
from tests.conftest import REPOSITORY

SYNTH = REPOSITORY / "tests" / "data" / "golden" / "nuscenes_synth"
SMALL = REPOSITORY / "tests" / "configs" / "small_transfusion.py"
PUBLISHED = REPOSITORY / "configs" / "dsvt" / "dsvt_pillar_nuscenes.py"


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    (path,) = create_nuscenes_index(SYNTH, "mini", splits=["mini_train"], out=tmp_path_factory.mktemp("index"))
    return path


def examine(
    index: Path, options: dict[str, Any] | None = None, root: Path = SYNTH, config: Path = SMALL
) -> list[Finding]:
    init_default_scope("sparse3d")
    data = {"data_root": str(root), "train_dataset.index": str(index), "test_dataset.index": str(index)}
    return list(diagnose(load_config(config, {**data, **(options or {})}), max_frames=2))


def problems(findings: list[Finding]) -> dict[str, str]:
    return {each.check: f"{each.text} -> {each.advice}" for each in findings if each.status == "problem"}


def skipped(findings: list[Finding]) -> set[str]:
    return {each.check for each in findings if each.status == "skipped"}


def test_a_sound_config_has_no_problem_and_is_seen_in_full(index: Path) -> None:
    findings = examine(index)
    assert problems(findings) == {} and skipped(findings) == set()
    text = "\n".join(f"{each.check}: {each.text}" for each in findings)
    assert "grid: 128 x 128 x 1 voxels of 0.8 x 0.8 x 8 m; the head's map has 64 x 64 cells" in text
    assert re.search(r"labels: \d+ boxes of a class in 2 frames, every class among them", text)
    assert re.search(r"boxes: 0% of \d+ boxes lie beyond the grid, 0% above or below", text)
    assert "calibration: 12 cameras see points, and their poses agree with each other" in text
    assert re.search(r"model: one step of one sample in .*loss_heatmap", text)
    assert re.search(r"model: 0\.04 M parameters; training with 2 samples a process keeps about 0\.\d GB", text)


@pytest.mark.parametrize(
    ("options", "check", "pattern"),
    [
        ({"data_root": "nowhere"}, "data", "nowhere.*-> put the data where data_root says"),
        ({"train_dataset.index": "none.arrow"}, "data", "train: .*none.arrow: there is no index"),
        ({"grid.point_range": [-51.2, -51.2, -5, 51.3, 51.2, 3]}, "grid", "-> make each extent .* a multiple"),
        ({"grid.point_range": [-52, -52, -5, 52, 52, 3]}, "grid", "130 x 130 .* not divisible .* 4 together"),
        ({"grid.stride": 4}, "grid", "a cell for 2 x 2 voxels, grid.stride is 4 -> set grid.stride=2"),
        ({"grid.point_range": [-51.2, -51.2, 5, 51.2, 51.2, 13]}, "boxes", "0% .* beyond the grid, 100% above"),
        ({"class_names": ["Car"]}, "labels", r"no box of the classes \['Car'\]; the annotations know .*vehicle.car"),
        ({"load_points.use": [0, 1, 2]}, "model", r"points of sample 0: expected \[P, 5\]"),
        (
            {"model.head.in_channels": 47},
            "model",
            "47, .* raised in sparse3d/models/heads/transfusion_head.py, forward",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_fault_of_the_config_is_named(index: Path, options: dict[str, Any], check: str, pattern: str) -> None:
    found = problems(examine(index, options))
    assert next(iter(found)) == check
    assert re.search(pattern, found[check])


def test_sparse_encoders_have_a_stride_too(index: Path) -> None:
    config = REPOSITORY / "configs" / "centerpoint" / "centerpoint_voxel0075_nuscenes.py"
    nowhere = {"data_root": "nowhere"}
    assert "grid" not in problems(examine(index, nowhere, config=config))
    found = problems(examine(index, {**nowhere, "grid.stride": 4}, config=config))
    assert "a cell for 8 x 8 voxels, grid.stride is 4" in found["grid"]
    odd = {"grid.point_range": [-49.5, -49.5, -5, 49.5, 49.5, 3]}
    found = problems(examine(index, {**nowhere, **odd}, config=config))
    assert "1320 x 1320 voxels is not divisible by the backbone's strides, 16 together" in found["grid"]


@pytest.mark.parametrize("name", ["matrixvt/matrixvt_r18_demo", "sparsebev/sparsebev_r18_demo"])
def test_detectors_of_images_alone_are_examined_too(index: Path, name: str) -> None:
    """On images of the synthetic fixtures; the samples, a step and a prediction included."""
    findings = examine(index, {"resize_factors": [0.9, 1.2]}, config=REPOSITORY / "configs" / f"{name}.py")
    assert not problems(findings) and not skipped(findings)
    assert {"grid", "samples", "model"} <= {each.check for each in findings}


def test_what_needs_the_data_is_skipped_without_it(index: Path) -> None:
    findings = examine(index, {"data_root": "nowhere"})
    assert list(problems(findings)) == ["data"]
    assert skipped(findings) == {"files", "labels", "boxes", "calibration", "samples", "model"}


def test_a_schedule_that_does_not_end_with_the_training(index: Path) -> None:
    options = {"train_cfg.max_epochs": 12, "data_root": "nowhere"}
    found = problems(examine(index, options, config=PUBLISHED))
    assert "ends after 12 epochs, the schedule of its learning rate after 20" in found["schedule"]


def test_the_learning_rate_belongs_to_a_batch_size(index: Path) -> None:
    notes = [each for each in examine(index, {"data_root": "nowhere"}, config=PUBLISHED) if each.status == "note"]
    (note,) = [each for each in notes if each.check == "schedule"]
    assert "meant for 32 samples a step" in note.text
    assert "x 0.125 for one process" in note.advice


def damaged(index: Path, folder: Path, damage: Callable[[Frame], Frame]) -> Path:
    """Write an index whose frames have a fault."""
    path = folder / "damaged.arrow"
    write_index(path, [damage(frame) for frame in FrameIndex(index, SYNTH)], {"dataset": "nuscenes"}, SYNTH)
    return path


def without_boxes(frame: Frame) -> Frame:
    return replace(frame, annotations=None)


def with_shifted_boxes(frame: Frame) -> Frame:
    boxes = frame.annotations.boxes + np.eye(1, 9) * 6
    return replace(frame, annotations=replace(frame.annotations, boxes=boxes))


def with_a_flat_box(frame: Frame) -> Frame:
    boxes = frame.annotations.boxes.copy()
    boxes[3, 5] = 0
    return replace(frame, annotations=replace(frame.annotations, boxes=boxes))


def with_swapped_cameras(frame: Frame) -> Frame:
    first, second, *others = frame.cameras
    first = replace(first, lidar2cam=second.lidar2cam)
    return replace(frame, cameras=(first, second, *others))


def with_a_mirrored_camera(frame: Frame) -> Frame:
    first, *others = frame.cameras
    return replace(frame, cameras=(replace(first, lidar2cam=first.lidar2cam * [[-1], [1], [1], [1]]), *others))


def with_a_small_image(frame: Frame) -> Frame:
    first, *others = frame.cameras
    return replace(frame, cameras=(replace(first, width=100), *others))


@pytest.mark.parametrize(
    ("damage", "check", "pattern"),
    [
        (without_boxes, "labels", "2 of 2 training frames are not annotated"),
        (with_shifted_boxes, "calibration", r"boxes hold at least half .* -> boxes and points are not in one frame"),
        (with_a_flat_box, "labels", r"box 3 is .* -> centre, size and yaw must be finite, and sizes positive"),
        (with_swapped_cameras, "calibration", "CAM_.*: lidar2cam and the way over cam2ego and ego2global are"),
        (with_a_mirrored_camera, "calibration", "CAM_.*: lidar2cam is no rotation"),
        (with_a_small_image, "calibration", "CAM_.*: the intrinsics .* do not fit an image of 100 x"),
    ],
)
def test_a_fault_of_the_data_is_named(
    index: Path, tmp_path: Path, damage: Callable[[Frame], Frame], check: str, pattern: str
) -> None:
    found = problems(examine(damaged(index, tmp_path, damage)))
    assert re.search(pattern, found[check])


def test_a_missing_file_is_named(index: Path, tmp_path: Path) -> None:
    root = tmp_path / "moved"
    copytree(SYNTH, root)
    lost = FrameIndex(index, root)[0].lidar.path
    Path(lost).unlink()
    findings = examine(index, root=root)
    assert f"first {lost}" in problems(findings)["files"]
    assert skipped(findings) == {"calibration", "samples", "model"}
