"""Writing a synthetic data set whole or not at all, with one process a core.

Everything is written into a hidden folder beside the target, which gets the target's name when it is complete: what was
interrupted leaves nothing under the final name.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import cv2

from ...progress import track
from ..processes import run_in_processes

MARKER = "synthetic.json"  # says that a folder was written here, and with which settings

Job, Result = TypeVar("Job"), TypeVar("Result")


@contextmanager
def fresh_target(root: Path, *, force: bool) -> Iterator[Path]:
    """Give a hidden folder to write into, which becomes ``root`` when all went well, and disappears when not.

    Raises:
        FileExistsError: if ``root`` holds anything and may not be replaced.
    """
    _check_target(root, force=force)
    root.parent.mkdir(parents=True, exist_ok=True)
    partial_root = Path(tempfile.mkdtemp(prefix=f".{root.name}.", dir=root.parent))
    try:
        yield partial_root
        _put_in_place(partial_root, root)
    except BaseException:
        shutil.rmtree(partial_root, ignore_errors=True)
        raise


def mark(root: Path, settings: Mapping[str, Any]) -> None:
    """Say that a folder was written here, and with which settings."""
    (root / MARKER).write_text(json.dumps(settings, indent=1), encoding="utf-8")


def run_jobs(
    work: Callable[[Path, Job], Result], root: Path, jobs: Sequence[Job], workers: int | None, *, progress: bool
) -> Iterator[tuple[Job, Result]]:
    """Yield each job with what ``work(root, job)`` returned, as they are done; ``workers`` None is one a core."""
    single_threaded = partial(cv2.setNumThreads, 1)  # the processes share the cores
    count = min(workers or os.cpu_count() or 1, len(jobs))
    finished = run_in_processes(partial(work, root), jobs, count, single_threaded)
    return track(finished, "synthetic scenes", total=len(jobs)) if progress else finished


def _check_target(root: Path, *, force: bool) -> None:
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return
    if not (root / MARKER).is_file():
        raise FileExistsError(f"{root} exists and was not written by write_synthetic; choose another folder")
    if not force:
        raise FileExistsError(f"{root} holds a synthetic data set already; pass force to replace it")


def _put_in_place(partial_root: Path, root: Path) -> None:
    partial_root.chmod(0o755)  # mkdtemp makes it private
    if root.exists():
        replaced = Path(tempfile.mkdtemp(prefix=f".{root.name}.", dir=root.parent))
        root.rename(replaced)
        partial_root.rename(root)
        shutil.rmtree(replaced)
    else:
        partial_root.rename(root)
