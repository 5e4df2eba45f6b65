from __future__ import annotations

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate

from sparse3d.structures import Boxes3D, InstanceData, Sample
from sparse3d.structures.sample import move_instances
from sparse3d.structures.skeleton import KEYPOINTS, NUM_KEYPOINTS


def sample_with_boxes() -> Sample:
    gt = InstanceData(boxes=Boxes3D(torch.rand(3, 9)), labels=torch.arange(3))
    return Sample(metainfo={"frame": None, "lidar_aug": np.eye(4)}).replace(gt=gt, points=torch.rand(5, 4))


def test_replace_leaves_the_original_alone() -> None:
    sample = sample_with_boxes()
    changed = sample.replace(points=torch.zeros(2, 4), lidar_aug=2 * np.eye(4))
    assert len(sample.points) == 5 and sample.lidar_aug[0, 0] == 1
    assert len(changed.points) == 2 and changed.lidar_aug[0, 0] == 2
    assert changed.gt is sample.gt


def test_instances_select_boxes_with_everything_else() -> None:
    gt = sample_with_boxes().gt
    chosen = gt[torch.tensor([True, False, True])]
    assert torch.equal(chosen.boxes.tensor, gt.boxes.tensor[[0, 2]])
    assert chosen.labels.tolist() == [0, 2]


def test_movements_compose() -> None:
    first, second = np.diag([2.0, 1, 1, 1]), np.diag([1.0, 3, 1, 1])
    assert np.array_equal(sample_with_boxes().move_lidar(first).move_lidar(second).lidar_aug, second @ first)


@pytest.mark.parametrize("mirror", [1.0, -1.0])
def test_objects_go_back_to_the_frame_as_recorded(mirror: float) -> None:
    sample = sample_with_boxes()
    sample.gt.keypoints = torch.rand(3, NUM_KEYPOINTS, 3)
    sample.gt.keypoint_visibility = torch.arange(3 * NUM_KEYPOINTS).view(3, -1)
    turn = np.array([[0.0, 1.1, 0, 3], [-1.1 * mirror, 0, 0, 1], [0, 0, 1.1, 0.5], [0, 0, 0, 1]])
    moved = move_instances(sample.gt, turn)
    torch.testing.assert_close(moved.boxes.sizes, 1.1 * sample.gt.boxes.sizes)
    back = sample.move_lidar(turn).as_recorded(moved)
    upright = sample.gt.boxes.wrap_yaw().tensor
    torch.testing.assert_close(back.boxes.wrap_yaw().tensor, upright)
    torch.testing.assert_close(back.keypoints, sample.gt.keypoints)
    assert torch.equal(back.keypoint_visibility, sample.gt.keypoint_visibility)
    assert sample.as_recorded(moved) is moved


def test_a_mirrored_person_has_their_left_hand_at_the_right_side() -> None:
    gt = InstanceData(boxes=Boxes3D(torch.zeros(1, 7)), keypoints=torch.rand(1, NUM_KEYPOINTS, 3))
    gt.keypoint_visibility = torch.arange(NUM_KEYPOINTS)[None]
    left, right = KEYPOINTS.index("LEFT_WRIST"), KEYPOINTS.index("RIGHT_WRIST")
    moved = move_instances(gt, np.diag([-1.0, 1, 1, 1]))
    torch.testing.assert_close(moved.keypoints[0, right], gt.keypoints[0, left] * torch.tensor([-1.0, 1, 1]))
    assert moved.keypoint_visibility[0, right] == gt.keypoint_visibility[0, left]


def test_collate_keeps_samples_as_they_are() -> None:
    samples = [sample_with_boxes(), sample_with_boxes()]
    assert pseudo_collate(samples) is samples
