"""How far an exported model is from PyTorch: outputs element by element, boxes one to one.

    output    max |exported - PyTorch| <= tolerance * max(1, max |PyTorch|)
    boxes     an assignment of equal classes and least total distance; a pair agrees where its centres and its scores do

Outputs are compared in every precision; boxes are held to it in float32 only, where no decision should flip.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from sparse3d.structures import Detections, Grid

from .outputs import Named, Outputs


@dataclass(frozen=True)
class Tolerance:
    """What still counts as equal.

    Args:
        output: of a graph's outputs, relative to the largest magnitude in them (or to 1).
        center: distance of two boxes' centres in metres.
        score: difference of their scores.
    """

    output: float
    center: float
    score: float


# Half precision has a relative spacing of 1e-3; some sixty layers add up.
TOLERANCES = {"fp32": Tolerance(1e-4, 1e-3, 1e-3), "fp16": Tolerance(3e-2, 0.1, 3e-2)}


@dataclass(frozen=True)
class BoxParity:
    """How two sets of boxes compare.

    Args:
        pytorch: boxes of PyTorch.
        exported: boxes of the exported model.
        agreeing: pairs whose centres and scores agree.
        center: largest distance of the centres of these pairs in metres.
        score: largest difference of their scores.
    """

    pytorch: int
    exported: int
    agreeing: int
    center: float
    score: float

    @property
    def complete(self) -> bool:
        """Whether every box has its partner."""
        return self.pytorch == self.exported == self.agreeing


@dataclass(frozen=True)
class Parity:
    """How an exported model compares with PyTorch on one scan.

    Args:
        outputs: output -> largest difference relative to the largest magnitude (or to 1); NaN anywhere gives NaN.
        boxes: how the boxes compare.
        tolerance: what counts as equal.
    """

    outputs: dict[str, float]
    boxes: BoxParity
    tolerance: Tolerance

    @property
    def failures(self) -> list[str]:
        """What differs beyond the tolerance, in words; boxes only count in float32, where no score should flip."""
        limit = self.tolerance.output
        wrong = [f"{name} differs by {error:.2e}" for name, error in self.outputs.items() if not error <= limit]
        boxes = self.boxes
        if self.tolerance == TOLERANCES["fp32"] and not boxes.complete:
            wrong.append(
                f"{boxes.agreeing} of {boxes.pytorch} boxes of PyTorch and {boxes.exported} exported ones agree"
            )
        return wrong

    def to_json(self) -> dict[str, Any]:
        """Return the content of parity.json."""
        return {**asdict(self), "passed": not self.failures}


def compare(pytorch: Named, exported: Named, meaning: Outputs, grid: Grid, precision: str) -> Parity:
    """Compare the named outputs of a graph for one scan, and the boxes that they stand for.

    Args:
        pytorch: as PyTorch computed them.
        exported: as the exported model did.
        meaning: what aligns and decodes them.
        grid: the grid of the head's cells.
        precision: of the exported model.
    """
    tolerance = TOLERANCES[precision]
    pytorch, exported = meaning.align(pytorch, exported, tolerance.output)
    outputs = {name: relative_error(exported[name], each) for name, each in pytorch.items()}
    boxes = compare_boxes(meaning.decode(pytorch, grid), meaning.decode(exported, grid), tolerance)
    return Parity(outputs, boxes, tolerance)


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference relative to the largest magnitude, or to 1 where that is less."""
    if found.shape != expected.shape:
        return math.inf
    if not expected.numel():
        return 0.0
    found, expected = found.double(), expected.double()
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1.0))


def compare_boxes(pytorch: Detections, exported: Detections, tolerance: Tolerance) -> BoxParity:
    """Match boxes one to one, each pair of one class, and count the pairs that agree."""
    distance = torch.cdist(pytorch.boxes.centers.double(), exported.boxes.centers.double())
    difference = (pytorch.scores[:, None] - exported.scores[None]).abs().double()
    same = pytorch.labels[:, None] == exported.labels[None]
    agree = same & (distance <= tolerance.center) & (difference <= tolerance.score)
    cost = distance / tolerance.center + difference / tolerance.score
    rows, columns = linear_sum_assignment(torch.where(agree, cost, 1e6).numpy())
    pairs = torch.from_numpy(rows), torch.from_numpy(columns)
    kept = agree[pairs]
    return BoxParity(
        pytorch=len(pytorch),
        exported=len(exported),
        agreeing=int(kept.sum()),
        center=float(distance[pairs][kept].max()) if bool(kept.any()) else 0.0,
        score=float(difference[pairs][kept].max()) if bool(kept.any()) else 0.0,
    )
