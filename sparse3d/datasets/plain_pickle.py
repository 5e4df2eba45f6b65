"""Reading pickles that hold data only: containers, numbers, text, bytes, None, and numpy arrays and scalars.

A pickle is a program. This reader lets it call nothing but the constructors below, which are ours: numpy's own would
let a hostile file declare an array of objects whose bytes are taken for pointers. Arrays are numeric or text.
"""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

PLAIN_DTYPE = re.compile(r"(b1|[iu][1248]|f[248]|c(8|16)|[US]\d+)")
BYTE_ORDERS = "<>|="


class UnsafePickleError(ValueError):
    """A pickle asks for something other than plain data."""


def load_plain_pickle(path: str | os.PathLike) -> Any:
    """Return the contents of a pickle that holds data only.

    Raises:
        FileNotFoundError: if there is no such file.
        UnsafePickleError: if it names a class or function that plain data does not need; the message names it.
        ValueError: if it is damaged.
    """
    with Path(path).open("rb") as file:
        try:
            return _PlainUnpickler(file).load()
        except UnsafePickleError as error:
            raise UnsafePickleError(f"{path}: {error}") from error
        except Exception as error:  # a damaged or hostile stream can raise anything
            raise ValueError(f"{path}: no readable pickle of plain data: {type(error).__name__}: {error}") from error


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in for a global that plain data needs."""
        if (module, name) not in STAND_INS:
            raise UnsafePickleError(f"refused to load {module}.{name}: only plain data and numpy arrays are read")
        return STAND_INS[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise UnsafePickleError(f"refused to load the external object {pid!r}: only plain data is read")


class _StandIn:
    """A callable that a pickle cannot change."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise UnsafePickleError("refused to change a function")


class _Dtype:
    """The dtype of an array on its way; only its name and byte order are taken from the pickle."""

    __slots__ = ("value",)

    def __init__(self, name: str, align: bool = False, copy: bool = False) -> None:
        if not isinstance(name, str) or not PLAIN_DTYPE.fullmatch(name):
            raise UnsafePickleError(f"refused to load numpy dtype {name!r}: only numbers and text are read")
        self.value = np.dtype(name)

    def __setstate__(self, state: tuple) -> None:
        order, subarray, names, fields = state[1:5]
        if order not in BYTE_ORDERS or (subarray, names, fields) != (None, None, None):
            raise UnsafePickleError("refused to load a numpy dtype with fields: only numbers and text are read")
        self.value = self.value.newbyteorder(order)


class _Array(np.ndarray):
    """An array on its way: numpy fills it, from a dtype that we made."""

    def __setstate__(self, state: tuple) -> None:
        version, shape, dtype, is_fortran, data = state
        if not isinstance(dtype, _Dtype) or not isinstance(data, bytes):
            raise UnsafePickleError("refused to load a numpy array of objects")
        super().__setstate__((version, shape, dtype.value, is_fortran, data))


def _new_array(kind: object, shape: tuple, code: bytes) -> np.ndarray:
    return np.ndarray.__new__(_Array, (0,))


def _new_scalar(dtype: _Dtype, data: bytes) -> np.generic:
    return np.frombuffer(data, dtype=dtype.value, count=1)[0]


def _new_array_from_buffer(
    data: bytes, dtype: _Dtype, shape: tuple, order: Literal["C", "F"], *axes: None
) -> np.ndarray:
    if any(axis is not None for axis in axes):
        raise ValueError("a numpy array with permuted axes")
    return np.frombuffer(data, dtype=dtype.value).reshape(shape, order=order)


def _encode(text: str, encoding: str) -> bytes:
    """Return bytes as protocols before 3 store them: as text, one character a byte."""
    if encoding not in ("latin1", "latin-1"):
        raise UnsafePickleError(f"refused to load _codecs.encode with encoding {encoding!r}")
    return text.encode("latin-1")


STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): object(),  # only ever an argument of `_reconstruct`
    ("numpy", "dtype"): _StandIn(_Dtype),
    ("_codecs", "encode"): _StandIn(_encode),
    **{(module, "bytes"): _StandIn(lambda: b"") for module in ("builtins", "__builtin__")},
    **{(module, "set"): set for module in ("builtins", "__builtin__")},
    **{(module, "frozenset"): frozenset for module in ("builtins", "__builtin__")},
    # numpy 2 renamed `core` to `_core`
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _StandIn(_new_array) for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _StandIn(_new_scalar) for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _StandIn(_new_array_from_buffer) for core in ("core", "_core")},
}
