from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparse3d.structures import Boxes3D

SETTINGS = settings(max_examples=50, deadline=None, derandomize=True)
angles = st.floats(-10, 10)


def random_boxes(count: int = 20, *, velocity: bool = True, seed: int = 0) -> Boxes3D:
    generator = torch.Generator().manual_seed(seed)
    data = torch.randn(count, 9, generator=generator, dtype=torch.float64) * 10
    data[:, 3:6] = data[:, 3:6].abs() + 0.1
    return Boxes3D(data if velocity else data[:, :7])


def rotation(angle: float) -> Tensor:
    matrix = torch.eye(4, dtype=torch.float64)
    cos, sin = math.cos(angle), math.sin(angle)
    matrix[:2, :2] = torch.tensor([[cos, -sin], [sin, cos]], dtype=torch.float64)
    return matrix


def move(points: Tensor, matrix: Tensor) -> Tensor:
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def test_corners_of_an_axis_aligned_box() -> None:
    corners = Boxes3D([[1.0, 2, 3, 4, 2, 1, 0]]).corners()[0]
    assert corners[0].tolist() == [3, 3, 3.5]  # front left top
    assert corners[2].tolist() == [3, 1, 2.5]  # front right bottom
    assert corners[4].tolist() == [-1, 3, 3.5]  # back left top
    assert corners.mean(0).tolist() == [1, 2, 3]


def test_heading_points_to_the_front_face() -> None:
    boxes = random_boxes()
    front = boxes.corners()[:, :4].mean(1) - boxes.centers
    assert torch.allclose(torch.atan2(front[:, 1], front[:, 0]), boxes.wrap_yaw().yaws)


@SETTINGS
@given(angles)
def test_rotating_boxes_rotates_their_corners_and_velocities(angle: float) -> None:
    boxes, matrix = random_boxes(), rotation(angle)
    turned = boxes.rotate(angle)
    assert torch.allclose(turned.corners(), move(boxes.corners(), matrix))
    assert torch.allclose(turned.velocities, boxes.velocities @ matrix[:2, :2].T)


@SETTINGS
@given(angles, st.tuples(*[st.floats(-50, 50)] * 3))
def test_transform_agrees_with_rotate_and_translate(angle: float, offset: tuple[float, float, float]) -> None:
    boxes, matrix = random_boxes(), rotation(angle)
    matrix[:3, 3] = torch.tensor(offset)
    moved, expected = boxes.transform(matrix), boxes.rotate(angle).translate(offset)
    assert torch.allclose(moved.corners(), expected.corners())
    assert torch.allclose(moved.velocities, expected.velocities)


@pytest.mark.parametrize("axis", ["x", "y"])
def test_flip_mirrors_centre_heading_and_velocity(axis: str) -> None:
    boxes = random_boxes()
    mirror = torch.tensor([-1.0, 1, 1] if axis == "x" else [1.0, -1, 1], dtype=torch.float64)
    flipped = boxes.flip(axis)
    front = boxes.corners()[:, :4].mean(1) * mirror
    assert torch.allclose(flipped.corners()[:, :4].mean(1), front)
    assert torch.allclose(flipped.velocities, boxes.velocities * mirror[:2])
    assert torch.allclose(flipped.flip(axis).wrap_yaw().tensor, boxes.wrap_yaw().tensor)


def test_scale_scales_everything_but_the_heading() -> None:
    boxes = random_boxes()
    scaled = boxes.scale(2.0)
    assert torch.allclose(scaled.corners(), boxes.corners() * 2)
    assert torch.allclose(scaled.velocities, boxes.velocities * 2)
    assert torch.equal(scaled.yaws, boxes.yaws)


def test_operations_leave_their_input_alone() -> None:
    boxes = random_boxes()
    before = boxes.tensor.clone()
    (
        boxes.rotate(1.0),
        boxes.flip("x"),
        boxes.scale(2.0),
        boxes.translate([1, 2, 3]),
        boxes.wrap_yaw(),
        boxes.to_mmdet3d(),
    )
    assert torch.equal(boxes.tensor, before)


def test_nuscenes_round_trip() -> None:
    boxes = random_boxes().wrap_yaw()
    back = Boxes3D.from_nuscenes(*boxes.to_nuscenes())
    assert torch.allclose(back.tensor, boxes.tensor)
    assert boxes.to_nuscenes()[1][0].tolist() == boxes.sizes[0][[1, 0, 2]].tolist()  # w, l, h


def test_from_nuscenes_takes_the_direction_of_the_x_axis_of_a_tilted_box() -> None:
    yaw, pitch = 0.7, 0.2
    turn = np.array([math.cos(yaw / 2), 0, 0, math.sin(yaw / 2)])
    tilt = np.array([math.cos(pitch / 2), 0, math.sin(pitch / 2), 0])
    w = turn[0] * tilt[0]
    x, y, z = -turn[3] * tilt[2], turn[0] * tilt[2], turn[3] * tilt[0]
    boxes = Boxes3D.from_nuscenes(np.zeros((1, 3)), np.ones((1, 3)), np.array([[w, x, y, z]]))
    assert boxes.yaws.item() == pytest.approx(yaw)


def test_mmdet3d_stores_the_bottom() -> None:
    boxes = Boxes3D([[0.0, 0, 5, 1, 1, 4, 0]])
    assert boxes.to_mmdet3d()[0, 2] == 3
    assert torch.equal(Boxes3D.from_mmdet3d(boxes.to_mmdet3d()).tensor, boxes.tensor)


def test_in_range_excludes_the_upper_bound() -> None:
    boxes = Boxes3D([[0.0, 0, 0, 1, 1, 1, 0], [1.0, 0, 0, 1, 1, 1, 0], [-1.0, -1, -1, 1, 1, 1, 0]])
    assert boxes.in_range([-1, -1, -1, 1, 1, 1]).tolist() == [True, False, True]


def test_container() -> None:
    boxes = random_boxes()
    assert len(boxes[3]) == 1
    assert torch.equal(boxes[torch.tensor([2, 0])].tensor, boxes.tensor[[2, 0]])
    assert torch.equal(Boxes3D.cat([boxes[:5], boxes[5:]]).tensor, boxes.tensor)
    assert len(Boxes3D.cat([])) == 0
    assert Boxes3D([[1, 2, 3, 4, 5, 6, 0]]).tensor.dtype == torch.float32
    assert boxes.to(torch.float32).tensor.dtype == torch.float32


def test_no_boxes() -> None:
    none = Boxes3D(torch.zeros(0, 9))
    assert none.corners().shape == (0, 8, 3)
    assert len(none.rotate(1).flip("x").scale(2).transform(np.eye(4))) == 0
    assert len(Boxes3D([])) == 0


def test_velocity_is_nan_where_there_is_none() -> None:
    assert random_boxes(velocity=False).velocities.isnan().all()


@pytest.mark.parametrize("shape", [(3, 8), (3,), (2, 3, 7)])
def test_wrong_shape_is_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected \[N, 7\] or \[N, 9\]"):
        Boxes3D(torch.zeros(shape))


def test_flip_of_another_axis_is_refused() -> None:
    with pytest.raises(ValueError, match="axis"):
        random_boxes().flip("z")
