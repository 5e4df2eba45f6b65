"""Reading a large JSON list of objects one object at a time, so that a table need not fit into memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

CHUNK = 1 << 22  # characters read at a time

_decode = json.JSONDecoder().raw_decode


def read_records(path: Path, on_read: Callable[[int], Any] | None = None) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON file that holds one list.

    Args:
        path: the file, UTF-8.
        on_read: called with the number of characters of each piece that was read (for a progress bar).

    Raises:
        ValueError: if the file is no list of objects, or ends before the list does.
    """
    with path.open(encoding="utf-8") as file:
        text, position = _read(file, on_read), 0
        position = _skip(text, position, " \t\r\n")
        if text[position : position + 1] != "[":
            raise ValueError(f"{path}: expected a JSON list of records")
        position += 1
        while True:
            position = _skip(text, position, " \t\r\n,")
            if text[position : position + 1] == "]":
                return
            try:
                record, position = _decode(text, position)
            except json.JSONDecodeError as error:
                piece = _read(file, on_read)
                if not piece:
                    raise ValueError(f"{path}: damaged or cut off near {text[position : position + 60]!r}") from error
                text, position = text[position:] + piece, 0
                continue
            if not isinstance(record, dict):
                raise ValueError(f"{path}: expected a JSON list of objects, found {record!r}")
            yield record


def _read(file: Any, on_read: Callable[[int], Any] | None) -> str:
    piece = file.read(CHUNK)
    if on_read is not None:
        on_read(len(piece))
    return piece


def _skip(text: str, position: int, characters: str) -> int:
    while position < len(text) and text[position] in characters:
        position += 1
    return position
