"""Reading the files of Waymo's detection benchmark: those that `waymo_submission.py` writes, and anybody's.

An object holds a label (1) with its box (1: seven numbers) and type (3), the score (2), whether it overlaps a no-label
zone (3), and the frame (4, 5). Files hold millions of them, so one compiled walk over the bytes fills the columns;
the names of frames, of which there are few, are read afterwards.

Source: the protocol buffers metrics and submission of the Waymo Open Dataset; the encoding page of protocol buffers.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numba import njit

from ..datasets.protobuf_wire import BYTES, EIGHT_BYTES, FOUR_BYTES, VARINT, Message
from .waymo_boxes import WaymoDetections, check_detections
from .waymo_submission import ARCHIVE, MESSAGE_COLUMNS, FrameKey

OBJECTS, RESULTS = 1, 11  # fields: of `Objects`, of `Submission`
INTEGERS = ("type", "overlaps", "name_start", "name_size", "timestamp")


@dataclass(frozen=True, eq=False)
class WaymoResults:
    """The contents of a result file.

    Args:
        keys: of the frames that have detections, in the order in which they come first.
        detections: boxes in the vehicle frames; ``sample`` is a position in ``keys``.
    """

    keys: tuple[FrameKey, ...]
    detections: WaymoDetections


def read_detections(path: str | Path) -> WaymoResults:
    """Return the detections of a ``.bin`` file, or of a ``.tar.gz`` for the server.

    Raises:
        ValueError: if the file is no such message, is cut off, or holds what cannot be scored.
    """
    parts = [_read_objects(f"{path}", np.frombuffer(message, np.uint8)) for message in _messages(Path(path))]
    names = [name for part, _, _ in parts for name in part]
    boxes = np.concatenate([np.zeros((0, 8)), *(numbers for _, numbers, _ in parts)])
    columns = np.concatenate([np.zeros((0, len(INTEGERS)), np.int64), *(integers for *_, integers in parts)])
    numbers = {}
    frames = zip(names, columns[:, INTEGERS.index("timestamp")].tolist(), strict=True)
    sample = np.array([numbers.setdefault(frame, len(numbers)) for frame in frames], np.int64)
    detections = WaymoDetections(
        sample=sample,
        box=boxes[:, MESSAGE_COLUMNS],  # width and length change places, as they did in writing
        type=columns[:, INTEGERS.index("type")],
        score=boxes[:, 7],
        overlaps_no_label_zone=columns[:, INTEGERS.index("overlaps")] != 0,
    )
    check_detections(f"{path}", detections)
    return WaymoResults(tuple(FrameKey(*frame) for frame in numbers), detections)


def _messages(path: Path) -> Iterator[bytes | memoryview]:
    """Yield the messages `Objects` of a file."""
    if not str(path).endswith(ARCHIVE):
        yield path.read_bytes()
        return
    with tarfile.open(path) as archive:
        for entry in archive:
            file = archive.extractfile(entry)
            if file is not None:
                yield Message(file.read()).data(RESULTS)


def _read_objects(path: str, data: np.ndarray) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return the frames' names, the numbers ``[N, 8]`` of box and score, and the columns ``[N, 5]`` of ``INTEGERS``.

    Raises:
        ValueError: if the bytes are no message.
    """
    count = _count(data)
    if count < 0:
        raise ValueError(f"{path}: no message of detections, or cut off")
    numbers, integers = np.zeros((count, 8), np.float64), np.zeros((count, len(INTEGERS)), np.int64)
    if not _fill(data, numbers, integers):
        raise ValueError(f"{path}: no message of detections, or cut off within an object")
    places = zip(*(integers[:, INTEGERS.index(name)].tolist() for name in ("name_start", "name_size")), strict=True)
    return [data[start : start + size].tobytes().decode() for start, size in places], numbers, integers


@njit(cache=True, nogil=True)
def _varint(data: np.ndarray, at: int, end: int) -> tuple[int, int]:
    """Return the number at a place and the place after it, or -1 where it does not end."""
    value = 0
    for step in range(10):
        if at + step >= end:
            return 0, -1
        byte = np.int64(data[at + step])
        value |= (byte & 0x7F) << (7 * step)
        if byte < 0x80:
            return value, at + step + 1
    return 0, -1


@njit(cache=True, nogil=True)
def _field(data: np.ndarray, at: int, end: int) -> tuple[int, int, int, int]:
    """Return a field's number, its varint or where its bytes start, where they end (-1: broken), and its kind."""
    key, at = _varint(data, at, end)
    if at < 0:
        return 0, 0, -1, 0
    number, kind = key >> 3, key & 7
    if kind == VARINT:
        value, at = _varint(data, at, end)
        return number, value, at, kind
    size = 8 if kind == EIGHT_BYTES else 4
    if kind == BYTES:
        size, at = _varint(data, at, end)
    elif kind != EIGHT_BYTES and kind != FOUR_BYTES:
        return number, 0, -1, kind
    if at < 0 or size < 0 or size > end - at:
        return number, 0, -1, kind
    return number, at, at + size, kind


@njit(cache=True, nogil=True)
def _count(data: np.ndarray) -> int:
    """Return the number of objects, or -1."""
    count = at = 0
    while at < len(data):
        number, _, at, kind = _field(data, at, len(data))
        if at < 0:
            return -1
        count += number == OBJECTS and kind == BYTES
    return count


@njit(cache=True, nogil=True)
def _fill(data: np.ndarray, numbers: np.ndarray, integers: np.ndarray) -> bool:
    """Fill the rows of all objects; return False where the bytes are no message."""
    at = row = 0
    while at < len(data):
        number, start, at, kind = _field(data, at, len(data))
        if number == OBJECTS and kind == BYTES:
            if not _fill_object(data, start, at, numbers[row], integers[row]):
                return False
            row += 1
    return True


@njit(cache=True, nogil=True)
def _fill_object(data: np.ndarray, at: int, end: int, numbers: np.ndarray, integers: np.ndarray) -> bool:
    while at < end:
        number, value, at, kind = _field(data, at, end)
        if at < 0:
            return False
        if number == 1 and kind == BYTES:
            if not _fill_label(data, value, at, numbers, integers):
                return False
        elif number == 2 and kind == FOUR_BYTES:
            numbers[7] = data[value:at].copy().view(np.float32)[0]
        elif number == 3 and kind == VARINT:
            integers[1] = value
        elif number == 4 and kind == BYTES:
            integers[2], integers[3] = value, at - value
        elif number == 5 and kind == VARINT:
            integers[4] = value
    return True


@njit(cache=True, nogil=True)
def _fill_label(data: np.ndarray, at: int, end: int, numbers: np.ndarray, integers: np.ndarray) -> bool:
    while at < end:
        number, value, at, kind = _field(data, at, end)
        if at < 0:
            return False
        if number == 1 and kind == BYTES:
            place = value
            while place < at:
                axis, start, place, wire = _field(data, place, at)
                if place < 0:
                    return False
                if 1 <= axis <= 7 and wire == EIGHT_BYTES:
                    numbers[axis - 1] = data[start:place].copy().view(np.float64)[0]
        elif number == 3 and kind == VARINT:
            integers[0] = value
    return True
