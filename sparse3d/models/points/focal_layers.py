"""Index work and loss of focal sparse convolution, on plain tensors and exact integer keys.

A voxel's importance and the probabilities of its 26 neighbours decide which cells become active:

    1. foreground   the share t of a sample's voxels that are most important, or those whose importance exceeds t
    2. growth       each foreground voxel proposes the neighbours whose probability is at least t
    3. weight       of a foreground voxel: the mean of 1 and the probabilities that were proposed for its own cell
    4. merging      new cells join the sites with features of zero; a proposal for an active cell changes no site

Neighbours are numbered by their offset (dz, dy, dx), ascending from (-1, -1, -1), without the centre.

Source: Focal Sparse Convolutional Networks (Chen et al., CVPR 2022), sections 3.1 and 3.2, as released: every focal
convolution has stride 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from sparse3d.structures import Grid
from sparse3d_ops import Segments, lookup, points_in_boxes, segment_sum
from sparse3d_ops.sparse import Sites, SparseTensor

from ..targets.ground_truth import GroundTruth

OFFSETS = tuple(offset for offset in product((-1, 0, 1), repeat=3) if any(offset))  # (dz, dy, dx)
MARGIN = 1e-5  # metres by which a box's footprint is enlarged on each side
BOX_RULES = ("rotated", "doubled")


@dataclass(frozen=True)
class Proposals:
    """Cells that foreground voxels propose; several may propose one cell, also an active one.

    Args:
        keys: ``[P]`` int64, packed keys of the cells.
        probabilities: ``[P]``, of each proposal.
    """

    keys: Tensor
    probabilities: Tensor


def choose_foreground(
    importance: Tensor,  # [N]
    sample: Tensor,  # [N]
    batch_size: int,
    threshold: float,
    top_k: bool,
) -> Tensor:
    """Return the mask ``[N]`` of foreground voxels.

    Args:
        importance: ``[N]`` in [0, 1].
        sample: ``[N]`` int64, sample of each voxel.
        batch_size: number of samples.
        threshold: t, the share of a sample's voxels under ``top_k`` (rounded down to a number), else a probability.
        top_k: take the most important ones, of equal ones the first.
    """
    if not top_k:
        return importance > threshold
    order = importance.detach().argsort(descending=True, stable=True)
    groups = Segments.from_index(sample[order], batch_size)
    rank = torch.empty_like(order)
    rank[order] = groups.rank()
    quota = (groups.counts.double() * threshold).long()
    return rank < quota[sample]


def propose(
    sites: Sites,
    foreground: Tensor,  # [N]
    probabilities: Tensor,  # [N, 26]
    threshold: float,
    skip_first_layer: bool,
) -> Proposals:
    """Return what the foreground voxels propose inside of the grid.

    Args:
        sites: N active voxels.
        foreground: ``[N]`` bool.
        probabilities: ``[N, 26]`` of each neighbour.
        threshold: least probability of a proposal.
        skip_first_layer: propose no cell with an index of 0 along any axis.
    """
    rows, taps = (foreground[:, None] & (probabilities.detach() >= threshold)).nonzero(as_tuple=True)
    offsets = torch.tensor(OFFSETS, device=rows.device)
    cells = sites.coords[rows, 1:] + offsets[taps]
    shape = torch.tensor(sites.volume, device=rows.device)
    inside = ((cells >= int(skip_first_layer)) & (cells < shape)).all(dim=1)
    rows, taps = rows[inside], taps[inside]
    _, height, width = sites.volume
    steps = offsets @ offsets.new_tensor([height * width, width, 1])  # between keys
    return Proposals(sites.keys[rows] + steps[taps], probabilities[rows, taps])


def foreground_weights(
    sites: Sites,
    foreground: Tensor,  # [N]
    proposals: Proposals,
) -> Tensor:
    """Return the weight of each voxel ``[N]``: step 3 for foreground, 1 for the others."""
    rows = lookup(sites.keys, proposals.keys)
    hit = (rows >= 0) & foreground[rows]
    groups = Segments.from_index(rows[hit], len(sites))
    total = 1 + segment_sum(proposals.probabilities[hit, None], groups)[:, 0]
    return total / (1 + groups.counts)


def grow(
    sites: Sites,
    features: Tensor,  # [N, C]
    proposals: Proposals,
) -> SparseTensor:
    """Return the features on the union of the sites and the proposed cells, zeros on new ones."""
    keys = torch.unique(torch.cat([sites.keys, proposals.keys]))
    if len(keys) == len(sites):
        return SparseTensor.on(sites, features)
    rows = torch.searchsorted(keys, sites.keys)
    grown = features.new_zeros(len(keys), features.shape[1]).index_copy(0, rows, features)
    return SparseTensor.on(Sites.from_keys(keys, sites.spatial_shape, sites.batch_size), grown)


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


def voxel_positions(
    sites: Sites,
    grid: Grid,
    stride: int,
) -> Tensor:
    """Return the lower corners ``[N, 3]`` float32 ``(x, y, z)`` in metres of voxels that are ``stride`` cells long.

    Corners, as published, not centres.
    """
    cells = sites.coords[:, [3, 2, 1]].float() * stride
    return cells * cells.new_tensor(grid.voxel_size) + cells.new_tensor(grid.lower)


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
