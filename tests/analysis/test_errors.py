"""A result file of nuScenes made of the annotations, with one mistake of each kind."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparse3d.analysis.errors import KINDS, RIGHT, Analysis, Property
from sparse3d.analysis.errors_nuscenes import analyze_nuscenes
from sparse3d.datasets import write_index
from sparse3d.datasets.nuscenes_frames import scene_frames
from sparse3d.datasets.nuscenes_schema import CATEGORY_TO_CLASS
from sparse3d.datasets.nuscenes_tables import load_tables
from sparse3d.evaluation import read_submission
from sparse3d.structures import Frame
from tests.conftest import REPOSITORY
from tests.e2e.conftest import ToolRunner, tool  # noqa: F401 (a fixture)

SYNTH = REPOSITORY / "tests" / "data" / "golden" / "nuscenes_synth"


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    return list(scene_frames(load_tables(SYNTH / "v1.0-mini", ["scene-0061"]), "scene-0061", SYNTH))


def records(frame: Frame) -> list[dict[str, Any]]:
    """The annotations as perfect detections."""
    notes = frame.annotations
    return [
        {
            "sample_token": frame.token,
            "translation": notes.global_centers[row].tolist(),
            "size": notes.boxes[row, [4, 3, 5]].tolist(),
            "rotation": notes.global_rotations[row].tolist(),
            "velocity": [0.0, 0.0],
            "detection_name": CATEGORY_TO_CLASS[notes.categories[row]],
            "detection_score": 0.9,
            "attribute_name": "",
        }
        for row in range(len(notes))
        if notes.categories[row] in CATEGORY_TO_CLASS
    ]


def write(path: Path, results: dict[str, list[dict[str, Any]]]) -> Path:
    path.write_text(json.dumps({"meta": {}, "results": results}))
    return path


def analyzed(path: Path, frames: list[Frame], results: dict[str, list[dict[str, Any]]]) -> Analysis:
    return analyze_nuscenes(read_submission(write(path, results)), frames)


def test_perfect_detections_have_no_mistakes(frames: list[Frame], tmp_path: Path) -> None:
    found = analyzed(tmp_path / "r.json", frames, {frame.token: records(frame) for frame in frames})
    assert found.found.all() and (found.kind == RIGHT).all() and not found.mistakes().any()
    assert np.nanmax(found.offset) < 1e-6
    counts = {
        name: sum(row[2] for row in found.recalls() if row[0] == name) for name in {r[0] for r in found.recalls()}
    }
    assert counts["distance (m)"] == len(found.objects) > 5


def test_objects_are_told_apart_by_what_cameras_see_of_them(frames: list[Frame], tmp_path: Path) -> None:
    found = analyzed(tmp_path / "r.json", frames, {frame.token: records(frame) for frame in frames})
    rows = [row for row in found.recalls() if row[0] == "visible in the cameras (%)"]
    assert [row[1] for row in rows] == ["0 to 40", "40 to 60", "60 to 80", "80 to 100"]
    assert sum(row[2] for row in rows) == len(found.objects)
    blind = [replace(frame, annotations=replace(frame.annotations, visibilities=None)) for frame in frames]
    found = analyzed(tmp_path / "r.json", blind, {frame.token: [] for frame in frames})
    assert not any("visible" in row[0] for row in found.recalls())


def test_bins_hold_their_lower_edge_and_no_unknown_values() -> None:
    bins = dict(Property("speed", np.array([0.0, 1.0, 2.0, np.nan]), (0, 1, np.inf)).bins())
    assert {name: mask.tolist() for name, mask in bins.items()} == {
        "0 to 1": [True, False, False, False],
        "1 and more": [False, True, True, False],
    }


def moved(record: dict[str, Any], x: float, **changes: Any) -> dict[str, Any]:
    translation = [record["translation"][0] + x, *record["translation"][1:]]
    return {**record, "translation": translation, **changes}


def test_each_kind_of_mistake(frames: list[Frame], tmp_path: Path) -> None:
    results = {frame.token: records(frame) for frame in frames}
    frame = frames[0]
    ego = frame.ego2global[:3, 3]
    car = next(
        each for each in results[frame.token]
        if each["detection_name"] == "car" and np.linalg.norm(np.subtract(each["translation"], ego)[:2]) < 40
    )  # fmt: skip
    # Wrong ones score between right ones: whatever the threshold, they count.
    results[frame.token] += [moved(car, 0.5), moved(car, 1.0, detection_name="pedestrian")]
    for each in results[frame.token][-2:]:
        each["detection_score"] = 0.95
    found = analyzed(tmp_path / "r.json", frames, results)
    kinds = {
        (found.class_names[label], KINDS[kind])
        for label, kind in zip(found.detections.label, found.kind, strict=True)
        if kind != RIGHT
    }
    assert ("car", "duplicate") in kinds and ("pedestrian", "wrong class") in kinds
    assert found.mistakes()[0] >= 2 and not found.mistakes()[1:].any()


def test_what_is_missed_is_counted_by_its_properties(frames: list[Frame], tmp_path: Path) -> None:
    results = {frame.token: [each for each in records(frame) if each["detection_name"] != "car"] for frame in frames}
    found = analyzed(tmp_path / "r.json", frames, results)
    rows = {row[0]: row for row in found.classes()}
    assert rows["car"][3] == 0 and np.isnan(rows["car"][4]) and np.isinf(rows["car"][1])
    missed = sum(count * (1 - recall) for name, _, count, recall, _ in found.recalls() if name[0] == "d" and count)
    assert missed == pytest.approx(rows["car"][2])


def test_results_of_other_frames_are_refused(frames: list[Frame], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the first is elsewhere"):
        analyzed(tmp_path / "r.json", frames, {"elsewhere": []})


def test_the_tool_prints_and_draws(frames: list[Frame], tmp_path: Path, tool: ToolRunner) -> None:  # noqa: F811
    index = tmp_path / "index.arrow"
    write_index(index, frames, {}, SYNTH)
    results = write(tmp_path / "r.json", {frame.token: records(frame)[1:] for frame in frames})
    gallery = tmp_path / "worst"
    printed = tool("analyze_errors", results, index, "--data-root", SYNTH, "--gallery", gallery, "--count", "1")
    assert "background" in printed and "speed" in printed and len(list(gallery.glob("00_*.png"))) == 1
