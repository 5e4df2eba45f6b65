from __future__ import annotations

import copy

import numpy as np

from sparse3d.structures import Annotations, Frame, LidarScan


def three_objects() -> Annotations:
    return Annotations(
        tokens=("a", "b", "c"),
        instances=("i", "j", "k"),
        categories=("vehicle.car", "vehicle.truck", "animal"),
        attributes=("vehicle.moving", "", ""),
        boxes=np.arange(27.0).reshape(3, 9),
        num_lidar_points=np.array([5, 0, 2]),
        num_radar_points=np.array([0, 1, 0]),
        global_centers=np.arange(9.0).reshape(3, 3),
        global_rotations=np.tile([1.0, 0, 0, 0], (3, 1)),
        global_velocities=np.zeros((3, 2)),
    )


def test_select_keeps_every_field_of_the_chosen_objects() -> None:
    chosen = three_objects().select(np.array([True, False, True]))
    assert len(chosen) == 2
    assert chosen.categories == ("vehicle.car", "animal")
    assert chosen.num_lidar_points.tolist() == [5, 2]
    assert chosen.global_centers.tolist() == [[0, 1, 2], [6, 7, 8]]


def test_lidar2global_goes_through_the_car_and_copies_share_the_frame() -> None:
    lidar2ego, ego2global = np.eye(4), np.eye(4)
    lidar2ego[:3, 3], ego2global[:3, :3] = [1, 0, 2], [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
    scan = LidarScan("scan.bin", 0, np.eye(4))
    frame = Frame("t", "scene", 0, scan, (), (), lidar2ego, ego2global, None)
    assert (frame.lidar2global @ [0, 0, 0, 1]).tolist() == [0, 1, 2, 1]
    assert copy.deepcopy(frame) is frame
