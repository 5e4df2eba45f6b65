"""The reader of the raw tables: links, velocities, damaged files, and the official names."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse3d.datasets import json_records
from sparse3d.datasets.json_records import read_records
from sparse3d.datasets.nuscenes_frames import scene_frames
from sparse3d.datasets.nuscenes_schema import CATEGORY_TO_CLASS, CLASS_ATTRIBUTES, DETECTION_CLASSES, full_version
from sparse3d.datasets.nuscenes_splits import split_scenes
from sparse3d.datasets.nuscenes_tables import USED_TABLES, load_tables, tables_checksum, tables_size
from sparse3d.datasets.poses import (
    invert_poses,
    make_poses,
    quaternion_conjugate,
    quaternion_of,
    quaternion_product,
    rotation_matrices,
)
from tests.conftest import REPOSITORY

SYNTH = REPOSITORY / "tests" / "data" / "golden" / "nuscenes_synth"
SCENES = ("scene-0061", "scene-0103")
SPLIT_SIZES = {"mini_train": 8, "mini_val": 2, "train": 700, "val": 150, "test": 150}

quaternions = st.lists(st.floats(-1, 1), min_size=4, max_size=4).filter(lambda values: np.linalg.norm(values) > 0.1)
reproducible = settings(deadline=None, max_examples=40, derandomize=True)


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """A copy of the synthetic tables that a test may damage."""
    for name in USED_TABLES:
        (tmp_path / f"{name}.json").write_bytes((SYNTH / "v1.0-mini" / f"{name}.json").read_bytes())
    return tmp_path


def _edit(folder: Path, table: str, change: Any) -> None:
    path = folder / f"{table}.json"
    records = json.loads(path.read_text())
    change(records)
    path.write_text(json.dumps(records))


# -- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("split", "size"), SPLIT_SIZES.items())
def test_splits(split: str, size: int) -> None:
    scenes = split_scenes(split)
    assert len(set(scenes)) == len(scenes) == size
    assert list(scenes) == sorted(scenes)


def test_splits_are_disjoint() -> None:
    train, val, test = (set(split_scenes(split)) for split in ("train", "val", "test"))
    assert not (train & val or train & test or val & test)
    assert set(split_scenes("mini_train") + split_scenes("mini_val")) <= train | val


def test_splits_are_the_development_kits() -> None:
    official = pytest.importorskip("nuscenes.utils.splits")
    for split in SPLIT_SIZES:
        assert list(split_scenes(split)) == getattr(official, split)


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match="mini_train, mini_val, train, val, test, got 'trainval'"):
        split_scenes("trainval")
    with pytest.raises(ValueError, match=r"v1\.0-mini, v1\.0-trainval, v1\.0-test, got 'v2'"):
        full_version("v2")


def test_versions() -> None:
    assert full_version("mini") == full_version("v1.0-mini") == "v1.0-mini"


def test_categories_are_the_development_kits() -> None:
    official = pytest.importorskip("nuscenes.eval.detection.utils")
    for category in ("animal", "static_object.bicycle_rack", "vehicle.emergency.police", *CATEGORY_TO_CLASS):
        if category not in DETECTION_CLASSES:
            assert CATEGORY_TO_CLASS.get(category) == official.category_to_detection_name(category)
    for name in DETECTION_CLASSES:
        assert set(CLASS_ATTRIBUTES[name]) == set(official.detection_name_to_rel_attributes(name))


# -- JSON records -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 7, 64])
@pytest.mark.parametrize("indent", [None, 2])
def test_records_cross_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, indent: int | None) -> None:
    records = [{"token": 'a"}]{', "values": [1.5, [2]], "next": ""}, {"token": "ü", "nested": {"deep": [{}]}}, {}]
    path = tmp_path / "table.json"
    path.write_text(json.dumps(records, indent=indent), encoding="utf-8")
    monkeypatch.setattr(json_records, "CHUNK", chunk)
    assert list(read_records(path)) == records


@pytest.mark.parametrize("text", ["[]", " [\n]\n"])
def test_no_records(tmp_path: Path, text: str) -> None:
    path = tmp_path / "table.json"
    path.write_text(text)
    assert list(read_records(path)) == []


@pytest.mark.parametrize("text", ["", "{}", '[{"a": 1}', '[{"a": 1}, {"b": ', '[{"a": }]', "[1, 2]"])
def test_damaged_records(tmp_path: Path, text: str) -> None:
    path = tmp_path / "table.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"table\.json"):
        list(read_records(path))


# -- tables -----------------------------------------------------------------------------------------------------------


def test_only_wanted_scenes(tables: Path) -> None:
    loaded = load_tables(tables, ["scene-0103", "scene-0001"])
    assert list(loaded.scenes) == ["scene-0103"]
    assert len(loaded.key_frames) == 4
    assert len(loaded.annotations.tokens) == 96
    assert len(loaded.poses) == len(loaded.scans)


def test_key_frames_follow_the_links(tables: Path) -> None:
    loaded = load_tables(tables, SCENES)
    for scene in SCENES:
        timestamps = [frame.timestamp for frame in loaded.walk(scene)]
        assert timestamps == sorted(timestamps)
        assert len(timestamps) == 4


def test_progress_counts_every_byte(tables: Path) -> None:
    read: list[int] = []
    load_tables(tables, SCENES, read.append)
    assert sum(read) == tables_size(tables)


def test_sweeps_reach_back_over_key_frames(tables: Path) -> None:
    frames = list(scene_frames(load_tables(tables, SCENES), "scene-0061", SYNTH))
    assert [len(frame.sweeps) for frame in frames] == [0, 5, 10, 10]
    assert frames[1].sweeps[-1].path == frames[0].lidar.path
    for frame in frames:
        ages = [frame.lidar.timestamp - sweep.timestamp for sweep in frame.sweeps]
        assert ages == [100_000 * (1 + age) for age in range(len(ages))]


def test_sweep_pose_is_exact(tables: Path) -> None:
    frames = list(scene_frames(load_tables(tables, SCENES), "scene-0061", SYNTH))
    for earlier, frame in pairwise(frames):
        sweep = next(sweep for sweep in frame.sweeps if sweep.path == earlier.lidar.path)
        np.testing.assert_allclose(frame.lidar2global @ sweep.lidar2key, earlier.lidar2global, rtol=0, atol=1e-9)


def test_test_set_has_no_annotations(tables: Path) -> None:
    for name in ("instance", "sample_annotation"):
        (tables / f"{name}.json").write_text("[]")
    frames = list(scene_frames(load_tables(tables, SCENES), "scene-0061", SYNTH))
    assert all(frame.annotations is None for frame in frames)


def test_frame_without_objects(tables: Path) -> None:
    first = load_tables(tables, SCENES).scenes["scene-0061"]

    def remove(records: list[dict[str, Any]]) -> None:
        gone = {record["token"] for record in records if record["sample_token"] == first}
        records[:] = [record for record in records if record["token"] not in gone]
        for record in records:
            record["prev"] = "" if record["prev"] in gone else record["prev"]

    _edit(tables, "sample_annotation", remove)
    frames = list(scene_frames(load_tables(tables, SCENES), "scene-0061", SYNTH))
    assert [len(frame.annotations) for frame in frames] == [0, 24, 24, 24]
    assert frames[0].annotations.boxes.shape == (0, 9)


def test_checksum_follows_the_contents(tables: Path) -> None:
    before = tables_checksum(tables)
    assert tables_checksum(tables) == before
    _edit(tables, "sample", lambda records: records[0].update(timestamp=0))
    assert tables_checksum(tables) != before


def test_missing_table(tables: Path) -> None:
    (tables / "ego_pose.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no ego_pose\.json; the root must be"):
        load_tables(tables, SCENES)


@pytest.mark.parametrize(
    ("table", "field"),
    [
        ("sample_data", "ego_pose_token"),
        ("sample_data", "calibrated_sensor_token"),
        ("calibrated_sensor", "sensor_token"),
        ("sample_annotation", "instance_token"),
        ("sample_annotation", "next"),
        ("instance", "category_token"),
    ],
)
def test_broken_link(tables: Path, table: str, field: str) -> None:
    _edit(tables, table, lambda records: records[0].update({field: "nowhere"}))
    with pytest.raises(ValueError, match="links to 'nowhere'"):
        load_tables(tables, SCENES)


def test_two_attributes(tables: Path) -> None:
    _edit(tables, "sample_annotation", lambda records: records[0].update(attribute_tokens=["a", "b"]))
    with pytest.raises(ValueError, match="2 attributes, at most one"):
        load_tables(tables, SCENES)


def test_key_frame_without_lidar(tables: Path) -> None:
    _edit(tables, "sample_data", lambda records: records[0].update(is_key_frame=False))
    with pytest.raises(ValueError, match="sample_data has no LIDAR_TOP key frame"):
        list(scene_frames(load_tables(tables, SCENES), "scene-0061", SYNTH))


# -- velocities -------------------------------------------------------------------------------------------------------


def _velocities(tables: Path, seconds: list[float], x: list[float]) -> np.ndarray:
    """Velocities of one instance that is at ``x`` (metres) in the first key frames of a scene, at these times."""
    samples = [frame.token for frame in load_tables(tables, SCENES).walk("scene-0061")]

    def keep_one(records: list[dict[str, Any]]) -> None:
        chosen = [dict(records[0], token=f"a{row}", sample_token=samples[row]) for row in range(len(x))]
        for row, record in enumerate(chosen):
            record["translation"] = [x[row], 2 * x[row], 0.0]
            record["prev"] = f"a{row - 1}" if row else ""
            record["next"] = f"a{row + 1}" if row + 1 < len(x) else ""
        records[:] = chosen

    def set_times(records: list[dict[str, Any]]) -> None:
        for record in records:
            if record["token"] in samples:
                record["timestamp"] = 1_500_000_000_000_000 + round(1e6 * seconds[samples.index(record["token"])])

    _edit(tables, "sample_annotation", keep_one)
    _edit(tables, "sample", set_times)
    return load_tables(tables, SCENES).annotations.velocities


@pytest.mark.parametrize(
    ("seconds", "x", "expected"),
    [
        ([0, 0.5, 1, 1.5], [0, 1, 3, 6], [2, 3, 5, 6]),  # one-sided, central, central, one-sided
        ([0, 1.4, 2.8, 9], [0, 1.4, 2.8], [1, 1, 1]),  # a central difference may span 3 s
        ([0, 1.6, 2.8, 9], [0, 1.6, 2.8], [np.nan, 1, 1]),  # a one-sided one only 1.5 s
        ([0, 1.6, 3.2, 9], [0, 1.6, 3.2], [np.nan, np.nan, np.nan]),
        ([0, 0.5, 1, 1.5], [7], [np.nan]),  # alone
    ],
)
def test_velocities(tables: Path, seconds: list[float], x: list[float], expected: list[float]) -> None:
    velocities = _velocities(tables, seconds, x)
    np.testing.assert_allclose(velocities, np.outer(expected, [1, 2]), rtol=1e-6)


def test_velocities_are_the_development_kits() -> None:
    devkit = pytest.importorskip("nuscenes.nuscenes").NuScenes("v1.0-mini", str(SYNTH), verbose=False)
    columns = load_tables(SYNTH / "v1.0-mini", SCENES).annotations
    expected = np.array([devkit.box_velocity(token)[:2] for token in columns.tokens])
    np.testing.assert_array_equal(columns.velocities, expected)


# -- poses ------------------------------------------------------------------------------------------------------------


@reproducible
@given(quaternions, st.lists(st.floats(-1000, 1000), min_size=3, max_size=3))
def test_inverse_of_a_pose(quaternion: list[float], translation: list[float]) -> None:
    pose = make_poses(translation, quaternion)
    np.testing.assert_allclose(pose @ invert_poses(pose), np.eye(4), atol=1e-9)


@reproducible
@given(quaternions, quaternions)
def test_quaternions_are_rotations(first: list[float], second: list[float]) -> None:
    a, b = rotation_matrices(first), rotation_matrices(second)
    np.testing.assert_allclose(rotation_matrices(quaternion_product(first, second)), a @ b, atol=1e-12)
    np.testing.assert_allclose(rotation_matrices(quaternion_conjugate(first)), a.T, atol=1e-12)
    np.testing.assert_allclose(rotation_matrices(quaternion_of(a)), a, atol=1e-12)


def test_quaternion_of_half_turns() -> None:
    for axis in np.eye(3):
        turn = 2 * np.outer(axis, axis) - np.eye(3)
        np.testing.assert_allclose(np.abs(quaternion_of(turn)), [0, *axis], atol=1e-15)
