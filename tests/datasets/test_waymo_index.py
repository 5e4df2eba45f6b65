"""Waymo's labels in the index and in samples: they come back as written, and move with the world."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch

from sparse3d.datasets import FrameIndex, write_index
from sparse3d.datasets.transforms import LoadAnnotations, move_world
from sparse3d.structures import Annotations, Frame, LidarScan, Sample, WaymoLabels
from sparse3d.structures.skeleton import MIRRORED, MISSING, NUM_KEYPOINTS, VISIBLE

CLASSES = ["Vehicle", "Pedestrian", "Cyclist"]


@pytest.fixture
def labels() -> WaymoLabels:
    rng = np.random.default_rng(0)
    visibility = rng.integers(0, 3, (3, NUM_KEYPOINTS))
    keypoints = np.where(visibility[..., None] == MISSING, np.nan, rng.normal(size=(3, NUM_KEYPOINTS, 3)))
    synced = rng.uniform(1, 4, (3, 7))
    synced[1] = np.nan
    return WaymoLabels(
        difficulties=np.array([0, 2, 1]),
        tracking_difficulties=np.array([1, 0, 2]),
        num_top_lidar_points=np.array([7, 0, 3]),
        speeds=rng.normal(size=(3, 3)),
        accelerations=np.full((3, 3), np.nan),
        most_visible_cameras=np.array([1, 0, 5]),
        camera_synced_boxes=synced,
        keypoints=keypoints,
        keypoint_visibility=visibility,
    )


@pytest.fixture
def frame(tmp_path: Path, labels: WaymoLabels) -> Frame:
    annotations = Annotations(
        tokens=("f/a", "f/b", "f/c"),
        instances=("a", "b", "c"),
        categories=("Vehicle", "Sign", "Pedestrian"),
        attributes=("", "", ""),
        boxes=np.random.default_rng(1).uniform(1, 5, (3, 9)),
        num_lidar_points=np.array([10, 20, 30]),
        num_radar_points=np.zeros(3, dtype=np.int64),
        global_centers=np.zeros((3, 3)),
        global_rotations=np.tile([1.0, 0, 0, 0], (3, 1)),
        global_velocities=np.zeros((3, 2)),
        waymo=labels,
    )
    scan = LidarScan(str(tmp_path / "segment.parquet"), 5, np.eye(4), 6, offset=3)
    zones = (np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]), np.array([[6.0, 7.0]]))
    return Frame("f", "segment", 5, scan, (scan,), (), np.eye(4), np.eye(4), annotations, zones)


def test_round_trip(tmp_path: Path, frame: Frame, labels: WaymoLabels) -> None:
    write_index(tmp_path / "index.arrow", [frame], {"dataset": "waymo"}, tmp_path)
    found = FrameIndex(tmp_path / "index.arrow", tmp_path)[0]
    assert (found.lidar.offset, found.sweeps[0].offset) == (3, 3)
    for one, other in zip(found.no_label_zones, frame.no_label_zones, strict=True):
        np.testing.assert_array_equal(one, other)
    for field in fields(labels):
        one, other = getattr(found.annotations.waymo, field.name), getattr(labels, field.name)
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def test_select_takes_the_labels_along(frame: Frame) -> None:
    chosen = frame.annotations.select(np.array([False, True, True]))
    assert chosen.waymo.difficulties.tolist() == [2, 1]
    assert len(chosen.waymo.keypoints) == 2


def test_camera_synced_boxes_stand_in_where_a_camera_sees_the_object(frame: Frame, labels: WaymoLabels) -> None:
    gt = LoadAnnotations(CLASSES, camera_synced=True)(Sample.from_frame(frame), np.random.default_rng(0)).gt
    assert gt.labels.tolist() == [0, 1]
    assert gt.num_points.tolist() == [7, 3]
    np.testing.assert_allclose(gt.boxes.tensor[:, :7], labels.camera_synced_boxes[[0, 2]], rtol=1e-6)
    np.testing.assert_allclose(gt.boxes.velocities, frame.annotations.boxes[[0, 2], 7:], rtol=1e-6)


def test_keypoints_move_with_the_world_and_change_sides_in_a_mirror(frame: Frame, labels: WaymoLabels) -> None:
    sample = LoadAnnotations(CLASSES, keypoints=True)(Sample.from_frame(frame), np.random.default_rng(0))
    person = sample.gt[sample.gt.labels == 1]
    missing = person.keypoint_visibility == MISSING
    assert missing.any()
    assert (person.keypoint_visibility == VISIBLE).any()
    assert torch.equal(person.keypoints[missing], person.boxes.centers.expand(int(missing.sum()), 3))
    turned = move_world(sample, np.array([[0, -2.0, 0, 1], [2, 0, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]]))
    x, y, z = sample.gt.keypoints.unbind(-1)
    torch.testing.assert_close(turned.gt.keypoints, torch.stack([1 - 2 * y, 2 * x, 2 * z], dim=-1))
    mirrored = move_world(sample, np.diag([1.0, -1.0, 1.0, 1.0]))
    torch.testing.assert_close(mirrored.gt.keypoints[:, list(MIRRORED)], torch.stack([x, -y, z], dim=-1))
    assert torch.equal(mirrored.gt.keypoint_visibility[:, list(MIRRORED)], sample.gt.keypoint_visibility)
