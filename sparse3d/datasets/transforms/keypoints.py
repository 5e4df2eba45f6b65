"""People with keypoints: whom to learn from."""

from __future__ import annotations

import numpy as np
import torch

from sparse3d_ops import points_in_boxes

from ...registry import TRANSFORMS
from ...structures import Sample
from ...structures.skeleton import MISSING
from .selection import select_instances


@TRANSFORMS.register_module()
class RemoveUnlabelledPeople:
    """Remove the objects of ``gt`` without any keypoint label, and the points inside of their boxes.

    Most people of a data set have a box, few have keypoints. One without would be background with a person in it.
    ``gt`` has ``keypoint_visibility`` (see ``LoadAnnotations``).

    Args:
        with_points: whether their points go too; without, they become background: vehicles that were pasted, for
            instance.

    Source: VoxelKP (Shi and Wonka, ICCV 2025), as its code prepares Waymo.
    """

    def __init__(self, with_points: bool = True) -> None:
        self.with_points = with_points

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return the sample with fewer objects and points."""
        labelled = (sample.gt.keypoint_visibility != MISSING).any(dim=1)
        left = sample.replace(gt=select_instances(sample.gt, labelled))
        if not self.with_points:
            return left
        others = sample.gt.boxes[~labelled].tensor
        outside = points_in_boxes(sample.points[:, :3].contiguous(), others[:, :7].contiguous()) < 0
        return left.replace(points=torch.from_numpy(sample.points.numpy()[outside.numpy()]))
