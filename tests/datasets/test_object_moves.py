"""Objects that move by themselves take their points and keypoints along, and nothing else moves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse3d.datasets.transforms import RandomObjectMoves
from sparse3d.structures import Boxes3D, InstanceData, Sample
from sparse3d.structures.skeleton import NUM_KEYPOINTS


def scene(seed: int, count: int = 4) -> Sample:
    """Boxes that stand apart, points in and around them."""
    rng = np.random.default_rng(seed)
    boxes = rng.uniform([-1, -1, -1, 0.5, 0.5, 1, -4, -3, -3], [1, 1, 1, 4, 2, 2, 4, 3, 3], (count, 9))
    boxes[:, 0] += 10 * np.arange(count)
    near = rng.integers(0, count, 300) if count else np.zeros(0, np.int64)
    points = boxes[near, :3] + rng.normal(scale=2, size=(len(near), 3))
    keypoints = boxes[:, None, :3] + rng.normal(size=(count, NUM_KEYPOINTS, 3))
    gt = InstanceData(
        boxes=Boxes3D(torch.from_numpy(boxes).float()),
        labels=torch.arange(count),
        keypoints=torch.from_numpy(keypoints).float(),
        keypoint_visibility=torch.ones(count, NUM_KEYPOINTS, dtype=torch.int64),
    )
    cloud = np.concatenate([points, np.arange(len(points))[:, None]], axis=1)
    return Sample().replace(points=torch.from_numpy(cloud).float(), gt=gt)


def local(places: torch.Tensor, box: torch.Tensor) -> torch.Tensor:
    """Places in the axes of a box, in shares of its size."""
    cos, sin = box[6].cos(), box[6].sin()
    x, y, z = (places - box[:3]).unbind(-1)
    return torch.stack([cos * x + sin * y, cos * y - sin * x, z], dim=-1) / box[3:6]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_what_belongs_to_an_object_keeps_its_place_in_it(seed: int) -> None:
    sample = scene(seed)
    moved = RandomObjectMoves((-0.5, 0.5), (0.8, 1.2))(sample, np.random.default_rng(seed))
    owned = torch.zeros(len(sample.points), dtype=torch.bool)
    for before, after, keypoints, new in zip(
        sample.gt.boxes.tensor, moved.gt.boxes.tensor, sample.gt.keypoints, moved.gt.keypoints, strict=True
    ):
        inside = (local(sample.points[:, :3], before).abs() <= 0.5).all(dim=1)
        owned |= inside
        for old_places, new_places in ((sample.points[inside, :3], moved.points[inside, :3]), (keypoints, new)):
            expected = local(old_places, before)
            torch.testing.assert_close(local(new_places, after), expected, atol=1e-4, rtol=1e-4)
        assert torch.equal(before[:3], after[:3])
        assert 0.8 <= after[3] / before[3] <= 1.2 and abs(after[6] - before[6]) <= 0.5
        speed = [velocity.norm() for velocity in (before[7:], after[7:])]
        torch.testing.assert_close(*speed)
    assert torch.equal(moved.points[~owned], sample.points[~owned])
    assert torch.equal(moved.points[:, 3], sample.points[:, 3])


def test_objects_move_differently_and_the_original_stays() -> None:
    sample = scene(0)
    before = sample.gt.boxes.tensor.clone()
    moved = RandomObjectMoves()(sample, np.random.default_rng(0))
    turns = (moved.gt.boxes.yaws - before[:, 6]).tolist()
    assert len({round(turn, 5) for turn in turns}) == 4
    assert torch.equal(sample.gt.boxes.tensor, before)


def test_a_scene_without_objects_stays_as_it_is() -> None:
    sample = scene(0, count=0)
    assert len(RandomObjectMoves()(sample, np.random.default_rng(0)).gt.boxes) == 0


def test_impossible_intervals_are_refused() -> None:
    with pytest.raises(ValueError, match="factors must be positive"):
        RandomObjectMoves(factors=(0.0, 1.0))
    with pytest.raises(ValueError, match="angles must be"):
        RandomObjectMoves(angles=(1.0, -1.0))
