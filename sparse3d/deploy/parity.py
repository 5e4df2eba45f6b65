"""How far an exported model is from PyTorch: outputs element by element, boxes one to one.

    output    max |exported - PyTorch| <= tolerance * max(1, max |PyTorch|)
    boxes     an assignment of equal classes and least total distance; a pair agrees where its centres and its scores do

Each graph is compared on the inputs that PyTorch gave to it, and so are the boxes of the last one. The whole, points
in, boxes out, is compared with the detector itself: there, a query at the end of the list or a voxel that just fails to
grow may be decided the other way by the last bit, so a few boxes may differ.

Outputs are held to it in float32 and half precision; boxes in float32, where no decision should flip, and in eight
bits, where most of them have to survive what the outputs lose elsewhere. Both are reported in all precisions.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from sparse3d.structures import Detections

from .named import Named

MIN_AGREEING = 0.95  # of the boxes of the whole, in float32
MIN_AGREEING_INT8 = 0.5  # of the boxes of the last graph; fewer are no result, how many will do is the user's choice


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
TOLERANCES = {
    "fp32": Tolerance(1e-4, 1e-3, 1e-3),
    "fp16": Tolerance(3e-2, 0.1, 3e-2),
    "int8": Tolerance(2.0, 0.2, 0.1),  # outputs: sign and all may be wrong somewhere, boxes tell
}


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

    def reaches(self, share: float) -> bool:
        """Whether such a share of the boxes have their partners."""
        return self.agreeing >= share * max(self.pytorch, self.exported)

    def __str__(self) -> str:
        return f"{self.agreeing} of {self.pytorch} boxes of PyTorch and {self.exported} exported ones agree"


@dataclass(frozen=True)
class Parity:
    """How an exported model compares with PyTorch on one scan.

    Args:
        inner: output of a graph that another follows -> largest difference relative to the largest magnitude (or to 1);
            NaN anywhere gives NaN.
        outputs: likewise, of the last graph.
        boxes: how the boxes of the last graph compare, on PyTorch's inputs.
        whole: how the boxes of the whole compare with the detector's.
        tolerance: what counts as equal.
    """

    inner: dict[str, float]
    outputs: dict[str, float]
    boxes: BoxParity
    whole: BoxParity
    tolerance: Tolerance

    @property
    def failures(self) -> list[str]:
        """What differs beyond the tolerance, in words; NaN always does."""
        limit, outputs = self.tolerance.output, {**self.inner, **self.outputs}
        wrong = [f"{name} differs by {error:.2e}" for name, error in outputs.items() if not error <= limit]
        if self.tolerance == TOLERANCES["fp32"]:
            wrong += [] if self.boxes.complete else [str(self.boxes)]
            wrong += [] if self.whole.reaches(MIN_AGREEING) else [f"points in, boxes out: {self.whole}"]
        if self.tolerance == TOLERANCES["int8"] and not self.boxes.reaches(MIN_AGREEING_INT8):
            wrong.append(str(self.boxes))
        return wrong

    def to_json(self) -> dict[str, Any]:
        """Return the content of parity.json."""
        return {**asdict(self), "passed": not self.failures}


def compare_outputs(expected: Named, found: Named, prefix: str = "") -> dict[str, float]:
    """Return the relative error of each output, under its name with a prefix."""
    return {prefix + name: relative_error(found[name], each) for name, each in expected.items()}


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
