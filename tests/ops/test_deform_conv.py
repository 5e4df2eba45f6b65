"""Deformable convolution: the kernel against its reference, and against what it must be in simple cases."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparse3d_ops import deform_conv2d
from sparse3d_ops.deform_conv import deform_conv2d_reference

DTYPE = torch.float64


def inputs(
    number: int = 2,
    channels: int = 2,
    groups: int = 1,
    deform_groups: int = 1,
    size: tuple[int, int] = (5, 6),
    kernel: int = 3,
    stride: int = 1,
    modulated: bool = True,
    seed: int = 0,
) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Tensors, of which some taps reach out of the image, and how to convolve."""
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=DTYPE)

    padding, taps = kernel // 2, kernel * kernel
    out = [(side + 2 * padding - kernel) // stride + 1 for side in size]
    channels *= groups * deform_groups
    tensors = dict(
        x=rand(number, channels, *size),
        offsets=2 * rand(number, 2 * deform_groups * taps, *out),
        weight=rand(2 * groups, channels // groups, kernel, kernel),
        bias=rand(2 * groups),
    )
    if modulated:
        tensors["mask"] = rand(number, deform_groups * taps, *out)
    return tensors, dict(stride=stride, padding=padding, groups=groups)


def with_gradients(function, tensors: dict[str, Tensor], how: dict[str, int]) -> list[Tensor]:
    leaves = {name: each.clone().requires_grad_() for name, each in tensors.items()}
    out = function(**leaves, **how)
    share = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=DTYPE)
    return [out.detach(), *torch.autograd.grad((out * share).sum(), list(leaves.values()))]


@settings(deadline=None, max_examples=25, derandomize=True)
@given(
    st.fixed_dictionaries(
        dict(
            number=st.integers(0, 3),
            groups=st.sampled_from([1, 2]),
            deform_groups=st.sampled_from([1, 2]),
            size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
            kernel=st.sampled_from([1, 3]),
            stride=st.integers(1, 2),
            modulated=st.booleans(),
            seed=st.integers(0, 1000),
        )
    )
)
def test_equals_the_reference(shape: dict) -> None:
    ours, theirs = (with_gradients(each, *inputs(**shape)) for each in (deform_conv2d, deform_conv2d_reference))
    for got, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(got, expected, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("function", [deform_conv2d, deform_conv2d_reference])
def test_without_displacement_it_is_a_convolution(function) -> None:
    tensors, how = inputs(groups=2, stride=2, modulated=False)
    tensors["offsets"].zero_()
    expected = F.conv2d(tensors["x"], tensors["weight"], tensors["bias"], **how)
    torch.testing.assert_close(function(**tensors, **how), expected)


def test_whole_displacements_move_the_image() -> None:
    tensors, how = inputs(kernel=1, modulated=False)
    tensors["offsets"][:, 0], tensors["offsets"][:, 1] = 1, -2  # one row down, two columns left
    moved = F.pad(tensors["x"], (2, 0, 0, 1))[:, :, 1:, :-2]
    expected = F.conv2d(moved, tensors["weight"], tensors["bias"])
    torch.testing.assert_close(deform_conv2d(**tensors, **how), expected)


def test_threads_change_nothing() -> None:
    tensors, how = inputs(number=3, channels=16, size=(24, 20))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = with_gradients(deform_conv2d, tensors, how)
        torch.set_num_threads(3)
        three = with_gradients(deform_conv2d, tensors, how)
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(one, three, atol=1e-12, rtol=1e-12)  # the products, not the reads, may be reordered


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_types_are_gathered_in_float32(dtype: torch.dtype) -> None:
    tensors, how = inputs()
    narrow = {name: each.to(dtype) for name, each in tensors.items()}
    wide = {name: each.float() for name, each in narrow.items()}
    out = deform_conv2d(**narrow, **how)
    assert out.dtype == dtype
    torch.testing.assert_close(out.float(), deform_conv2d(**wide, **how), atol=0.1, rtol=0.02)


def test_nan_is_not_hidden() -> None:
    tensors, how = inputs()
    tensors["offsets"][0, 0, 2, 2] = torch.nan
    out = deform_conv2d(**tensors, **how)
    assert bool(out[0, :, 2, 2].isnan().all()) and int(out.isnan().sum()) == out.shape[1]


def test_what_does_not_fit_is_named() -> None:
    tensors, how = inputs()
    with pytest.raises(ValueError, match=r"offsets: expected \[2, 18, 5, 6\]"):
        deform_conv2d(**{**tensors, "offsets": tensors["offsets"][..., :4]}, **how)
    with pytest.raises(ValueError, match=r"mask: expected \[2, 9, 5, 6\]"):
        deform_conv2d(**{**tensors, "mask": tensors["mask"][:, :8]}, **how)
    with pytest.raises(ValueError, match="2 channels are not divisible by 3 groups"):
        deform_conv2d(**tensors, **{**how, "groups": 3})
