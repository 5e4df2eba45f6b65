"""Query denoising: objects with noise as additional queries in training, whose answers are known.

    centre += U(-1, 1) · size / 2 · scale;      with a probability, the label becomes a random class

Each sample's objects are repeated in groups. Groups do not see each other, and the queries that are matched see none
of them; they see those.

Source: DN-DETR (Li et al., CVPR 2022), sections 4.2 and 4.3, as in SparseBEV's published code.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .ground_truth import GroundTruth


@dataclass(frozen=True)
class Noise:
    """Random numbers for R groups of N objects, group after group.

    Args:
        centers: ``[R N, 3]`` in ``[-1, 1]``, in parts of half a box.
        changes: ``[R N]`` bool, where the label is changed.
        labels: ``[R N]`` int64, what it is changed to.
    """

    centers: Tensor
    changes: Tensor
    labels: Tensor

    @classmethod
    def draw(cls, count: int, num_classes: int, probability: float, device: torch.device) -> Noise:
        """Draw noise for ``count`` objects from torch's own generator."""
        return cls(
            torch.rand(count, 3, device=device) * 2 - 1,
            torch.rand(count, device=device) < probability,
            torch.randint(num_classes, (count,), device=device),
        )


@dataclass(frozen=True)
class DenoisingQueries:
    """Queries with noise; the slots of a sample that no object fills are empty.

    Args:
        boxes: ``[M, 9]`` with noise.
        labels: ``[M]`` int64, with noise.
        samples: ``[M]`` int64, sample of each.
        slots: ``[M]`` int64, its place among the D slots of that sample.
        objects: ``[M]`` int64, the row of the ground truth that it came from.
        num_slots: D, of every sample; D = R · the largest number of objects in a sample.
        num_groups: R.
    """

    boxes: Tensor
    labels: Tensor
    samples: Tensor
    slots: Tensor
    objects: Tensor
    num_slots: int
    num_groups: int

    @classmethod
    def make(cls, truth: GroundTruth, num_groups: int, noise: Noise, scale: float) -> DenoisingQueries:
        """Repeat the objects ``num_groups`` times and add noise; centres move by up to ``scale`` of half a box."""
        count = len(truth.labels)
        counts = torch.bincount(truth.batch_index, minlength=truth.batch_size)
        place = torch.arange(count, device=counts.device) - (counts.cumsum(0) - counts)[truth.batch_index]
        most = int(counts.max())
        objects = torch.arange(count, device=counts.device).repeat(num_groups)
        group = torch.arange(num_groups, device=counts.device).repeat_interleave(count)
        boxes = truth.boxes.tensor[objects].clone()
        boxes[:, :3] += noise.centers * boxes[:, 3:6] / 2 * scale
        boxes[:, 7:] = boxes[:, 7:].where(boxes[:, 7:].isfinite(), 0)  # what has an unknown velocity starts still
        labels = truth.labels[objects].where(~noise.changes, noise.labels)
        slots = place[objects] + group * most
        return cls(boxes, labels, truth.batch_index[objects], slots, objects, most * num_groups, num_groups)

    def fill(self, values: Tensor, batch_size: int) -> Tensor:
        """Lay values ``[M, X]`` out as ``[B, D, X]``, zero in empty slots."""
        table = values.new_zeros(batch_size, self.num_slots, values.shape[1])
        return table.index_put((self.samples, self.slots), values)

    def hidden(self, num_queries: int) -> Tensor:
        """Return ``[D + Q, D + Q]`` bool: True where the row must not see the column; the D slots come first."""
        total = self.num_slots + num_queries
        group = torch.arange(total, device=self.boxes.device) // max(self.num_slots // max(self.num_groups, 1), 1)
        group[self.num_slots :] = -1  # the matched queries
        return (group[:, None] != group) & (group >= 0)
