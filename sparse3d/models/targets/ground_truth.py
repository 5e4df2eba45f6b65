"""The objects of a batch, as heads need them to make targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sparse3d.structures import Boxes3D, Sample


@dataclass(frozen=True)
class GroundTruth:
    """The objects of a batch, sample after sample.

    Args:
        boxes: N boxes with velocities (NaN where unknown), float32.
        labels: ``[N]`` int64 in ``[0, K)``.
        batch_index: ``[N]`` int64, ascending.
        batch_size: B; samples may be without objects.
    """

    boxes: Boxes3D
    labels: Tensor
    batch_index: Tensor
    batch_size: int

    def __getitem__(self, rows: Tensor) -> GroundTruth:
        """Select objects by a mask or an index."""
        return GroundTruth(self.boxes[rows], self.labels[rows], self.batch_index[rows], self.batch_size)

    def taken_for_still(self) -> GroundTruth:
        """Return the objects with a velocity of 0 where theirs is not known."""
        boxes = self.boxes.tensor.clone()
        boxes[:, 7:] = boxes[:, 7:].where(boxes[:, 7:].isfinite(), 0)
        return replace(self, boxes=Boxes3D(boxes))

    @classmethod
    def gather(cls, samples: Sequence[Sample], num_classes: int | None = None) -> GroundTruth:
        """Return the objects of samples with ``gt``; labels of -1 (no class) are left out.

        Args:
            samples: B samples with ``gt``.
            num_classes: K; None where classes do not matter.

        Raises:
            ValueError: if a sample has no ``gt``, or a label exceeds the classes.
        """
        without = [number for number, sample in enumerate(samples) if "gt" not in sample]
        if without:
            raise ValueError(f"loss: samples {without} of the batch have no 'gt'")
        boxes = torch.cat([torch.cat([s.gt.boxes.tensor[:, :7], s.gt.boxes.velocities], dim=1) for s in samples])
        labels = torch.cat([sample.gt.labels for sample in samples])
        if num_classes is not None and len(labels) and int(labels.max()) >= num_classes:
            raise ValueError(f"gt.labels: expected less than {num_classes} classes, got {int(labels.max())}")
        counts = torch.tensor([len(sample.gt.labels) for sample in samples], device=labels.device)
        objects = cls(Boxes3D(boxes.float()), labels, torch.repeat_interleave(counts), len(samples))
        return objects[labels >= 0]
