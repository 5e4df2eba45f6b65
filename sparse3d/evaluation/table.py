"""Tables of objects of many samples: columns that are checked once, and are taken and joined together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypeVar

import numpy as np

ROWS_IN_MESSAGE = 8

AnyTable = TypeVar("AnyTable", bound="Table")


@dataclass(frozen=True, eq=False)
class Table:
    """Objects of many samples, one row an object.

    A subclass adds columns and names the dtype and the shape of a row of every column in ``COLUMNS``.

    Args:
        sample: ``[N]`` int64, position of the sample.

    Raises:
        ValueError: if a column has another shape, or numbers where whole numbers are expected.
    """

    COLUMNS: ClassVar[Mapping[str, tuple[tuple[int, ...], type]]] = {"sample": ((), np.int64)}

    sample: np.ndarray

    def __post_init__(self) -> None:
        """Bring every column to its dtype and check its shape."""
        rows = len(self.sample)
        for column in fields(self):
            name = f"{type(self).__name__}.{column.name}"
            array = _column(name, getattr(self, column.name), rows, *self.COLUMNS[column.name])
            object.__setattr__(self, column.name, array)

    def take(self: AnyTable, rows: np.ndarray) -> AnyTable:
        """Return the rows that a mask or an array of indices selects."""
        return type(self)(**{column.name: getattr(self, column.name)[rows] for column in fields(self)})

    @classmethod
    def concatenate(cls: type[AnyTable], tables: Sequence[AnyTable]) -> AnyTable:
        """Join tables of one sample each: table ``i`` becomes sample ``i``."""
        columns = {column.name: [getattr(table, column.name) for table in tables] for column in fields(cls)}
        columns["sample"] = [np.full(len(table), index) for index, table in enumerate(tables)]
        return cls(**{name: np.concatenate([cls._no_rows(name), *arrays]) for name, arrays in columns.items()})

    @classmethod
    def empty(cls: type[AnyTable]) -> AnyTable:
        """Return a table without rows."""
        return cls.concatenate([])

    @classmethod
    def _no_rows(cls, name: str) -> np.ndarray:
        tail, dtype = cls.COLUMNS[name]
        return np.zeros((0, *tail), dtype)

    def __len__(self) -> int:
        return len(self.sample)


def reject(wrong: np.ndarray, name: str, problem: str, of: str = "row") -> None:
    """Raise a ``ValueError`` that lists where ``wrong`` ``[N]`` is true, if it is anywhere."""
    rows = np.flatnonzero(wrong)
    if len(rows):
        listed = ", ".join(map(str, rows[:ROWS_IN_MESSAGE])) + (", ..." if len(rows) > ROWS_IN_MESSAGE else "")
        raise ValueError(f"{name}: {problem} in {of} {listed} ({len(rows)} of {len(wrong)})")


def outside(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return where values ``[N]`` are not in ``[low, high)``."""
    return ~((values >= low) & (values < high))


def not_finite(values: np.ndarray) -> np.ndarray:
    """Return which rows of ``[N, ...]`` hold a NaN or an infinity."""
    return ~np.isfinite(values).all(axis=tuple(range(1, values.ndim)))


def _column(name: str, values: Any, rows: int, tail: tuple[int, ...], dtype: type) -> np.ndarray:
    array = np.asarray(values)
    if array.shape != (rows, *tail):
        raise ValueError(f"{name}: expected shape {(rows, *tail)}, got {array.shape}")
    if dtype is np.int64 and array.size and array.dtype.kind not in "iu":
        raise ValueError(f"{name}: expected integers, got {array.dtype}")
    return array.astype(dtype, copy=False)
