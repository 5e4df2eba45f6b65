"""The checks at the public doors: each names the tensor, what was expected and what came."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

INTEGERS = (torch.int32, torch.int64)
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_tensor(
    name: str,
    tensor: Tensor,
    shape: Sequence[int | None],  # None: any extent
    dtypes: Sequence[torch.dtype],
) -> None:
    """Raise ``ValueError`` unless ``tensor`` has one of the dtypes and the shape."""
    fits = tensor.ndim == len(shape) and all(
        want is None or want == got for want, got in zip(shape, tensor.shape, strict=True)
    )
    if not fits or tensor.dtype not in dtypes:
        wanted = ", ".join("*" if extent is None else str(extent) for extent in shape)
        kinds = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise ValueError(f"{name}: expected [{wanted}] {kinds}, got {describe(tensor)}")


def check_columns(name: str, tensor: Tensor, at_least: int) -> None:
    """Raise ``ValueError`` unless ``tensor`` is a floating-point matrix with at least so many columns."""
    if tensor.ndim != 2 or tensor.shape[1] < at_least or tensor.dtype not in FLOATS:
        raise ValueError(f"{name}: expected [N, {at_least} or more] floating point, got {describe(tensor)}")


def check_finite(name: str, tensor: Tensor) -> None:
    """Raise ``ValueError`` if a row of ``tensor`` holds NaN or infinity, and say how many rows do."""
    if bool(torch.isfinite(tensor.sum())):
        return  # a sum hides neither; it may overflow, so what follows decides
    finite = torch.isfinite(tensor)
    if not bool(finite.all()):
        bad = int((~finite.reshape(len(tensor), -1).all(dim=1)).sum())
        raise ValueError(f"{name}: {bad} of {len(tensor)} rows hold NaN or infinity")


def check_index(name: str, index: Tensor, size: int) -> None:
    """Raise ``ValueError`` unless all entries of the integer tensor ``index`` lie in ``[0, size)``."""
    if index.numel() == 0:
        return
    low, high = (int(bound) for bound in torch.aminmax(index))
    if low < 0 or high >= size:
        raise ValueError(f"{name}: entries must lie in [0, {size}), got [{low}, {high}]")


def check_count(name: str, value: int, at_least: int) -> None:
    """Raise ``ValueError`` unless ``value`` is at least ``at_least``."""
    if value < at_least:
        raise ValueError(f"{name}: must be at least {at_least}, got {value}")


def check_same_device(**tensors: Tensor | None) -> None:
    """Raise ``ValueError`` unless all the tensors live on one device."""
    devices = {name: tensor.device for name, tensor in tensors.items() if tensor is not None}
    if len(set(devices.values())) > 1:
        found = ", ".join(f"{name} on {device}" for name, device in devices.items())
        raise ValueError(f"expected tensors on one device, got {found}")


def describe(tensor: Tensor) -> str:
    """Return shape and dtype of a tensor in words."""
    return f"{list(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
