"""Arrow files of ours: whole or absent, with a version, mapped into memory.

A file is written under a temporary name and renamed at the end: what stands under its own name is complete. It says
which kind it is of and which version of its columns it has; a reader refuses any other.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from .. import __version__

SUFFIX = ".tmp"


@dataclass(frozen=True)
class ArrowKind:
    """A kind of file: its name in messages, the version of its columns, the columns, and how to make one."""

    name: str
    version: int
    schema: pa.Schema
    create: str

    @property
    def version_key(self) -> str:
        """Entry of the metadata that holds the version."""
        return f"{self.name.replace(' ', '_')}_version"


@contextmanager
def arrow_writer(path: Path, kind: ArrowKind, metadata: Mapping[str, str]) -> Iterator[pa.ipc.RecordBatchFileWriter]:
    """Write to a temporary file beside ``path`` that takes its name when all went well, and disappears when not."""
    own = {kind.version_key: str(kind.version), "sparse3d_version": __version__}
    temporary = path.with_name(f"{path.name}.{os.getpid()}{SUFFIX}")
    try:
        with (
            pa.OSFile(str(temporary), "wb") as sink,
            pa.ipc.new_file(sink, kind.schema.with_metadata({**metadata, **own})) as writer,
        ):
            yield writer
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def open_arrow(path: Path, kind: ArrowKind) -> pa.ipc.RecordBatchFileReader:
    """Map a file into memory and check that it is of this kind and version.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is of another kind or version, or damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no {kind.name}; create it: {kind.create}")
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path}: no Arrow file ({error}); create it again: {kind.create}") from error
    found = arrow_metadata(reader).get(kind.version_key)
    if found != str(kind.version):
        raise ValueError(
            f"{path}: {kind.name} version {found}, this sparse3d reads version {kind.version}; "
            f"create it again: {kind.create}"
        )
    if not reader.schema.equals(kind.schema):
        raise ValueError(
            f"{path}: the columns are not those of {kind.name} version {kind.version}; create it again: {kind.create}"
        )
    return reader


def arrow_metadata(reader: pa.ipc.RecordBatchFileReader) -> dict[str, str]:
    """Return what a file says about itself."""
    return {key.decode(): value.decode() for key, value in (reader.schema.metadata or {}).items()}


def read_batches(reader: pa.ipc.RecordBatchFileReader) -> list[pa.RecordBatch]:
    """Return all batches; their data stays in the file until it is used."""
    return [reader.get_batch(number) for number in range(reader.num_record_batches)]


def merge_arrow(path: Path, parts: list[Path], kind: ArrowKind, metadata: Mapping[str, str]) -> None:
    """Write the rows of several files, one after the other, to a new one."""
    with arrow_writer(path, kind, metadata) as writer:
        for part in parts:
            for batch in read_batches(open_arrow(part, kind)):
                writer.write_batch(batch)
