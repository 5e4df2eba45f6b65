"""Packed files: many blocks of bytes in one file, each after its length (uint64, little-endian).

A data set of 150,000 scans is a thousand such files instead of as many as there are scans. What a block holds is said
by the file's suffix: points of float16 (`.f16`) or float32 (`.f32`), images (`.jpegs`).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

LENGTH = struct.Struct("<Q")
POINT_TYPES = {".f16": np.float16, ".f32": np.float32}
IMAGES = ".jpegs"


class PackedWriter:
    """Appends blocks to an open file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def append(self, block: np.ndarray | bytes) -> int:
        """Write a block; returns the byte where it begins, which is what ``read_block`` asks for."""
        offset = self._file.tell()
        data = block.tobytes() if isinstance(block, np.ndarray) else block
        self._file.write(LENGTH.pack(len(data)))
        self._file.write(data)
        return offset


@contextmanager
def packed_writer(path: Path) -> Iterator[PackedWriter]:
    """Write to a temporary file beside ``path`` that takes its name when all went well, and disappears when not.

    What a killed process left of the same file is removed.
    """
    for left in path.parent.glob(f"{path.name}.*.tmp"):
        left.unlink()
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield PackedWriter(file)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_block(path: str | os.PathLike, offset: int) -> np.ndarray:
    """Return the bytes ``[N]`` uint8 of the block that begins at a byte of a packed file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the block is cut off.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such packed file; if the data moved, pass the new data_root")
    with path.open("rb") as file:
        file.seek(offset)
        header = file.read(LENGTH.size)
        size = LENGTH.unpack(header)[0] if len(header) == LENGTH.size else 0
        left = os.fstat(file.fileno()).st_size - file.tell()
        if len(header) < LENGTH.size or left < size:
            raise ValueError(f"{path}, block at byte {offset}: cut off; create the index again")
        return np.fromfile(file, dtype=np.uint8, count=size)


def pack_points(points: np.ndarray, suffix: str) -> np.ndarray:
    """Return points ``[P, F]`` float32 as a packed file with this suffix holds them.

    Half-precision coordinates are within 1.6 cm up to 64 m and within 3.2 cm up to 128 m. Intensities have no bound;
    those beyond the largest float16, 65504, become that.
    """
    dtype = POINT_TYPES[suffix]
    largest = np.finfo(dtype).max
    return np.clip(points, -largest, largest).astype(dtype)


def read_packed_points(path: str | os.PathLike, offset: int, num_features: int) -> np.ndarray:
    """Return the points ``[P, num_features]`` float32 of a block.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the block is cut off, or holds no whole number of points.
    """
    block, dtype = read_block(path, offset), POINT_TYPES[Path(path).suffix]
    if len(block) % (num_features * dtype().itemsize):
        raise ValueError(f"{path}, block at byte {offset}: {len(block)} bytes are no whole number of points")
    return block.view(dtype).reshape(-1, num_features).astype(np.float32, copy=False)
