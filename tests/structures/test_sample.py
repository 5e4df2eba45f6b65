from __future__ import annotations

import numpy as np
import torch
from mmengine.dataset import pseudo_collate

from sparse3d.structures import Boxes3D, InstanceData, Sample


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


def test_boxes_go_back_to_the_frame_as_recorded() -> None:
    sample = sample_with_boxes()
    turn = np.array([[0.0, 1.1, 0, 3], [-1.1, 0, 0, 1], [0, 0, 1.1, 0.5], [0, 0, 0, 1]])
    moved = sample.gt.boxes.transform(turn)
    torch.testing.assert_close(moved.sizes, 1.1 * sample.gt.boxes.sizes)
    torch.testing.assert_close(sample.move_lidar(turn).as_recorded(moved).tensor, sample.gt.boxes.tensor)
    assert sample.as_recorded(moved) is moved


def test_collate_keeps_samples_as_they_are() -> None:
    samples = [sample_with_boxes(), sample_with_boxes()]
    assert pseudo_collate(samples) is samples
