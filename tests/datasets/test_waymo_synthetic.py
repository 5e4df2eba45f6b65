"""The synthetic world through Waymo's files: what is read back lies where it was measured."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from sparse3d.datasets.poses import invert_poses
from sparse3d.datasets.synthetic import write_synthetic_waymo
from sparse3d.datasets.synthetic.rig import pose_matrix
from sparse3d.datasets.synthetic.waymo_recording import SegmentJob, build_world
from sparse3d.datasets.synthetic.waymo_rig import FRAME_INTERVAL, LASER_PLACES
from sparse3d.datasets.synthetic.world import World
from sparse3d.datasets.waymo_frames import segment_frames
from sparse3d.datasets.waymo_v2 import ParquetSegment
from sparse3d.structures import Frame
from sparse3d.structures.skeleton import MISSING, OCCLUDED, VISIBLE
from sparse3d_ops.boxes import count_points_in_boxes
from tests.datasets.conftest import WAYMO
from tests.datasets.solids import surface_distance

FRAME = 2
SURFACE = 0.02  # metres, that a point may be off the surface it was cast on
REVOLUTION = FRAME_INTERVAL / 1e6


@pytest.fixture(scope="module")
def segment(synthetic_waymo: Path) -> ParquetSegment:
    (path,) = (synthetic_waymo / "training" / "lidar").iterdir()
    return ParquetSegment(synthetic_waymo / "training", path.stem)


@pytest.fixture(scope="module")
def frame(segment: ParquetSegment) -> Frame:
    return list(segment_frames(segment.records(labelled=True)))[FRAME]


@pytest.fixture(scope="module")
def points(segment: ParquetSegment, frame: Frame) -> np.ndarray:
    return segment.scan(frame.timestamp)


@pytest.fixture(scope="module")
def world() -> World:
    job = SegmentJob("training", 0, WAYMO["seed"], WAYMO["frames"], WAYMO["laser_scale"], WAYMO["image_scale"])
    return build_world(job.chance(0), job.frames, REVOLUTION)


def firing_times(segment: ParquetSegment, timestamp: int, stamp: float) -> np.ndarray:
    """World time at which each point was measured, from the column of its cell in the file."""
    rows = pq.read_table(segment.source).to_pylist()
    times = []
    for number in sorted(LASER_PLACES):
        (row,) = (
            row for row in rows if row["key.frame_timestamp_micros"] == timestamp and row["key.laser_name"] == number
        )
        shape = row["[LiDARComponent].range_image_return1.shape"]
        image = np.array(row["[LiDARComponent].range_image_return1.values"]).reshape(shape)
        columns = np.nonzero(image[..., 0] > 0)[1]
        times.append(stamp - (1 - (columns + 0.5) / shape[1]) * REVOLUTION)
    return np.concatenate(times)


def test_points_lie_on_the_surfaces_they_were_cast_on(
    segment: ParquetSegment, frame: Frame, points: np.ndarray, world: World
) -> None:
    stamp = FRAME * REVOLUTION
    times = firing_times(segment, frame.timestamp, stamp)
    assert len(times) == len(points) > 10_000
    pose = pose_matrix(world.ego_pose(stamp))
    places = points[:, :3].astype(np.float64) @ pose[:3, :3].T + pose[:3, 3]
    middle = stamp - REVOLUTION / 2
    snapshot = world.snapshot(middle).near(*world.ego_pose(middle)[:2], 90.0)
    nearest = np.abs(places[:, 2])  # the road
    for part in range(len(snapshot.parts.kind)):
        moved = places - (times - middle)[:, None] * snapshot.velocities[part]
        reach = np.linalg.norm(snapshot.parts.half[part]) + 0.1
        near = np.flatnonzero(np.linalg.norm(moved - snapshot.parts.center[part], axis=1) < reach)
        distance = np.abs(surface_distance(snapshot.parts, part, moved[near]))
        nearest[near] = np.minimum(nearest[near], distance)
    assert nearest.max() < SURFACE
    assert (np.abs(places[:, 2]) > SURFACE).mean() > 0.1  # not all of it is road


def test_labels_count_the_points_in_their_boxes(frame: Frame, points: np.ndarray) -> None:
    annotations = frame.annotations
    boxes = torch.from_numpy(annotations.boxes[:, :7])
    found = count_points_in_boxes(torch.from_numpy(points[:, :3].astype(np.float64)), boxes).numpy()
    assert np.abs(found - annotations.num_lidar_points).max() <= 1
    assert annotations.num_lidar_points.min() >= 1
    assert (annotations.waymo.num_top_lidar_points <= annotations.num_lidar_points).all()
    assert {"Vehicle", "Pedestrian"} <= set(annotations.categories)


def test_sweeps_show_what_stands_still_at_the_same_place(segment: ParquetSegment, frame: Frame) -> None:
    (sweep, *_) = frame.sweeps
    assert sweep.timestamp == frame.timestamp - FRAME_INTERVAL
    records = segment.records(labelled=True)
    there = invert_poses(frame.ego2global) @ records[FRAME - 1].pose
    np.testing.assert_allclose(sweep.lidar2key, there, atol=1e-12)
    centers = dict(zip(frame.annotations.instances, frame.annotations.boxes, strict=True))
    before = records[FRAME - 1].labels
    moved = before.boxes[:, :3] @ there[:3, :3].T + there[:3, 3]
    pairs = [
        np.linalg.norm(moved[row] + before.speeds[row] @ frame.ego2global[:3, :3] * 0.1 - centers[name][:3])
        for row, name in enumerate(before.ids)
        if name in centers
    ]
    assert len(pairs) > 5
    assert max(pairs) < 0.3


def test_velocities_turn_into_the_vehicle(frame: Frame) -> None:
    annotations = frame.annotations
    moving = np.linalg.norm(annotations.boxes[:, 7:], axis=1) > 1.0
    assert moving.any()
    along = np.arctan2(annotations.boxes[moving, 8], annotations.boxes[moving, 7]) - annotations.boxes[moving, 6]
    assert np.abs(np.mod(along + np.pi, 2 * np.pi) - np.pi).max() < 0.1  # everything here drives forwards
    speeds = np.linalg.norm(annotations.waymo.speeds, axis=1)
    np.testing.assert_allclose(np.linalg.norm(annotations.boxes[:, 7:], axis=1), speeds, atol=1e-9)


def test_keypoints_lie_in_the_boxes_of_people(frame: Frame) -> None:
    labels, boxes = frame.annotations.waymo, frame.annotations.boxes
    people = np.flatnonzero((labels.keypoint_visibility != MISSING).all(axis=1))
    assert len(people) > 0
    for person in people:
        assert frame.annotations.categories[person] == "Pedestrian"
        offset = labels.keypoints[person] - boxes[person, :3]
        cos, sin = np.cos(boxes[person, 6]), np.sin(boxes[person, 6])
        local = offset @ np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
        assert (np.abs(local) <= boxes[person, 3:6] / 2 + 0.05).all()
        assert local[0, 2] > local[7, 2] > local[11, 2]  # nose above hip above ankle
        assert (local[[1, 3, 5, 7, 9, 11], 1] > local[[2, 4, 6, 8, 10, 12], 1]).all()  # left is left
    others = np.setdiff1d(np.arange(len(boxes)), people)
    assert (labels.keypoint_visibility[others] == MISSING).all()
    assert {OCCLUDED, VISIBLE} <= set(labels.keypoint_visibility[people].ravel().tolist())


def test_camera_synced_boxes_are_the_objects_as_the_cameras_saw_them(frame: Frame, world: World) -> None:
    labels = frame.annotations.waymo
    seen = labels.most_visible_cameras > 0
    assert seen.any() and not seen.all()
    assert np.isfinite(labels.camera_synced_boxes[seen]).all()
    assert np.isnan(labels.camera_synced_boxes[~seen]).all()
    for row in np.flatnonzero(seen):
        camera = frame.cameras[labels.most_visible_cameras[row] - 1]
        time = FRAME * REVOLUTION + (camera.timestamp - frame.timestamp) / 1e6
        actor = int(frame.annotations.instances[row].removeprefix("object_"))
        x, y, z, _ = world.actor_poses(time)[0][actor]
        pose = pose_matrix(world.ego_pose(FRAME * REVOLUTION))
        center = pose[:3, :3].T @ (np.array([x, y, z + world.actors[actor].shape.size[2] / 2]) - pose[:3, 3])
        np.testing.assert_allclose(labels.camera_synced_boxes[row, :3], center, atol=1e-9)


def test_a_segment_depends_on_seed_and_number_alone(synthetic_waymo: Path, tmp_path: Path) -> None:
    write_synthetic_waymo(tmp_path / "again", **{**WAYMO, "val_scenes": 0}, workers=1, progress=False)
    write_synthetic_waymo(tmp_path / "other", **{**WAYMO, "val_scenes": 0, "seed": 5}, workers=1, progress=False)
    digests = [
        {path.parent.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in root.glob("training/*/*.parquet")}
        for root in (synthetic_waymo, tmp_path / "again", tmp_path / "other")
    ]
    assert len(digests[0]) == 9
    assert digests[0] == digests[1]
    assert not digests[0].items() & digests[2].items()


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (dict(scenes=0, val_scenes=0), "must not be negative, nor both 0"),
        (dict(frames=0), "frames must be at least 1"),
        (dict(laser_scale=3.0), "laser_scale and image_scale"),
        (dict(workers=0), "workers must be at least 1"),
    ],
)
def test_refused_arguments(tmp_path: Path, wrong: dict, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        write_synthetic_waymo(tmp_path / "data", **{**WAYMO, **wrong})
    assert not (tmp_path / "data").exists()
