"""Detections in the conventions of others, on boxes whose numbers are known by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from sparse3d.evaluation import read_submission
from sparse3d.results import NamedDetections
from sparse3d.structures import Boxes3D, Cameras, Detections, Frame, LidarScan

NAMES = ("car", "pedestrian", "traffic_cone")
QUARTER = math.pi / 2


def frame() -> Frame:
    """The vehicle stands at (100, 0, 0) and looks along +y; its LiDAR is 2 m up and looks ahead."""
    scan = LidarScan("", 7, np.eye(4))
    lidar2ego, ego2global = np.eye(4), np.eye(4)
    lidar2ego[2, 3] = 2.0
    ego2global[:2, :2], ego2global[0, 3] = [[0, -1], [1, 0]], 100.0
    return Frame("token", "segment", 7, scan, (), (), lidar2ego, ego2global, None)


def detections(source: Frame | None = None) -> NamedDetections:
    boxes = Boxes3D(
        [[10, 1, -1, 4, 2, 1.5, 0, 5, 0], [20, 0, 0, 0.6, 0.8, 1.7, QUARTER, 0, 0], [5, 0, 0, 1, 1, 1, 0, 0, 0]]
    )
    found = Detections(boxes, torch.tensor([0.9, 0.6, 0.3]), torch.tensor([0, 1, 2]))
    return NamedDetections.of(found, NAMES, source)


def front_camera() -> Cameras:
    """A camera at the LiDAR that looks along its x axis: 1000 pixels of focal length, 1600 x 900."""
    lidar2cam = torch.tensor([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    intrinsic = torch.tensor([[1000.0, 0, 800], [0, 1000, 450], [0, 0, 1]])
    return Cameras.create(["FRONT"], intrinsic[None], lidar2cam[None], torch.tensor([[900, 1600]]))


def test_selection_keeps_names_and_frame() -> None:
    kept = detections(frame()).above(0.5)
    assert kept.names == ["car", "pedestrian"] and kept.frame.token == "token"
    assert len(kept.above(0.95)) == 0


def test_nuscenes_records_stand_in_the_world_frame(tmp_path) -> None:
    records = detections(frame()).to_nuscenes()
    car = records[0]
    np.testing.assert_allclose(car["translation"], [99, 10, 1], atol=1e-6)  # 10 ahead is +y, 1 left is -x
    assert car["size"] == [2.0, 4.0, 1.5] and car["detection_name"] == "car"
    np.testing.assert_allclose(car["rotation"], [math.sqrt(0.5), 0, 0, math.sqrt(0.5)], atol=1e-6)
    np.testing.assert_allclose(car["velocity"], [0, 5], atol=1e-6)
    assert [each["attribute_name"] for each in records] == ["vehicle.moving", "pedestrian.standing", ""]
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"meta": {}, "results": {"token": records}}))
    assert len(read_submission(path, ["token"]).detections) == 3


def test_nuscenes_needs_poses() -> None:
    with pytest.raises(ValueError, match="come without poses"):
        detections().to_nuscenes()


def test_waymo_objects_stand_in_the_vehicle_frame() -> None:
    car, pedestrian = detections(frame()).to_waymo()["objects"]  # Waymo knows no cones
    assert car["object"]["type"] == "TYPE_VEHICLE" and pedestrian["object"]["type"] == "TYPE_PEDESTRIAN"
    assert car["object"]["box"] == pytest.approx(
        dict(centerX=10, centerY=1, centerZ=1, length=4, width=2, height=1.5, heading=0)
    )
    assert pedestrian["object"]["box"]["heading"] == pytest.approx(QUARTER)
    assert (car["contextName"], car["frameTimestampMicros"]) == ("segment", "7")
    assert "contextName" not in detections().to_waymo()["objects"][0]


def test_kitti_lines() -> None:
    rows = [line.split() for line in detections().to_kitti(front_camera())]
    assert [row[0] for row in rows] == ["Car", "Pedestrian", "Traffic_cone"]
    assert all(len(row) == 16 for row in rows)
    _, truncated, occluded, *numbers = rows[0]
    alpha, left, top, right, bottom, height, width, length, x, y, z, turn, score = map(float, numbers)
    assert (truncated, occluded) == ("-1", "-1") and (height, width, length) == (1.5, 2, 4)
    assert (x, y, z) == (-1, 1.75, 10)  # right, down (to the bottom), forward
    assert turn == pytest.approx(-QUARTER, abs=1e-4)  # looks along the optical axis
    assert alpha == pytest.approx(-QUARTER - math.atan2(-1, 10), abs=1e-4)
    # Corners: 8 to 12 m ahead, 0 to 2 m to the left, 0.25 to 1.75 m down.
    assert [left, top, right, bottom] == pytest.approx([800 - 2000 / 8, 450 + 250 / 12, 800, 450 + 1750 / 8], abs=1e-3)
    assert score == pytest.approx(0.9)
    assert float(rows[1][14]) == pytest.approx(math.pi, abs=1e-3) or float(rows[1][14]) == pytest.approx(
        -math.pi, abs=1e-3
    )


def test_kitti_leaves_out_what_the_camera_does_not_see() -> None:
    behind = replace(
        detections(), boxes=Boxes3D([[-10, 0, 0, 4, 2, 1, 0], [10, 40, 0, 1, 1, 1, 0], [9, 0, 0, 1, 1, 1, 0]])
    )
    assert [line.split()[0] for line in behind.to_kitti(front_camera())] == ["Traffic_cone"]


def test_json() -> None:
    unknown = replace(detections(), boxes=Boxes3D(detections().boxes.tensor[:, :7]))
    content = json.loads(unknown.to_json())
    assert content["frame"] is None
    assert content["detections"][0] == {
        "class": "car", "score": pytest.approx(0.9), "box": [10, 1, -1, 4, 2, 1.5, 0], "velocity": None,
    }  # fmt: skip
    assert json.loads(detections(frame()).to_json())["detections"][0]["velocity"] == [5, 0]


def test_nothing_found() -> None:
    none = detections(frame()).above(1.0)
    assert none.to_nuscenes() == [] and none.to_waymo() == {"objects": []} and none.to_kitti(front_camera()) == []
    assert json.loads(none.to_json())["detections"] == []
