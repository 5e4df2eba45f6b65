"""Files of the Waymo benchmarks: read back, and compared with messages of the official code."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from sparse3d.datasets.protobuf_wire import Message
from sparse3d.evaluation import (
    FrameKey,
    KeypointTable,
    SubmissionInfo,
    WaymoDetections,
    waymo_submission,
    write_detections,
    write_poses,
)
from sparse3d.structures.skeleton import KEYPOINT_TYPES, KEYPOINTS, MISSING, NUM_KEYPOINTS, OCCLUDED, VISIBLE

OUR_ORDER = [0, 1, 2, 4, 3, 5, 6]  # a message has the width before the length


def detections(count: int, num_frames: int, seed: int = 0) -> WaymoDetections:
    rng = np.random.default_rng(seed)
    box = rng.normal(size=(count, 7))
    box[:, 3:6] = np.exp(box[:, 3:6])
    return WaymoDetections(
        sample=rng.integers(num_frames, size=count),
        box=box,
        type=rng.integers(1, 5, size=count),
        score=rng.uniform(size=count),
        overlaps_no_label_zone=rng.uniform(size=count) < 0.5,
    )


def frame_keys(count: int) -> list[FrameKey]:
    return [FrameKey(f"segment-é-{'x' * (40 * number)}", 10**15 + number) for number in range(count)]


def read_object(found: Message) -> dict[str, object]:
    label = found.message(1)
    box = label.message(1)
    return {
        "context_name": found.text(4),
        "frame_timestamp_micros": found.integer(5),
        "score": found.float(2),
        "type": label.integer(3),
        "overlap_with_nlz": bool(found.integer(3)),
        "box": np.array([box.double(number) for number in range(1, 8)])[OUR_ORDER],
    }


def assert_objects(found: list[Message], table: WaymoDetections, keys: list[FrameKey]) -> None:
    """The objects are those of the table, frame after frame."""
    order = np.argsort(table.sample, kind="stable")
    assert len(found) == len(order)
    for message, row in zip(found, order, strict=True):
        read = read_object(message)
        np.testing.assert_array_equal(read.pop("box"), table.box[row].astype(np.float64))
        key = keys[table.sample[row]]
        assert read == {
            "context_name": key.context_name,
            "frame_timestamp_micros": key.timestamp,
            "score": table.score[row],
            "type": table.type[row],
            "overlap_with_nlz": table.overlaps_no_label_zone[row],
        }


@pytest.mark.parametrize("count", [0, 1, 50])
def test_detections_read_back_are_the_same(tmp_path: Path, count: int) -> None:
    table, keys = detections(count, 4), frame_keys(4)
    write_detections(tmp_path / "found.bin", keys, table)
    assert_objects(Message((tmp_path / "found.bin").read_bytes()).messages(1), table, keys)


def test_an_official_message_and_ours_say_the_same(shared: Path, tmp_path: Path) -> None:
    folder = shared / "golden" / "waymo_v1_sample"
    expected = json.loads((folder / "objects.json").read_text(encoding="utf-8"))
    table = WaymoDetections(
        sample=np.arange(len(expected)),
        box=np.abs([each["box"] for each in expected]),  # random numbers, sizes among them
        type=np.array([each["type"] for each in expected]),
        score=np.array([each["score"] for each in expected]),
        overlaps_no_label_zone=np.array([each["overlap_with_nlz"] for each in expected]),
    )
    keys = [FrameKey(each["context_name"], each["frame_timestamp_micros"]) for each in expected]
    write_detections(tmp_path / "ours.bin", keys, table)
    paths = (folder / "objects.bin", tmp_path / "ours.bin")
    theirs, ours = ([read_object(each) for each in Message(path.read_bytes()).messages(1)] for path in paths)
    for official, own, row in zip(theirs, ours, expected, strict=True):
        np.testing.assert_allclose(official.pop("box"), row["box"], rtol=1e-12)
        np.testing.assert_allclose(own.pop("box"), np.abs(row["box"]), rtol=1e-6)
        assert official == own


def test_an_archive_has_what_the_server_wants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waymo_submission, "SHARD_SIZE", 2000)
    table, keys = detections(60, 6), frame_keys(6)
    table.box[:, 3] = 0
    info = SubmissionInfo("a@b.c", "method", ["A. Uthor", "B. Author"], past_frames=3, latency=0.1)
    path = tmp_path / "submission.tar.gz"
    write_detections(path, keys, table, info, camera_only=True)
    with tarfile.open(path) as archive:
        shards = [Message(archive.extractfile(member).read()) for member in archive.getmembers()]
    assert len(shards) > 1
    for shard in shards:
        assert [shard.integer(number) for number in (1, 9, 10, 12)] == [6, 3, 0, 1]
        assert (shard.text(2), shard.text(13), shard.double(15)) == ("method", "a@b.c", 0.1)
        assert shard.integers(14).tolist() == [1, 2, 4]
    objects = [each for shard in shards for each in shard.message(11).messages(1)]
    kept = table.take(table.score >= 0.03)
    kept.box[:, 3] = 1e-6
    assert 0 < len(kept) < len(table)
    assert_objects(objects, kept, keys)


def test_an_archive_of_nothing_has_one_empty_part(tmp_path: Path) -> None:
    path = tmp_path / "submission.tar.gz"
    write_detections(path, [], detections(0, 1))
    with tarfile.open(path) as archive:
        (member,) = archive.getmembers()
        assert not Message(archive.extractfile(member).read()).message(11).messages(1)


def test_nothing_is_left_of_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    table = detections(3, 1)
    table.box[1, 0] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite in row 1"):
        write_detections(tmp_path / "found.bin", frame_keys(1), table)
    assert not list(tmp_path.iterdir())


# -- poses -----------------------------------------------------------------------------------------------------------


def read_pose(message: Message) -> dict[str, object]:
    key, box = message.message(1), message.message(3)
    points = message.message(2).messages(1)
    return {
        "frame": (key.text(1), key.integer(2)),
        "types": [point.integer(1) for point in points],
        "places": [_vector(point.message(2).message(1)) for point in points],
        "occluded": [point.message(2).message(2).integer(1) for point in points],
        "box": [*_vector(box.message(1)), *_vector(box.message(2)), box.double(3)],
    }


def _vector(message: Message) -> list[float]:
    return [message.double(number) for number in (1, 2, 3)]


def test_an_official_pose_and_ours_are_the_same_bytes(shared: Path, tmp_path: Path) -> None:
    """The case, but for sizes and angles that float32 has exactly, so that bytes can be compared."""
    folder = shared / "golden" / "waymo_v1_sample"
    official = Message((folder / "pose_submission.bin").read_bytes())
    theirs = [read_pose(each) for each in official.messages(7)]
    place = np.zeros((len(theirs), NUM_KEYPOINTS, 3), np.float32)
    visibility = np.full((len(theirs), NUM_KEYPOINTS), OCCLUDED)
    for row, pose in enumerate(theirs):
        columns = [KEYPOINT_TYPES.index(kind) for kind in pose["types"]]
        place[row, columns], visibility[row, columns] = pose["places"], VISIBLE
    boxes = [pose["box"] for pose in theirs]
    people = KeypointTable(sample=np.arange(len(theirs)), box=boxes, location=place, visibility=visibility)
    keys = [FrameKey(*pose["frame"]) for pose in theirs]
    path = tmp_path / "poses.bin"
    write_poses(path, keys, people, SubmissionInfo(official.text(1), official.text(2)))
    ours = path.read_bytes()
    assert len(ours) == (folder / "pose_submission.bin").stat().st_size
    for own, each in zip(map(read_pose, Message(ours).messages(7)), theirs, strict=True):
        np.testing.assert_allclose(own.pop("box"), each.pop("box"), rtol=1e-7)
        assert own == each


def test_only_visible_keypoints_are_submitted(tmp_path: Path) -> None:
    visibility = np.full((1, NUM_KEYPOINTS), MISSING)
    visibility[0, :3] = OCCLUDED, VISIBLE, VISIBLE
    location = np.arange(3 * NUM_KEYPOINTS, dtype=np.float32).reshape(1, NUM_KEYPOINTS, 3)
    people = KeypointTable(sample=[0], box=[[1, 2, 3, 4, 5, 6, 0.5]], location=location, visibility=visibility)
    path = tmp_path / "poses.tar.gz"
    write_poses(path, frame_keys(1), people, SubmissionInfo(authors=["A"], description="d"))
    with tarfile.open(path) as archive:
        assert archive.getnames() == ["submission.binproto"]
        message = Message(archive.extractfile("submission.binproto").read())
    (pose,) = map(read_pose, message.messages(7))
    assert pose["types"] == [KEYPOINT_TYPES[KEYPOINTS.index(name)] for name in ("LEFT_SHOULDER", "RIGHT_SHOULDER")]
    assert pose["places"] == location[0, 1:3].tolist()
    assert pose["box"] == [1, 2, 3, 4, 5, 6, 0.5]
    assert (message.text(3), message.text(5), 4 in message) == ("A", "d", False)


def test_a_name_that_the_server_refuses_is_an_error() -> None:
    with pytest.raises(ValueError, match="at most 25 characters"):
        SubmissionInfo(method_name="x" * 26)
    with pytest.raises(ValueError, match="sensors"):
        SubmissionInfo(sensors="RADAR")
