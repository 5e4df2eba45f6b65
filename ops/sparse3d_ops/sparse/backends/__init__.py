"""Who computes: the choice of a backend, by device, by what is installed, or by the user.

    with use_backend("reference"):          or          SPARSE3D_BACKEND=reference python ...
        model(batch)

``auto`` takes ``numba`` on a CPU; on CUDA the first of ``spconv`` and ``spconv_triton`` that is installed; and
``reference``, which is plain torch, where none is and on every other device. Our own GPU kernels, ``triton``, are
chosen by name until they have been measured. A backend that cannot work where it is asked to is an error, never
replaced in silence.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib import import_module

import torch

from .reference import Reference

VARIABLE = "SPARSE3D_BACKEND"
CLASSES = {
    "reference": "reference.Reference",
    "numba": "numba.Numba",
    "triton": "triton.Triton",
    "spconv": "spconv.Spconv",
    "spconv_triton": "spconv.SpconvTriton",
}
ON_CUDA = ("spconv", "spconv_triton")  # in this order

_chosen: ContextVar[str | None] = ContextVar("sparse3d_backend", default=None)


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Let sparse convolutions and image sampling in a ``with`` block run on one backend, whatever the variable says.

    Args:
        name: ``auto`` or one of the backends.

    Raises:
        ValueError: if the name is unknown, the backend is not installed, or, once it meets a tensor, cannot run on
            that tensor's device.
    """
    _check_name(name, "use_backend")
    token = _chosen.set(name)
    try:
        yield
    finally:
        _chosen.reset(token)


def backend_for(device: torch.device) -> Reference:
    """Return the backend that computes on a device.

    Raises:
        ValueError: if the chosen backend is unknown, not installed, or does not run on the device.
    """
    name = _chosen.get() or os.environ.get(VARIABLE) or "auto"
    _check_name(name, VARIABLE)
    backend = _load(_automatic(device.type) if name == "auto" else name)
    reason = backend.why_not(device)
    if reason:
        raise ValueError(f"backend {backend.name!r} cannot compute on {device}: {reason}; choose another, or 'auto'")
    return backend


def _automatic(device_type: str) -> str:
    if device_type == "cpu":
        return "numba"
    if device_type == "cuda":
        for name in ON_CUDA:
            if _load(name).why_not(torch.device("cuda")) is None:
                return name
    return "reference"


def _check_name(name: str, source: str) -> None:
    if name != "auto" and name not in CLASSES:
        raise ValueError(f"{source}: unknown backend {name!r}; known are auto, {', '.join(CLASSES)}")


@cache
def _load(name: str) -> Reference:
    module, backend = CLASSES[name].split(".")
    return getattr(import_module(f".{module}", __name__), backend)()
