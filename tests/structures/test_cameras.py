from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sparse3d.structures import Cameras

# Camera frame (x right, y down, z forward) looking along the LiDAR's +x.
LIDAR2CAM = torch.tensor([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])


def one_camera() -> Cameras:
    intrinsics = torch.tensor([[[100.0, 0, 80], [0, 100, 40], [0, 0, 1]]])
    return Cameras.create(["front"], intrinsics, LIDAR2CAM[None], torch.tensor([[80, 160]]))


def test_projection_of_known_points() -> None:
    pixels, depth = one_camera().project(torch.tensor([[10.0, 0, 0], [10.0, 2, 0], [10.0, 0, 2]]))
    assert pixels[0].tolist() == [[80, 40], [60, 40], [80, 20]]  # ahead; left is a smaller u; up is a smaller v
    assert depth[0].tolist() == [10, 10, 10]


def test_points_behind_have_no_pixel() -> None:
    pixels, _ = one_camera().project(torch.tensor([[-10.0, 0, 0], [0.0, 1, 0]]))
    assert pixels.isnan().all()


def test_visible() -> None:
    points = torch.tensor([[10.0, 0, 0], [-10.0, 0, 0], [10.0, 8, 0], [10.0, 8.1, 0], [10.0, -8, 0]])
    assert one_camera().visible(points)[0].tolist() == [True, False, True, False, False]


def test_moving_the_lidar_keeps_the_image() -> None:
    cameras, points = one_camera(), torch.randn(50, 3, dtype=torch.float64) * 5 + torch.tensor([20.0, 0, 0])
    move = torch.tensor([[0.0, -1, 0, 3], [1, 0, 0, -2], [0, 0, 1.1, 1], [0, 0, 0, 1]], dtype=torch.float64)
    moved = points @ move[:3, :3].T + move[:3, 3]
    before, after = cameras.project(points)[0], cameras.move_lidar(move).project(moved)[0]
    assert torch.allclose(before, after)


def test_augmentation_of_points_is_known_apart_from_a_change_of_frame() -> None:
    frame = torch.tensor([[0.0, 1, 0, 2], [-1, 0, 0, 1], [0, 0, 1, 1.5], [0, 0, 0, 1]], dtype=torch.float64)
    first, second = torch.diag(torch.tensor([-1.0, 1, 1, 1])), torch.diag(torch.tensor([1.1, 1.1, 1.1, 1]))
    cameras = one_camera().change_frame(frame).move_lidar(first).move_lidar(second)
    torch.testing.assert_close(cameras.bev_aug[0], (second @ first).double())
    whole = one_camera().move_lidar((second @ first).double() @ frame)
    torch.testing.assert_close(cameras.lidar2cam, whole.lidar2cam)


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(ValueError, match="lidar2cam"):
        Cameras.create(["front"], torch.eye(3)[None], torch.eye(4), torch.tensor([[80, 160]]))


def test_unprojecting_is_the_inverse_of_projecting() -> None:
    blind = replace(one_camera(), lidar2cam=torch.zeros(1, 4, 4, dtype=torch.float64))
    cameras = Cameras.cat([one_camera(), blind]).move_lidar(torch.diag(torch.tensor([-1.1, 1.1, 1.1, 1])))
    pixels, depths = torch.tensor([[0.0, 0], [80, 40], [159, 10.5]]), torch.tensor([0.5, 20.0])
    points = cameras.unproject(pixels, depths)
    assert points.shape == (2, 3, 2, 3) and points[1].isnan().all() and cameras.sees.tolist() == [True, False]
    found, at = cameras.project(points[0].flatten(0, 1))
    torch.testing.assert_close(found[0], pixels.double().repeat_interleave(2, dim=0))
    torch.testing.assert_close(at[0], depths.double().repeat(3))
