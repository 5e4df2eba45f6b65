"""RoIAlign: the kernel against its reference, by hand, and against torchvision's where it is installed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparse3d_ops import roi_align
from sparse3d_ops.roi_align import roi_align_reference


def inputs(
    number: int = 2,
    channels: int = 3,
    size: tuple[int, int] = (7, 9),
    boxes: int = 5,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """A map, and boxes of which some lie out of the image and some have no extent (in pixels of twice the map)."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(number, channels, *size, generator=generator, dtype=dtype)
    corners = torch.rand(boxes, 2, 2, generator=generator, dtype=dtype) * torch.tensor(size[::-1]) * 3 - 4
    if boxes:
        corners[0, 1] = corners[0, 0]
    index = torch.randint(number, (boxes,), generator=generator)
    return features, corners.sort(dim=1).values.flatten(1), index


def with_gradient(function, features: Tensor, boxes: Tensor, index: Tensor, *how) -> list[Tensor]:
    leaf = features.clone().requires_grad_()
    out = function(leaf, boxes, index, *how)
    share = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(out.dtype)
    return [out.detach(), torch.autograd.grad((out * share).sum(), leaf)[0]]


@settings(deadline=None, max_examples=25, derandomize=True)
@given(
    shape=st.fixed_dictionaries(
        dict(
            number=st.integers(1, 3),
            channels=st.integers(1, 5),
            size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
            boxes=st.integers(0, 6),
            seed=st.integers(0, 1000),
        )
    ),
    output_size=st.integers(1, 4),
    sampling_ratio=st.integers(0, 2),
)
def test_equals_the_reference(shape: dict, output_size: int, sampling_ratio: int) -> None:
    how = (output_size, 0.5, sampling_ratio)
    ours, theirs = (with_gradient(each, *inputs(**shape), *how) for each in (roi_align, roi_align_reference))
    for got, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(got, expected, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("function", [roi_align, roi_align_reference])
def test_by_hand(function) -> None:
    columns = torch.arange(6.0).expand(1, 1, 4, 6)  # a pixel's value is its column, whose middle lies at column + 0.5
    boxes = torch.tensor([[1.0, 1.0, 5.0, 3.0], [-9.0, 0.0, -3.0, 4.0], [2.0, 2.0, 2.0, 2.0], [4.0, 0.0, 8.0, 4.0]])
    out = function(columns, boxes, torch.zeros(4).long(), 2)
    middles_of_cells = torch.tensor([1.5, 3.5]) - 0.0
    torch.testing.assert_close(out[0, 0], middles_of_cells.expand(2, 2))
    assert not out[1].any()  # out of the image
    assert not out[2].any()  # without extent
    # Samples at 4, 5 | 6, 7: the border holds for one pixel beyond the image, the last one sees nothing.
    torch.testing.assert_close(out[3, 0], torch.tensor([4.5, 2.5]).expand(2, 2))


@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_equals_torchvision(sampling_ratio: int) -> None:
    torchvision = pytest.importorskip("torchvision")
    features, boxes, index = inputs(boxes=20, dtype=torch.float32)
    rois = torch.cat([index[:, None].float(), boxes], dim=1)
    theirs = torchvision.ops.roi_align(features, rois, 3, 0.5, sampling_ratio or -1, aligned=True)
    torch.testing.assert_close(roi_align(features, boxes, index, 3, 0.5, sampling_ratio), theirs)


def test_memory_order_and_threads_change_nothing() -> None:
    features, boxes, index = inputs(channels=16, boxes=300, size=(20, 30), dtype=torch.float32)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = with_gradient(roi_align, features, boxes, index, 7)
        torch.set_num_threads(3)
        three = with_gradient(roi_align, features.to(memory_format=torch.channels_last), boxes, index, 7)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(*pair) for pair in zip(one, three, strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_types_are_averaged_in_float32(dtype: torch.dtype) -> None:
    features, boxes, index = inputs(dtype=torch.float32)
    features = features.to(dtype)
    out = roi_align(features, boxes, index, 3)
    assert out.dtype == dtype
    assert torch.equal(out, roi_align(features.float(), boxes, index, 3).to(dtype))


def test_what_does_not_fit_is_named() -> None:
    features, boxes, index = inputs()
    with pytest.raises(ValueError, match=r"boxes: expected \[\*, 4\]"):
        roi_align(features, boxes[:, :3], index, 7)
    with pytest.raises(ValueError, match=r"index: entries must lie in \[0, 2\)"):
        roi_align(features, boxes, index + 2, 7)
    with pytest.raises(ValueError, match="boxes: 1 of 5 rows hold NaN"):
        roi_align(features, boxes.index_fill(0, torch.tensor([3]), torch.nan), index, 7)
