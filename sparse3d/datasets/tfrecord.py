"""TFRecord files: records with checksums, read without TensorFlow.

    record   = length (uint64), checksum of these 8 bytes (uint32), payload, checksum of the payload (uint32)
    checksum = rotate right by 15 of CRC-32C, plus 0xa282ead8

All numbers are little-endian. Every checksum is verified: a record that is read is what was written.

Source: the description of the format in TensorFlow's documentation; CRC-32C is that of RFC 3720, section 12.1.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numba import njit

POLYNOMIAL = 0x82F63B78  # of CRC-32C, bits reversed
MASK_DELTA = 0xA282EAD8
HEADER, FOOTER = struct.Struct("<QI"), struct.Struct("<I")
STRIDE = 8  # bytes that the checksum takes at a time


class RecordError(ValueError):
    """A record is damaged; the message names the file and the byte where the record begins."""


def read_records(path: str | os.PathLike) -> Iterator[tuple[int, bytes]]:
    """Yield the place and the payload of each record of a file, one in memory at a time.

    Raises:
        FileNotFoundError: if there is no such file.
        RecordError: at a record that is cut off or whose checksum is wrong.
    """
    path = Path(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        while (offset := file.tell()) < size:
            yield offset, _read(file, path, offset)


def read_record(path: str | os.PathLike, offset: int) -> bytes:
    """Return the payload of the record that begins at a byte of a file.

    Raises:
        FileNotFoundError: if there is no such file.
        RecordError: if the record is cut off or a checksum is wrong.
    """
    with Path(path).open("rb") as file:
        file.seek(offset)
        return _read(file, Path(path), offset)


def write_records(path: str | os.PathLike, payloads: Iterator[bytes] | list[bytes]) -> None:
    """Write records to a file."""
    with Path(path).open("wb") as file:
        for payload in payloads:
            length = struct.pack("<Q", len(payload))
            file.write(length + FOOTER.pack(masked_crc(length)) + payload + FOOTER.pack(masked_crc(payload)))


def masked_crc(data: bytes) -> int:
    """Return the checksum of some bytes as TFRecord stores it."""
    crc = int(_crc32c(np.frombuffer(data, dtype=np.uint8), _TABLES))
    return ((crc >> 15 | crc << 17) + MASK_DELTA) & 0xFFFFFFFF


def _read(file: BinaryIO, path: Path, offset: int) -> bytes:
    header = _take(file, HEADER.size, path, offset)
    length, crc = HEADER.unpack(header)
    if masked_crc(header[:8]) != crc:
        raise RecordError(
            f"{path}, record at byte {offset}: the checksum of its length is wrong; is it a TFRecord file?"
        )
    payload = _take(file, length, path, offset)
    if masked_crc(payload) != FOOTER.unpack(_take(file, FOOTER.size, path, offset))[0]:
        raise RecordError(f"{path}, record at byte {offset}: the checksum of its {length} bytes is wrong")
    return payload


def _take(file: BinaryIO, size: int, path: Path, offset: int) -> bytes:
    left = os.fstat(file.fileno()).st_size - file.tell()
    if left < size:
        raise RecordError(f"{path}, record at byte {offset}: cut off, {left} of {size} bytes are there")
    return file.read(size)


def _make_tables() -> np.ndarray:
    """Return ``[8, 256]`` uint32: what a byte does to the checksum after it and 0 to 7 further bytes."""
    crc = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        crc = np.where(crc & 1, crc >> 1 ^ np.uint32(POLYNOMIAL), crc >> 1)
    tables = [crc]
    for _ in range(STRIDE - 1):
        tables.append(tables[0][tables[-1] & 0xFF] ^ tables[-1] >> 8)
    return np.stack(tables)


_TABLES = _make_tables()


@njit(cache=True, nogil=True)
def _crc32c(data: np.ndarray, tables: np.ndarray) -> int:
    """Return the CRC-32C of bytes, eight at a time ("slicing by 8", Kounavis and Berry, 2005)."""
    crc = np.uint32(0xFFFFFFFF)
    whole = len(data) // STRIDE * STRIDE
    for at in range(0, whole, STRIDE):
        value = np.uint32(0)
        for byte in range(4):
            mixed = np.uint32(data[at + byte]) ^ (crc >> np.uint32(8 * byte)) & np.uint32(0xFF)
            value ^= tables[7 - byte, mixed] ^ tables[3 - byte, data[at + 4 + byte]]
        crc = np.uint32(value)
    for at in range(whole, len(data)):
        crc = np.uint32(tables[0, (crc ^ np.uint32(data[at])) & np.uint32(0xFF)] ^ crc >> np.uint32(8))
    return crc ^ np.uint32(0xFFFFFFFF)
