"""The loss of focal sparse convolution: which voxels lie in objects, and how well their importance says so.

Source: Focal Sparse Convolutional Networks (Chen et al., CVPR 2022), section 3.1, as released.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sparse3d_ops import points_in_boxes

from ..targets.ground_truth import GroundTruth

MARGIN = 1e-5  # metres by which a box's footprint is enlarged on each side
BOX_RULES = ("rotated", "doubled")


def importance_loss(
    importance: Tensor,  # [N]
    inside: Tensor,  # [N]
) -> Tensor:
    """Return the loss (a scalar) of voxels' importances p: -1/2N Σ (1 - q)² log q.

    q is the softmax over (1 - p, p) of the right one, a second squashing of what is a probability already, as
    published; so q lies in [0.27, 0.73].

    Args:
        importance: ``[N]`` in [0, 1].
        inside: ``[N]`` bool, whether the voxel lies in an object.
    """
    difference = 2 * importance.float() - 1
    q = torch.where(inside, difference, -difference).sigmoid()
    return -((1 - q).square() * q.log()).sum() / (2 * max(len(q), 1))


def inside_objects(
    positions: Tensor,  # [N, 3]
    sample: Tensor,  # [N]
    truth: GroundTruth,
    rule: str,
) -> Tensor:
    """Return the mask ``[N]`` of positions inside an object of their sample.

    Args:
        positions: ``[N, 3]`` in metres.
        sample: ``[N]`` int64, sample of each position.
        truth: the objects of the batch.
        rule: ``"rotated"`` tests oriented boxes; ``"doubled"`` boxes without their heading and of twice their size,
            as the code released for nuScenes does.

    Raises:
        ValueError: if the rule is unknown.
    """
    if rule not in BOX_RULES:
        raise ValueError(f"rule: must be one of {BOX_RULES}, got {rule!r}")
    boxes = _test_boxes(truth.boxes.tensor[:, :7], rule)
    inside = torch.zeros(len(positions), dtype=torch.bool, device=positions.device)
    for number in range(truth.batch_size):
        own = sample == number
        inside[own] = points_in_boxes(positions[own], boxes[truth.batch_index == number]) >= 0
    return inside


def _test_boxes(boxes: Tensor, rule: str) -> Tensor:
    """Return boxes that contain just the positions that a rule takes for inside."""
    if rule == "rotated":
        return boxes + boxes.new_tensor([0, 0, 0, 2 * MARGIN, 2 * MARGIN, 0, 0])
    return boxes * boxes.new_tensor([1, 1, 1, 2, 2, 2, 0])
