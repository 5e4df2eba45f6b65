"""Waymo's files through our readers: frames, labels and points against what the released code returned."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from sparse3d.datasets.protobuf_wire import Message
from sparse3d.datasets.tfrecord import read_records
from sparse3d.datasets.waymo_frames import segment_frames
from sparse3d.datasets.waymo_records import FrameRecord, LabelTable
from sparse3d.datasets.waymo_schema import CAMERA_NAMES, TOP
from sparse3d.datasets.waymo_v1 import RecordSegment, camera_calibrations, laser_calibrations
from sparse3d.datasets.waymo_v2 import ParquetSegment
from sparse3d.structures.skeleton import KEYPOINT_TYPES, MISSING, OCCLUDED

TOP_METRES = 2e-3  # the released conversion is in float32, with coordinates of some thousand metres
METRES = 1e-4
RECORDED = Path("data") / "waymo_samples" / "waymo_format" / "validation" / "val.tfrecord"


# -- v1 ---------------------------------------------------------------------------------------------------------------


def check_v1(case: Any) -> None:
    """Compare two records with lasers, one as it was recorded where it is there, and an `Objects` message."""
    segment = RecordSegment(case.folder / "frames.tfrecord")
    _check_frames(segment, case.config)
    points = np.load(case.folder / "expected_points.npz")
    for number, (record, (stamp, found)) in enumerate(
        zip(segment.records(labelled=True), segment.scans(), strict=True)
    ):
        assert stamp == record.timestamp
        _check_points(found, points, number)
        np.testing.assert_array_equal(segment.scan(record.offset), found)
    recorded = case.folder.parent.parent / RECORDED
    expected, objects = _beside(case, "val_tfrecord_expected.json"), _beside(case, "objects.json")
    if recorded.is_file() and expected is not None:
        _check_frames(RecordSegment(recorded), expected)
    if objects is not None:
        _check_objects((case.folder / "objects.bin").read_bytes(), objects)


def _beside(case: Any, name: str) -> Any:
    """Contents of another file of the case; None where it has none."""
    path = case.folder / name
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _check_frames(segment: RecordSegment, expected: list[Mapping[str, Any]]) -> None:
    records = segment.records(labelled=True)
    messages = [Message(payload) for _, payload in read_records(segment.source)]
    for record, message, frame in zip(records, messages, expected, strict=True):
        assert (record.segment, record.timestamp) == (frame["context_name"], frame["timestamp_micros"])
        np.testing.assert_array_equal(record.pose.ravel(), frame["pose"])
        _check_calibrations(message, frame)
        assert len(record.no_label_zones) == len(frame["no_label_zones"])
        for zone, polygon in zip(record.no_label_zones, frame["no_label_zones"], strict=True):
            np.testing.assert_array_equal(zone.T, [polygon["x"], polygon["y"]])
        _check_labels(record.labels, frame["laser_labels"])
    for record, frame in zip(records, segment_frames(records), strict=True):
        np.testing.assert_array_equal(frame.annotations.boxes[:, :7], record.labels.boxes)


def _check_calibrations(message: Message, frame: Mapping[str, Any]) -> None:
    cameras = camera_calibrations(message)
    assert sorted(cameras) == sorted(each["name"] for each in frame["camera_calibrations"])
    for each in frame["camera_calibrations"]:
        intrinsic, extrinsic, width, height = cameras[each["name"]]
        np.testing.assert_array_equal(intrinsic, each["intrinsic"])
        np.testing.assert_array_equal(extrinsic.ravel(), each["extrinsic"])
        assert (width, height) == (each["width"], each["height"])
    lasers = laser_calibrations(message)
    assert sorted(lasers) == sorted(each["name"] for each in frame["laser_calibrations"])
    for each in frame["laser_calibrations"]:
        found = lasers[each["name"]]
        np.testing.assert_array_equal(found.inclinations, each["beam_inclinations"])
        assert found.bounds == (each["beam_inclination_min"], each["beam_inclination_max"])
        np.testing.assert_array_equal(found.extrinsic.ravel(), each["extrinsic"])


def _check_labels(labels: LabelTable, expected: list[Mapping[str, Any]]) -> None:
    assert list(labels.ids) == [each["id"] for each in expected]
    columns = {
        "type": labels.types,
        "box": labels.boxes,
        "speed": labels.speeds[:, :2],
        "num_lidar_points_in_box": labels.num_points,
        "num_top_lidar_points_in_box": labels.num_top_points,
        "detection_difficulty_level": labels.difficulties,
        "tracking_difficulty_level": labels.tracking_difficulties,
    }
    for name, found in columns.items():
        np.testing.assert_array_equal(found, [each[name] for each in expected], err_msg=name)
    for row, each in enumerate(expected):
        name = each["most_visible_camera_name"]
        assert labels.cameras[row] == (CAMERA_NAMES.index(name) if name else 0)
        synced = each["camera_synced_box"]
        np.testing.assert_array_equal(labels.synced_boxes[row], np.full(7, np.nan) if synced is None else synced)
        assert (labels.visibility[row] != MISSING).sum() == len(each["laser_keypoints"])


def _check_objects(data: bytes, expected: list[Mapping[str, Any]]) -> None:
    for found, each in zip(Message(data).messages(1), expected, strict=True):
        label, box = found.message(1), found.message(1).message(1)
        assert (found.text(4), found.integer(5)) == (each["context_name"], each["frame_timestamp_micros"])
        assert (found.float(2), bool(found.integer(3))) == (each["score"], each["overlap_with_nlz"])
        assert (label.integer(3), label.text(4)) == (each["type"], each["id"])
        assert [box.double(number) for number in (1, 2, 3, 5, 4, 6, 7)] == each["box"]


# -- v2 ---------------------------------------------------------------------------------------------------------------


def check_v2(case: Any) -> None:
    """Compare the frames of a segment: how much there is of everything, values of single rows, and all points."""
    segment, expected = ParquetSegment(case.folder, case.config["segment"]), case.config
    records = segment.records(labelled=True)
    assert [record.timestamp for record in records] == expected["timestamps"]
    rows = expected["rows"]
    assert sum(len(record.labels) for record in records) == rows.get("lidar_box", 0)
    assert sum((record.labels.cameras > 0).sum() for record in records) == rows.get("lidar_camera_synced_box", 0)
    assert sum((record.labels.visibility != MISSING).any(axis=1).sum() for record in records) == rows.get(
        "lidar_hkp", 0
    )
    assert sum(len(record.shots) for record in records) == rows.get("camera_image", 0)
    _check_rows(segment, records)
    points = np.load(case.folder / "expected_points.npz")
    found = dict(segment.scans())
    for number, record in enumerate(records):
        _check_points(found[record.timestamp], points, number)
        np.testing.assert_array_equal(segment.scan(record.timestamp), found[record.timestamp])


def _check_rows(segment: ParquetSegment, records: list[FrameRecord]) -> None:
    """Look up each label's keypoints and each image by hand."""
    by_time = {record.timestamp: record for record in records}
    component = segment.component("lidar_hkp")
    people = pq.read_table(component.path).to_pylist() if component.exists() else []
    prefix = "[LiDARHumanKeypointsComponent].lidar_keypoints[*]"
    for person in people:
        labels = by_time[person["key.frame_timestamp_micros"]].labels
        row = labels.ids.index(person["key.laser_object_id"])
        for place, kind in enumerate(person[f"{prefix}.type"]):
            joint = KEYPOINT_TYPES.index(kind)
            where = [person[f"{prefix}.keypoint_3d.location_m.{axis}"][place] for axis in "xyz"]
            np.testing.assert_array_equal(labels.keypoints[row, joint], where)
            hidden = person[f"{prefix}.keypoint_3d.visibility.is_occluded"][place]
            assert (labels.visibility[row, joint] == OCCLUDED) == hidden
    images = dict(segment.images()) if segment.component("camera_image").exists() else {}
    for record in records:
        for shot in record.shots:
            assert images[shot.offset, shot.camera] == segment.image(shot.offset)


def _check_points(found: np.ndarray, arrays: Mapping[str, np.ndarray], number: int) -> None:
    names = sorted(name for name in arrays if name.startswith(f"frame{number}_"))
    at = 0
    for name in names:
        expected = arrays[name]
        part = found[at : at + len(expected)]
        at += len(expected)
        np.testing.assert_array_equal(part[:, 3:5], expected[:, 1:3], err_msg=name)
        tolerance = TOP_METRES if f"laser{TOP}_" in name else METRES
        np.testing.assert_allclose(part[:, :3], expected[:, 3:], rtol=0, atol=tolerance, err_msg=name)
    assert at == len(found)


KINDS = {"waymo_v1_sample": check_v1, "waymo_v2_sample": check_v2}
