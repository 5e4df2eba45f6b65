"""Checkpoints as files: written whole or not at all, verified by checksum, found again, read without running code.

A checkpoint is a zip archive, as `torch.save` writes it. Each of its records carries a CRC-32, which is the checksum
that `verify_checkpoint` recomputes; the table of contents stands at the end, so that a cut-off file is noticed too.
Released weights are safetensors files.
"""

from __future__ import annotations

import logging
import os
import pickle
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from mmengine.dist import barrier, get_rank
from mmengine.logging import print_log
from mmengine.runner import CheckpointLoader
from safetensors.torch import load_file

PARTIAL_SUFFIX = ".partial"


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written, or is damaged, or is not to be trusted; the message names the file."""


@contextmanager
def writing_whole(path: Path) -> Iterator[Path]:
    """Give a place to write a file to, which becomes ``path`` when all its bytes are on the disk.

    Raises:
        CheckpointError: if it cannot be written, for instance because the disk is full; nothing is left of it then, and
            earlier checkpoints are untouched.
    """
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
    try:
        yield partial
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise CheckpointError(
            f"cannot write {path}: {error}. Earlier checkpoints are whole; make room and go on with --resume"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Let a new name outlast a power cut; only POSIX opens folders."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def verify_checkpoint(path: str | os.PathLike) -> None:
    """Recompute the checksum of every record of a checkpoint.

    Raises:
        CheckpointError: if the file is cut off or a record is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as error:  # what a damaged archive makes of itself can be anything
        raise CheckpointError(f"{path} is damaged: {error}") from error
    if damaged is not None:
        raise CheckpointError(f"{path} is damaged: the checksum of its record {damaged!r} does not match")


def newest_checkpoint(folder: str | os.PathLike) -> Path | None:
    """Return the whole checkpoint in a work directory that has seen most iterations, None if there is none.

    Damaged ones are named. Files that hold weights alone, such as ``best_*.pth``, are no place to resume from and do
    not count.
    """
    for path in _most_trained_first(Path(folder)):
        try:
            verify_checkpoint(path)
        except CheckpointError as error:
            _pass_over(error)
        else:
            return path
    return None


def _most_trained_first(folder: Path) -> list[Path]:
    """Sort by the iterations that checkpoints say they have seen: times of files do not survive copying."""
    seen = {}
    for path in folder.glob("*.pth"):
        try:
            checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:  # what a damaged file makes of itself can be anything
            _pass_over(f"{path} cannot be read: {error}")
            continue
        if isinstance(checkpoint, dict) and {"meta", "optimizer"} <= checkpoint.keys():
            seen[path] = (checkpoint["meta"]["iter"], path.stat().st_mtime_ns)
    return sorted(seen, key=lambda path: seen[path], reverse=True)


def _pass_over(reason: object) -> None:
    print_log(f"{reason}; it is passed over", logger="current", level=logging.WARNING)


def read_checkpoint(
    path: str | os.PathLike, map_location: str | torch.device = "cpu", *, trusted: bool = False
) -> dict[str, Any]:
    """Read a checkpoint or released weights.

    Args:
        path: file of `torch.save`, or `.safetensors`.
        map_location: device of its tensors.
        trusted: read pickled objects as well, which can run any code. Ours never hold any.

    Raises:
        CheckpointError: if the file is missing or damaged, or holds objects and is not ``trusted``.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {path}")
    if path.suffix == ".safetensors":
        return {"state_dict": load_file(path, device=str(map_location))}
    if _is_archive(path):
        verify_checkpoint(path)
    try:
        return torch.load(path, map_location=map_location, weights_only=not trusted)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than tensors, numbers, strings and containers, and reading such objects can run any "
            "code. If you trust where it comes from, pass --trust-checkpoint"
        ) from error
    except Exception as error:  # a damaged pickle can fail in any way
        raise CheckpointError(f"{path} is damaged, or no checkpoint: {error!r}") from error


def _is_archive(path: Path) -> bool:
    """Return whether a file is torch's archive rather than a plain pickle, as torch wrote before 1.6.

    Raises:
        CheckpointError: if it is neither.
    """
    with open(path, "rb") as file:
        start = file.read(2)
    if start != b"PK" and start[:1] != pickle.PROTO:
        raise CheckpointError(f"{path} is damaged, or no checkpoint: it begins with {start!r}")
    return start == b"PK"


@CheckpointLoader.register_scheme(prefixes="", force=True)
def _load_local(filename: str, map_location: Any = "cpu") -> dict[str, Any]:
    """Read what mmengine loads by itself, such as ``init_cfg``, as carefully as everything else."""
    return read_checkpoint(os.path.expanduser(filename), map_location or "cpu")


@CheckpointLoader.register_scheme(prefixes=("http://", "https://"), force=True)
def _load_url(filename: str, map_location: Any = "cpu") -> dict[str, Any]:
    """Download into torch's cache; mmengine would run the code in it."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(filename).path).name
    if get_rank() == 0 and not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(filename, str(path))
    barrier()
    return read_checkpoint(path, map_location or "cpu")
