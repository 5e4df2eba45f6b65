"""Moving the world: points, boxes, velocities and pixels stay where they belong to each other."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse3d.datasets.transforms import (
    Compose,
    RandomFlip,
    RandomRotate,
    RandomScale,
    RandomTranslate,
    RangeFilter,
    ShufflePoints,
    build_pipeline,
    build_transform,
    move_world,
)
from sparse3d.structures import Boxes3D, Cameras, Grid, InstanceData, Sample
from sparse3d_ops.boxes import points_in_boxes_mask

reproducible = settings(deadline=None, max_examples=30, derandomize=True)
seeds = st.integers(0, 2**32 - 1)
moves = st.sampled_from(
    [
        RandomFlip(x=1, y=0),
        RandomFlip(x=0, y=1),
        RandomFlip(),
        RandomRotate((-math.pi, math.pi)),
        RandomScale((0.5, 2)),
        RandomTranslate((3, 2, 1)),
        Compose([RandomFlip(), RandomRotate(), RandomScale((0.8, 1.25)), RandomTranslate(0.5)]),
    ]
)


def _sample(seed: int, count: int = 12) -> Sample:
    """Boxes with points in and around them, in float64 so that only geometry decides; cameras that look outwards."""
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.rand(count, 9, generator=generator, dtype=torch.float64)
    boxes[:, :3] = boxes[:, :3] * 60 - 30
    boxes[:, 3:6] = boxes[:, 3:6] * 5 + 0.5
    boxes[:, 6] = boxes[:, 6] * 8 - 4
    boxes[:, 7:] = boxes[:, 7:] * 20 - 10
    boxes[0, 7:] = torch.nan
    offsets = (torch.rand(count, 30, 3, generator=generator, dtype=torch.float64) - 0.5) * 6
    xyz = (boxes[:, None, :3] + offsets).reshape(-1, 3)
    extra = torch.rand(len(xyz), 2, generator=generator, dtype=torch.float64)
    sample = Sample()
    sample.set_metainfo({"lidar_aug": np.eye(4)})
    gt = InstanceData(
        boxes=Boxes3D(boxes), labels=torch.arange(count), num_points=torch.full((count,), 3, dtype=torch.int64)
    )
    return sample.replace(points=torch.cat([xyz, extra], dim=1), gt=gt, cameras=_cameras())


def _cameras() -> Cameras:
    forward = torch.tensor([[0.0, -1, 0, 0.1], [0, 0, -1, 0.2], [1, 0, 0, 0.3], [0, 0, 0, 1]], dtype=torch.float64)
    back = forward * torch.tensor([[-1.0], [1], [-1], [1]])
    intrinsics = torch.tensor([[500.0, 0, 400], [0, 500, 200], [0, 0, 1]]).repeat(2, 1, 1)
    return Cameras.create(["front", "back"], intrinsics, torch.stack([forward, back]), torch.tensor([[400, 800]] * 2))


# -- the property -----------------------------------------------------------------------------------------------------


@reproducible
@given(moves, seeds)
def test_points_stay_in_their_boxes(move: RandomFlip, seed: int) -> None:
    sample = _sample(seed)
    moved = move(sample, np.random.default_rng(seed))
    before = points_in_boxes_mask(sample.points[:, :3], sample.gt.boxes.tensor[:, :7])
    after = points_in_boxes_mask(moved.points[:, :3], moved.gt.boxes.tensor[:, :7])
    assert before.any()
    assert torch.equal(before, after)


@reproducible
@given(moves, seeds)
def test_points_keep_their_pixels(move: RandomFlip, seed: int) -> None:
    sample = _sample(seed)
    moved = move(sample, np.random.default_rng(seed))
    pixels, depth = sample.cameras.project(sample.points[:, :3])
    moved_pixels, moved_depth = moved.cameras.project(moved.points[:, :3])
    far = depth > 0.5
    torch.testing.assert_close(moved_pixels[far], pixels[far], rtol=1e-9, atol=1e-6)
    torch.testing.assert_close(moved_depth, depth, rtol=1e-9, atol=1e-9)


@reproducible
@given(moves, seeds)
def test_velocities_are_displacements(move: RandomFlip, seed: int) -> None:
    """A box that moves for a second and is then augmented is where the augmented box gets to in a second."""
    sample = _sample(seed)
    later = sample.gt.boxes.tensor.clone()
    later[:, :2] += later[:, 7:]
    moved = move(sample, np.random.default_rng(seed))
    expected = move(sample.replace(gt=InstanceData(boxes=Boxes3D(later))), np.random.default_rng(seed))
    arrived = moved.gt.boxes.tensor[:, :2] + moved.gt.boxes.velocities
    torch.testing.assert_close(arrived[1:], expected.gt.boxes.tensor[1:, :2], rtol=0, atol=1e-9)
    assert moved.gt.boxes.velocities[0].isnan().all()


@reproducible
@given(moves, seeds)
def test_lidar_aug_is_the_movement(move: RandomFlip, seed: int) -> None:
    sample = _sample(seed)
    moved = move(sample, np.random.default_rng(seed))
    matrix = torch.from_numpy(moved.lidar_aug)
    torch.testing.assert_close(sample.points[:, :3] @ matrix[:3, :3].T + matrix[:3, 3], moved.points[:, :3])
    torch.testing.assert_close(sample.points[:, 3:], moved.points[:, 3:], rtol=0, atol=0)


@reproducible
@given(moves, seeds)
def test_the_input_stays_as_it_is(move: RandomFlip, seed: int) -> None:
    sample, untouched = _sample(seed), _sample(seed)
    move(sample, np.random.default_rng(seed))
    assert torch.equal(sample.points, untouched.points)
    torch.testing.assert_close(sample.gt.boxes.tensor, untouched.gt.boxes.tensor, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(sample.cameras.lidar2cam, untouched.cameras.lidar2cam)
    assert np.array_equal(sample.lidar_aug, np.eye(4))


@reproducible
@given(seeds)
def test_neighbouring_movements_become_one(seed: int) -> None:
    """They draw what they would have drawn, and the world ends where it would have ended."""
    steps = [RandomFlip(), RandomRotate(), RandomScale((0.8, 1.25)), RandomTranslate(0.5)]
    (together,) = build_pipeline(steps)
    rng = np.random.default_rng(seed)
    expected = _sample(seed)
    for step in steps:
        expected = step(expected, rng)
    found = together(_sample(seed), np.random.default_rng(seed))
    torch.testing.assert_close(found.points, expected.points, rtol=0, atol=1e-9)
    tensors = [sample.gt.boxes.wrap_yaw().tensor for sample in (found, expected)]
    torch.testing.assert_close(*tensors, rtol=0, atol=1e-9, equal_nan=True)
    np.testing.assert_allclose(found.lidar_aug, expected.lidar_aug, atol=1e-12)


def test_other_transforms_stay_between_movements() -> None:
    shuffle = ShufflePoints()
    pipeline = build_pipeline([RandomFlip(), RandomRotate(), shuffle, RandomScale(), dict(type="RandomTranslate")])
    assert [getattr(step, "__name__", type(step).__name__) for step in pipeline] == [
        "RandomFlip, RandomRotate",
        "ShufflePoints",
        "RandomScale, RandomTranslate",
    ]
    assert pipeline[1] is shuffle


def test_one_mechanism_agrees_with_the_boxes_own_movements() -> None:
    boxes = _sample(0).gt.boxes
    turn = RandomRotate((0.7, 0.7)).draw(np.random.default_rng(0))
    for found, expected in [
        (boxes.transform(turn), boxes.rotate(0.7)),
        (boxes.transform(np.diag([-1.0, 1, 1, 1])), boxes.flip("x")),
        (boxes.transform(np.diag([1.0, -1, 1, 1])), boxes.flip("y")),
        (boxes.transform(np.diag([1.1, 1.1, 1.1, 1])), boxes.scale(1.1)),
    ]:
        torch.testing.assert_close(found.wrap_yaw().tensor, expected.wrap_yaw().tensor, equal_nan=True)


# -- parts ------------------------------------------------------------------------------------------------------------


def test_float32_stays_float32() -> None:
    sample = _sample(0)
    gt = InstanceData(boxes=sample.gt.boxes.to(torch.float32))
    moved = RandomRotate()(sample.replace(points=sample.points.float(), gt=gt), np.random.default_rng(0))
    assert moved.points.dtype == moved.gt.boxes.tensor.dtype == torch.float32
    assert moved.cameras.lidar2cam.dtype == torch.float64


def test_moves_what_there_is() -> None:
    sample = Sample()
    sample.set_metainfo({"lidar_aug": np.eye(4)})
    moved = move_world(sample, np.diag([2.0, 2, 2, 1]))
    assert moved.lidar_aug[0, 0] == 2
    assert not moved.keys()


def test_empty_sample() -> None:
    sample = _sample(0)
    gt = InstanceData(boxes=sample.gt.boxes[:0], labels=sample.gt.labels[:0])
    moved = RandomRotate()(sample.replace(points=sample.points[:0], gt=gt), np.random.default_rng(0))
    assert moved.points.shape == (0, 5)
    assert moved.gt.boxes.tensor.shape == (0, 9)


def test_ranges_of_the_draws() -> None:
    rng = np.random.default_rng(0)
    angles = [math.atan2(*RandomRotate((0.1, 0.3)).draw(rng)[[1, 0], 0]) for _ in range(200)]
    assert 0.1 <= min(angles) < 0.11 < 0.29 < max(angles) <= 0.3
    factors = [RandomScale((0.9, 1.2)).draw(rng)[2, 2] for _ in range(200)]
    assert 0.9 <= min(factors) < 0.91 < 1.19 < max(factors) <= 1.2
    shifts = np.array([RandomTranslate((1, 2, 0)).draw(rng)[:3, 3] for _ in range(2000)])
    np.testing.assert_allclose(shifts.std(axis=0), [1, 2, 0], rtol=0.1)
    signs = np.array([np.diag(RandomFlip(x=0.25, y=1).draw(rng))[:2] for _ in range(2000)])
    np.testing.assert_allclose((signs < 0).mean(axis=0), [0.25, 1], atol=0.03)


@pytest.mark.parametrize(
    "build",
    [
        lambda: RandomFlip(x=1.5),
        lambda: RandomRotate((1, -1)),
        lambda: RandomRotate((1, 2, 3)),
        lambda: RandomScale((0, 1)),
        lambda: RandomTranslate((-1, 0, 0)),
    ],
)
def test_refused_arguments(build: object) -> None:
    with pytest.raises(ValueError, match="Random"):
        build()


# -- selection --------------------------------------------------------------------------------------------------------

GRID = dict(point_range=(-10, -10, -2, 10, 10, 2), voxel_size=(1, 1, 4))


def test_range_filter() -> None:
    sample = _sample(0)
    points = torch.tensor([[-10.0, -10, -2, 7], [10, 0, 0, 7], [0, 0, 2, 7], [9.9, 9.9, 1.9, 8]])
    boxes = torch.zeros(3, 9)
    boxes[:, 0] = torch.tensor([9.9, 10, -10])
    boxes[:, 3:6] = 4
    gt = InstanceData(boxes=Boxes3D(boxes), labels=torch.tensor([5, 6, 7]), num_points=torch.tensor([1, 2, 3]))
    for grid in (GRID, Grid(**GRID)):
        kept = RangeFilter(grid)(sample.replace(points=points, gt=gt), np.random.default_rng(0))
        assert kept.points[:, 3].tolist() == [7, 8]
        assert kept.gt.labels.tolist() == [5, 7]
        assert kept.gt.num_points.tolist() == [1, 3]
        assert len(kept.gt.boxes) == 2


def test_shuffle() -> None:
    sample = _sample(0)
    shuffled = ShufflePoints()(sample, np.random.default_rng(0)).points
    assert not torch.equal(shuffled, sample.points)
    assert sorted(shuffled.tolist()) == sorted(sample.points.tolist())
    assert torch.equal(shuffled, ShufflePoints()(sample, np.random.default_rng(0)).points)


# -- composition ------------------------------------------------------------------------------------------------------


def test_compose_builds_and_applies_in_order() -> None:
    pipeline = Compose([dict(type="RandomScale", factors=(2, 2)), lambda sample, rng: move_world(sample, _shift(1.0))])
    moved = pipeline(_sample(0), np.random.default_rng(0))
    np.testing.assert_array_equal(moved.lidar_aug, np.array([[2, 0, 0, 1], [0, 2, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]]))


def _shift(x: float) -> np.ndarray:
    matrix = np.eye(4)
    matrix[0, 3] = x
    return matrix


def test_no_transform() -> None:
    with pytest.raises(TypeError, match="a transform must be a callable or a dict"):
        build_transform("RandomFlip")
    with pytest.raises(KeyError, match="NoSuchTransform"):
        build_transform(dict(type="NoSuchTransform"))
