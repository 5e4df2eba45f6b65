"""The wire format of protocol buffers: messages as numbered fields, read and written without generated code.

    message  = field*
    field    = key value,  key = varint of (number << 3 | kind)
    kinds      0 varint, 1 eight bytes, 2 length and bytes (text, messages, packed numbers), 5 four bytes

A field that is absent has its default: 0, "", nothing. Unknown fields are passed over, so newer files can be read.

Source: the encoding page of the protocol buffers documentation.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TypeAlias

import numpy as np

VARINT, EIGHT_BYTES, BYTES, FOUR_BYTES = 0, 1, 2, 5
FIXED_SIZES = {EIGHT_BYTES: 8, FOUR_BYTES: 4}
MAX_VARINT = 10  # bytes
SIGN, RANGE = 1 << 63, 1 << 64  # negative integers are written as 64-bit two's complement

Value: TypeAlias = "int | memoryview"


# -- reading ----------------------------------------------------------------------------------------------------------


def read_fields(message: memoryview) -> Iterator[tuple[int, int, Value]]:
    """Yield number, kind and raw value of each field of a message.

    Raises:
        ValueError: if the bytes are no message.
    """
    at = 0
    while at < len(message):
        key, at = read_varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, at = read_varint(message, at)
            yield number, kind, value
            continue
        if kind == BYTES:
            size, at = read_varint(message, at)
        elif kind in FIXED_SIZES:
            size = FIXED_SIZES[kind]
        else:
            raise ValueError(f"no protobuf message: field {number} is of unknown kind {kind}")
        if at + size > len(message):
            raise ValueError(f"no protobuf message, or cut off: field {number} has {len(message) - at} of {size} bytes")
        yield number, kind, message[at : at + size]
        at += size


def read_varint(message: memoryview, at: int) -> tuple[int, int]:
    """Return the unsigned number at a place, and the place after it."""
    value = 0
    for place in range(MAX_VARINT):
        if at + place >= len(message):
            raise ValueError("no protobuf message, or cut off: a number does not end")
        byte = message[at + place]
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value, at + place + 1
    raise ValueError(f"no protobuf message: a number has more than {MAX_VARINT} bytes")


class Message:
    """A message, parsed one level deep: ask for fields by number and kind.

    Args:
        data: the bytes; they are not copied.

    Raises:
        ValueError: if the bytes are no message, or (when asked) a field is of another kind.
    """

    def __init__(self, data: bytes | memoryview = b"") -> None:
        self._fields: dict[int, list[tuple[int, Value]]] = {}
        for number, kind, value in read_fields(memoryview(data)):
            self._fields.setdefault(number, []).append((kind, value))

    def __contains__(self, number: int) -> bool:
        return number in self._fields

    def integer(self, number: int) -> int:
        """Return an integer, enumeration or truth value; 0 where there is none."""
        value = self._last(number, VARINT)
        return 0 if value is None else _signed(value)

    def float(self, number: int) -> float:
        """Return a float32; 0 where there is none."""
        value = self._last(number, FOUR_BYTES)
        return 0.0 if value is None else struct.unpack("<f", value)[0]

    def double(self, number: int) -> float:
        """Return a float64; 0 where there is none."""
        value = self._last(number, EIGHT_BYTES)
        return 0.0 if value is None else struct.unpack("<d", value)[0]

    def data(self, number: int) -> memoryview:
        """Return bytes, empty where there are none."""
        value = self._last(number, BYTES)
        return memoryview(b"") if value is None else value

    def text(self, number: int) -> str:
        """Return text, empty where there is none."""
        return bytes(self.data(number)).decode()

    def message(self, number: int) -> Message:
        """Return a message, an empty one where there is none."""
        return Message(self.data(number))

    def messages(self, number: int) -> list[Message]:
        """Return the messages of a repeated field."""
        return [Message(self._of_kind(number, kind, value, BYTES)) for kind, value in self._fields.get(number, ())]

    def doubles(self, number: int) -> np.ndarray:
        """Return the float64 ``[N]`` of a repeated field, packed or not."""
        return self._array(number, EIGHT_BYTES, "<f8")

    def floats(self, number: int) -> np.ndarray:
        """Return the float32 ``[N]`` of a repeated field, packed or not."""
        return self._array(number, FOUR_BYTES, "<f4")

    def integers(self, number: int) -> np.ndarray:
        """Return the int64 ``[N]`` of a repeated field, packed or not."""
        parts = [np.zeros(0, dtype=np.int64)]
        for kind, value in self._fields.get(number, ()):
            if kind == VARINT:
                parts.append(np.array([_signed(value)], dtype=np.int64))
            else:
                parts.append(_packed_varints(self._of_kind(number, kind, value, BYTES)))
        return np.concatenate(parts)

    def _array(self, number: int, kind: int, dtype: str) -> np.ndarray:
        found = self._fields.get(number, ())
        parts = [value if own == kind else self._of_kind(number, own, value, BYTES) for own, value in found]
        size = FIXED_SIZES[kind]
        if any(len(part) % size for part in parts):
            raise ValueError(f"field {number}: its bytes are no whole number of values of {size} bytes")
        return np.frombuffer(b"".join(parts), dtype=dtype)

    def _last(self, number: int, kind: int) -> Value | None:
        if number not in self._fields:
            return None
        return self._of_kind(number, *self._fields[number][-1], kind)

    def _of_kind(self, number: int, kind: int, value: Value, wanted: int) -> Value:
        if kind != wanted:
            raise ValueError(f"field {number} is of kind {kind}, expected {wanted}: the message is of another type")
        return value


def _signed(value: int) -> int:
    return value - RANGE if value >= SIGN else value


def _packed_varints(data: memoryview) -> np.ndarray:
    """Return the numbers ``[N]`` int64 of varints that follow each other."""
    octets = np.frombuffer(data, dtype=np.uint8)
    ends = np.flatnonzero(octets < 0x80)
    if len(octets) and (len(ends) == 0 or ends[-1] != len(octets) - 1):
        raise ValueError("no protobuf message, or cut off: a number does not end")
    starts = np.concatenate([[0], ends + 1])[:-1].astype(np.int64)
    places = np.arange(len(octets)) - np.repeat(starts, ends - starts + 1)
    shifted = (octets & 0x7F).astype(np.uint64) << (7 * places).astype(np.uint64)
    return np.add.reduceat(shifted, starts).view(np.int64) if len(ends) else np.zeros(0, dtype=np.int64)


# -- writing ----------------------------------------------------------------------------------------------------------


def write_integer(number: int, value: int) -> bytes:
    """Return a field with an integer, enumeration or truth value."""
    return write_varint(number << 3 | VARINT) + write_varint(int(value) % RANGE)


def write_float(number: int, value: float) -> bytes:
    """Return a field with a float32."""
    return write_varint(number << 3 | FOUR_BYTES) + struct.pack("<f", value)


def write_double(number: int, value: float) -> bytes:
    """Return a field with a float64."""
    return write_varint(number << 3 | EIGHT_BYTES) + struct.pack("<d", value)


def write_data(number: int, value: bytes | str) -> bytes:
    """Return a field with text, bytes or the bytes of a message."""
    data = value.encode() if isinstance(value, str) else value
    return write_varint(number << 3 | BYTES) + write_varint(len(data)) + data


def write_varint(value: int) -> bytes:
    """Return the bytes of an unsigned number."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
