"""The growth of focal sparse convolution: which cells become active, on plain tensors and exact integer keys.

A voxel's importance and the probabilities of its 26 neighbours decide:

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

from ..coords import lookup
from ..segment import Segments, segment_sum
from .sites import Sites
from .tensor import SparseTensor

OFFSETS = tuple(offset for offset in product((-1, 0, 1), repeat=3) if any(offset))  # (dz, dy, dx)


@dataclass(frozen=True)
class FocalGrowth:
    """How sites grow around foreground. The defaults are those of the code released for KITTI and Waymo.

    Args:
        threshold: t, for voxels and for neighbours.
        top_k: foreground is the share t of most important voxels, rather than importances above t.
        scale_by_importance: multiply all features by their voxel's importance.
        weigh_foreground: multiply foreground by the mean probability of its cell.
        skip_first_layer: grow into no cell with an index of 0 along any axis, as published.
    """

    threshold: float = 0.5
    top_k: bool = True
    scale_by_importance: bool = False
    weigh_foreground: bool = True
    skip_first_layer: bool = True

    def __call__(self, x: SparseTensor, scores: Tensor) -> SparseTensor:
        """Return the features, scaled as the options say, on the sites and what grew around foreground.

        Args:
            x: N voxels.
            scores: ``[N, 27]`` in [0, 1]: probabilities of the 26 neighbours, importance.
        """
        probabilities, importance = scores[:, :-1], scores[:, -1]
        foreground = self.foreground(x, importance)
        proposals = propose(x.sites, foreground, probabilities, self.threshold, self.skip_first_layer)
        features = x.features
        if self.scale_by_importance:
            features = features * importance[:, None].to(features.dtype)
        if self.weigh_foreground:
            weights = foreground_weights(x.sites, foreground, proposals)
            features = features * weights[:, None].to(features.dtype)
        return grow(x.sites, features, proposals)

    def foreground(self, x: SparseTensor, importance: Tensor) -> Tensor:
        """Return the mask ``[N]`` of foreground among N voxels of importance ``[N]``."""
        return choose_foreground(importance, x.indices[:, 0].long(), x.batch_size, self.threshold, self.top_k)


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
