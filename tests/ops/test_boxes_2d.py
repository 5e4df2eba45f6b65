"""Boxes in images: IoU by hand, suppression against its reference and its definition."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparse3d_ops import giou_2d, iou_2d, nms_2d
from sparse3d_ops.boxes_2d import giou_2d_paired, nms_2d_reference


def boxes_of(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Boxes on whole pixels and few scores, so that there are ties and equal boxes."""
    generator = torch.Generator().manual_seed(seed)
    low = torch.randint(6, (count, 2), generator=generator)
    size = torch.randint(6, (count, 2), generator=generator)
    scores = torch.randint(5, (count,), generator=generator) / 5
    return torch.cat([low, low + size], dim=1).float(), scores


def test_iou_by_hand() -> None:
    a = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 0.0, 5.0]])
    b = torch.tensor([[1.0, 0.0, 3.0, 2.0], [0.0, 0.0, 2.0, 2.0], [4.0, 0.0, 6.0, 2.0], [0.0, 0.0, 0.0, 5.0]])
    torch.testing.assert_close(iou_2d(a, b), torch.tensor([[1 / 3, 1, 0, 0], [0, 0, 0, 0]]))
    torch.testing.assert_close(giou_2d(a[:1], b[:3]), torch.tensor([[1 / 3, 1, -1 / 3]]))
    assert torch.equal(giou_2d_paired(b, b.flip(0)), giou_2d(b, b.flip(0)).diagonal())


@settings(deadline=None, max_examples=50, derandomize=True)
@given(
    count=st.integers(0, 40),
    threshold=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    grouped=st.booleans(),
    max_output=st.sampled_from([None, 0, 3]),
    seed=st.integers(0, 1000),
)
def test_suppression(count: int, threshold: float, grouped: bool, max_output: int | None, seed: int) -> None:
    boxes, scores = boxes_of(count, seed)
    generator = torch.Generator().manual_seed(seed)
    groups = {}
    if grouped:
        groups = {name: torch.randint(3, (count,), generator=generator) * 7 - 3 for name in ("labels", "batch_index")}
    kept = nms_2d(boxes, scores, threshold, max_output=max_output, **groups)
    assert torch.equal(kept, nms_2d_reference(boxes, scores, threshold, max_output=max_output, **groups))
    assert kept.tolist() == by_definition(boxes, scores, threshold, max_output, **groups)


def by_definition(
    boxes: Tensor,
    scores: Tensor,
    threshold: float,
    max_output: int | None,
    labels: Tensor | None = None,
    batch_index: Tensor | None = None,
) -> list[int]:
    ious = iou_2d(boxes.double(), boxes.double())
    kept: list[int] = []
    for row in sorted(range(len(boxes)), key=lambda row: (-scores[row].item(), row)):
        rivals = [
            other
            for other in kept
            if (labels is None or labels[other] == labels[row])
            and (batch_index is None or batch_index[other] == batch_index[row])
        ]
        if all(ious[row, other] <= threshold for other in rivals):
            kept.append(row)
    if max_output is None:
        return kept
    image = [0] * len(boxes) if batch_index is None else batch_index.tolist()
    seen: dict[int, int] = {}
    limited = []
    for row in kept:
        seen[image[row]] = seen.get(image[row], 0) + 1
        if seen[image[row]] <= max_output:
            limited.append(row)
    return limited


def test_equals_torchvision() -> None:
    torchvision = pytest.importorskip("torchvision")
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(300, 2, generator=generator) * 50
    boxes = torch.cat([low, low + torch.rand(300, 2, generator=generator) * 20], dim=1)
    scores = torch.rand(300, generator=generator)
    assert torch.equal(nms_2d(boxes, scores, 0.5), torchvision.ops.nms(boxes, scores, 0.5))


def test_what_does_not_fit_is_named() -> None:
    boxes, scores = boxes_of(4)
    with pytest.raises(ValueError, match=r"boxes: expected \[\*, 4\]"):
        nms_2d(boxes[:, :3], scores, 0.5)
    with pytest.raises(ValueError, match="threshold: expected an IoU"):
        nms_2d(boxes, scores, 50)
    with pytest.raises(ValueError, match="scores: 1 of 4 rows hold NaN"):
        nms_2d(boxes, scores.index_fill(0, torch.tensor([2]), torch.nan), 0.5)
