"""Indexing Waymo: both formats, packed files, resuming, and what is wrong with files."""

from __future__ import annotations

import shutil
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sparse3d.datasets import FrameIndex, WaymoDataset, create_waymo
from sparse3d.datasets.create_objects import create_object_database
from sparse3d.datasets.create_waymo import create_waymo_index, find_segments
from sparse3d.datasets.index import read_index_metadata
from sparse3d.datasets.object_database import ObjectDatabase
from sparse3d.datasets.sensor_files import read_encoded_image, read_scan
from sparse3d.structures import Frame
from tests.datasets.conftest import WAYMO
from tests.datasets.waymo_v1_writer import ZONE, write_v1

CLASSES = ["Vehicle", "Pedestrian", "Cyclist"]
PLACE = {"path", "offset"}  # where the same data lie in another file


@pytest.fixture(scope="module")
def original(synthetic_waymo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set, indexed without packing anything."""
    root = tmp_path_factory.mktemp("original") / "data"
    shutil.copytree(synthetic_waymo, root)
    create_waymo_index(root, workers=1)
    return root


@pytest.fixture
def data(synthetic_waymo: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    root = tmp_path / "data"
    shutil.copytree(synthetic_waymo, root)
    return root


def frames_of(root: Path, split: str = "train") -> list[Frame]:
    return list(FrameIndex(root / f"sparse3d_{split}.arrow", root))


def assert_same(found: Any, expected: Any, ignored: set[str] = frozenset()) -> None:
    """Equal values, however deep, but for the fields that are ignored."""
    assert type(found) is type(expected)
    if is_dataclass(expected):
        for field in fields(expected):
            if field.name not in ignored:
                assert_same(getattr(found, field.name), getattr(expected, field.name), ignored)
    elif isinstance(expected, np.ndarray):
        np.testing.assert_array_equal(found, expected)
    elif isinstance(expected, tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other, ignored)
    else:
        assert found == expected


def damage(path: Path, column: str, value: Any, row: int = 0) -> None:
    """Replace a value in a Parquet file."""
    table = pq.read_table(path)
    values = table[column].to_pylist()
    values[row] = value
    place = table.schema.get_field_index(column)
    pq.write_table(
        table.set_column(place, table.schema.field(place), pa.array(values, table.schema.types[place])), path
    )


def of_tag(root: Path, tag: str, split: str = "training") -> Path:
    (path,) = (root / split / tag).iterdir()
    return path


# -- what is written --------------------------------------------------------------------------------------------------


def test_both_splits_are_indexed(original: Path) -> None:
    for split in ("train", "val"):
        frames = frames_of(original, split)
        assert len(frames) == WAYMO["frames"]
        assert [len(frame.sweeps) for frame in frames] == [0, 1, 2]
        assert [camera.name for camera in frames[0].cameras][:2] == ["FRONT", "FRONT_LEFT"]
        assert read_index_metadata(original / f"sparse3d_{split}.arrow")["dataset"] == "waymo"


@pytest.mark.parametrize(("form", "tolerance"), [("float32", 0.0), ("float16", 0.032)])
def test_packed_files_hold_the_same(original: Path, data: Path, form: str, tolerance: float) -> None:
    create_waymo_index(data, splits=["train"], points=form, images="packed", workers=1)
    for found, expected in zip(frames_of(data), frames_of(original), strict=True):
        assert_same(found, expected, PLACE)
        points, exact = read_scan(found.lidar), read_scan(expected.lidar)
        np.testing.assert_allclose(points[:, :3], exact[:, :3], rtol=0, atol=tolerance)
        np.testing.assert_allclose(points[:, 3:], exact[:, 3:], rtol=1e-3 if tolerance else 0, atol=tolerance * 1e-4)
        for camera, other in zip(found.cameras, expected.cameras, strict=True):
            np.testing.assert_array_equal(read_encoded_image(camera), read_encoded_image(other))
    assert not list(data.rglob("*.tmp")) and not list(data.glob("*.partial"))


def test_v1_gives_the_same_frames_as_v2(original: Path, tmp_path: Path) -> None:
    (segment,) = find_segments(original / "training")
    (tmp_path / "training").mkdir()
    write_v1(segment, tmp_path / "training" / "segment.tfrecord")
    create_waymo_index(tmp_path, workers=1)
    for found, expected in zip(frames_of(tmp_path), frames_of(original), strict=True):
        assert_same(found, expected, {*PLACE, "no_label_zones"})
        np.testing.assert_array_equal(found.no_label_zones[0], ZONE)
        np.testing.assert_array_equal(read_scan(found.lidar), read_scan(expected.lidar))
        for camera, other in zip(found.cameras, expected.cameras, strict=True):
            np.testing.assert_array_equal(read_encoded_image(camera), read_encoded_image(other))


def test_samples_have_the_columns_that_published_detectors_read(original: Path) -> None:
    load = [dict(type="LoadWaymoPoints", sweeps=2), dict(type="LoadAnnotations", class_names=CLASSES)]
    sample = WaymoDataset(original, "sparse3d_train.arrow", CLASSES, load)[2]
    frame = frames_of(original)[2]
    scans = [read_scan(scan) for scan in (frame.lidar, *frame.sweeps)]
    lags = sample.points[:, 5].numpy()
    np.testing.assert_allclose(np.unique(lags), [0, 0.1, 0.2], atol=1e-6)
    own = sample.points[lags == 0].numpy()
    np.testing.assert_array_equal(own[:, :3], scans[0][:, :3])
    np.testing.assert_allclose(own[:, 3], np.tanh(scans[0][:, 3]), rtol=1e-6)
    np.testing.assert_array_equal(own[:, 4], scans[0][:, 4])
    assert set(sample.gt.labels.tolist()) <= {0, 1, 2}


def test_points_of_no_label_zones_may_be_dropped(original: Path) -> None:
    counts = []
    for choice in ("keep", "drop"):
        load = [dict(type="LoadWaymoPoints", intensity="raw", no_label_zones=choice)]
        counts.append(len(WaymoDataset(original, "sparse3d_train.arrow", CLASSES, load)[0].points))
    inside = (read_scan(frames_of(original)[0].lidar)[:, 5] == 1).sum()
    assert inside > 0
    assert counts[0] - counts[1] == inside


def test_the_object_database_is_of_waymos_classes(original: Path) -> None:
    path = create_object_database(original, "sparse3d_train.arrow", workers=1)
    database = ObjectDatabase(path)
    assert database.columns == 5
    assert set(database.class_names) <= set(CLASSES)
    annotated = sum(category in CLASSES for frame in frames_of(original) for category in frame.annotations.categories)
    assert len(database) == annotated


# -- again, and after an interruption ---------------------------------------------------------------------------------


def test_a_second_run_changes_nothing(original: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(create_waymo, "write_segment", None)  # would fail
    create_waymo_index(original, workers=1)


def test_an_interrupted_run_takes_up_where_it_stopped(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for tag in (data / "validation").iterdir():
        shutil.copy(next(tag.iterdir()), data / "training" / tag.name)
    written, write = [], create_waymo.write_segment

    def write_one(job: create_waymo.SegmentJob) -> None:
        if written:
            raise KeyboardInterrupt
        write(job)
        written.append(job.segment.name)

    monkeypatch.setattr(create_waymo, "write_segment", write_one)
    with pytest.raises(KeyboardInterrupt):
        create_waymo_index(data, splits=["train"], workers=1)
    assert not (data / "sparse3d_train.arrow").exists()
    monkeypatch.setattr(create_waymo, "write_segment", lambda job: (written.append(job.segment.name), write(job)))
    create_waymo_index(data, splits=["train"], workers=1)
    assert written == ["synthetic_4_0000", "synthetic_4_0001"]
    assert len(frames_of(data)) == 2 * WAYMO["frames"]


def test_several_workers_write_what_one_writes(data: Path, tmp_path: Path) -> None:
    for number in range(2, 5):  # the validation segment under more names, so that there is more than a worker's share
        for tag in (data / "validation").iterdir():
            shutil.copy(next(tag.iterdir()), data / "training" / tag.name / f"segment_{number}.parquet")
    alone = tmp_path / "alone"
    shutil.copytree(data, alone)
    create_waymo_index(alone, splits=["train"], points="float16", workers=1)
    create_waymo_index(data, splits=["train"], points="float16", workers=2)
    found, expected = frames_of(data), frames_of(alone)
    assert len(found) == len(expected) == 4 * WAYMO["frames"]
    assert_same(tuple(found), tuple(expected), ignored={"path"})
    np.testing.assert_array_equal(read_scan(found[-1].lidar), read_scan(expected[-1].lidar))


# -- what is wrong ----------------------------------------------------------------------------------------------------


def test_a_split_without_labels_is_a_test_split(data: Path) -> None:
    shutil.rmtree(data / "training" / "lidar_box")
    (data / "training").rename(data / "testing")
    create_waymo_index(data, splits=["test"], workers=1)
    assert all(frame.annotations is None for frame in frames_of(data, "test"))


@pytest.mark.parametrize("tag", ["lidar", "lidar_pose", "lidar_calibration", "vehicle_pose", "lidar_box"])
def test_a_missing_component(data: Path, tag: str) -> None:
    shutil.rmtree(data / "training" / tag)
    with pytest.raises(
        FileNotFoundError, match=f"/{tag}/synthetic_4_0000.parquet: no such file; the component '{tag}'"
    ):
        create_waymo_index(data, splits=["train"], points="float16", workers=1)
    assert not (data / "sparse3d_train.arrow").exists()


@pytest.mark.parametrize("tag", ["lidar_hkp", "lidar_camera_synced_box", "camera_image"])
def test_components_that_one_can_do_without(data: Path, tag: str) -> None:
    shutil.rmtree(data / "training" / tag)
    create_waymo_index(data, splits=["train"], workers=1)
    (frame, *_) = frames_of(data)
    labels = frame.annotations.waymo
    assert (tag == "lidar_hkp") == (not labels.keypoint_visibility.any())
    assert (tag == "lidar_camera_synced_box") == (not labels.most_visible_cameras.any())
    assert (tag == "camera_image") == (not frame.cameras)


@pytest.mark.parametrize("tag", ["lidar", "lidar_box", "vehicle_pose"])
def test_a_file_that_is_cut_off(data: Path, tag: str) -> None:
    path = of_tag(data, tag)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=f"/{tag}/synthetic_4_0000.parquet: no readable Parquet file, or cut off"):
        create_waymo_index(data, splits=["train"], workers=1)


def test_damage_in_the_middle_is_found_when_points_are_read(data: Path) -> None:
    path = of_tag(data, "lidar")
    content = bytearray(path.read_bytes())
    content[len(content) // 3 : len(content) // 3 + 2000] = bytes(2000)
    path.write_bytes(content)
    with pytest.raises(ValueError, match="lidar/synthetic_4_0000"):
        create_waymo_index(data, splits=["train"], points="float32", workers=1)
    assert not list((data / "sparse3d_points").rglob("*.*"))


@pytest.mark.parametrize(
    ("tag", "column", "value", "text"),
    [
        ("lidar_box", "[LiDARBoxComponent].type", 9, "label 3 .*: unknown type 9, expected 0 to 4"),
        ("lidar_box", "[LiDARBoxComponent].type", None, r"row 3: \[LiDARBoxComponent\].type is null"),
        ("lidar_box", "[LiDARBoxComponent].box.center.x", None, "label 3 .*: its box is not finite"),
        ("camera_image", "key.camera_name", 8, "row 3: camera 8 has no calibration"),
    ],
)
def test_a_wrong_value(data: Path, tag: str, column: str, value: Any, text: str) -> None:
    damage(of_tag(data, tag), column, value, row=3)
    with pytest.raises(ValueError, match=f"{tag}/synthetic_4_0000.parquet.*{text}"):
        create_waymo_index(data, splits=["train"], workers=1)


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("key.laser_name", 1, "row 2 *: laser 1 of frame .* comes twice"),
        ("key.laser_name", 7, "row 2 *: laser 7 has no calibration"),
        ("[LiDARComponent].range_image_return1.shape", [1, 2, 4], "row 2: range_image_return1 has .* values for"),
    ],
)
def test_a_wrong_range_image(data: Path, column: str, value: Any, text: str) -> None:
    damage(of_tag(data, "lidar"), column, value, row=2)
    with pytest.raises(ValueError, match=text):
        create_waymo_index(data, splits=["train"], points="float16", workers=1)


def test_a_segment_without_labels(data: Path) -> None:
    path = of_tag(data, "lidar_box")
    pq.write_table(pq.read_table(path).slice(0, 0), path)
    with pytest.raises(ValueError, match=r"lidar_box/synthetic_4_0000\.parquet: the segment has no labels"):
        create_waymo_index(data, splits=["train"], workers=1)


def test_a_record_with_a_wrong_checksum(original: Path, tmp_path: Path) -> None:
    (segment,) = find_segments(original / "training")
    (tmp_path / "training").mkdir()
    path = tmp_path / "training" / "segment.tfrecord"
    write_v1(segment, path)
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"segment.tfrecord, record at byte \d+: the checksum of its \d+ bytes is wrong"
    ):
        create_waymo_index(tmp_path, workers=1)


def test_bad_segments_are_skipped_and_listed(data: Path) -> None:
    for tag in (data / "validation").iterdir():
        shutil.copy(next(tag.iterdir()), data / "training" / tag.name)
    bad = data / "training" / "vehicle_pose" / "synthetic_4_0000.parquet"
    good = bad.read_bytes()
    bad.write_bytes(good[:50])
    written = create_waymo_index(data, splits=["train"], skip_bad=True, workers=1)
    assert len(written.skipped) == 1
    assert "vehicle_pose/synthetic_4_0000.parquet: no readable Parquet file" in written.skipped[0]
    assert {frame.scene for frame in frames_of(data)} == {"synthetic_4_0001"}
    bad.write_bytes(good)
    assert create_waymo_index(data, splits=["train"], skip_bad=True, workers=1).skipped == ()
    assert len(frames_of(data)) == 2 * WAYMO["frames"]


def test_arguments_and_folders_that_are_not_there(data: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder"):
        create_waymo_index(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match=r"no such folder: .*testing"):
        create_waymo_index(data, splits=["test"])
    with pytest.raises(ValueError, match="the splits are train, val, test, got mini"):
        create_waymo_index(data, splits=["mini"])
    with pytest.raises(ValueError, match="points are one of original, float16, float32"):
        create_waymo_index(data, points="int8")
    (data / "training" / "one.tfrecord").touch()
    with pytest.raises(ValueError, match="keep one kind in it"):
        create_waymo_index(data)
