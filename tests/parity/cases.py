"""Finding fixtures: which files in a folder are cases, and of which kind.

A case is a `.npz` beside a `.json` of the same name, or a folder that holds an `expected.json`, `expected_frames.json`
or `README.json` (a small data set with the values that its reader must return). The kind of a case is its folder and
its file name without the last `_a`, `_b`, ...: `dsvt/dsvt_pillar`. Where all files of a folder are of one kind, the
kind is that of the folder alone.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from . import kinds

LETTER = re.compile(r"_[a-z]$")
EXPECTED = ("expected.json", "expected_frames.json", "README.json")


@dataclass(frozen=True)
class Case:
    """One fixture: where it is, and its contents (read on use)."""

    kind: str
    json_path: Path

    @property
    def folder(self) -> Path:
        return self.json_path.parent

    @property
    def name(self) -> str:
        return f"{self.folder.name}/{self.json_path.stem}"

    @cached_property
    def config(self) -> dict[str, Any]:
        return json.loads(self.json_path.read_text(encoding="utf-8"))

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        path = self.json_path.with_suffix(".npz")
        if not path.exists():
            return {}
        with np.load(path) as archive:
            return {name: archive[name] for name in archive.files}


def known_kinds() -> dict[str, Callable[[Case], None]]:
    """Kind -> the function that judges a case of it, gathered from the modules of `tests/parity/kinds`."""
    checks: dict[str, Callable[[Case], None]] = {}
    for module in pkgutil.iter_modules(kinds.__path__):
        checks.update(importlib.import_module(f"{kinds.__name__}.{module.name}").KINDS)
    return checks


def find_cases(folder: Path, checks: dict[str, Any]) -> Iterator[Case]:
    """All cases below ``folder``, in a fixed order."""
    for path in sorted(folder.rglob("*.json")):
        if path.name in EXPECTED or path.with_suffix(".npz").exists():
            yield Case(_kind(path, checks), path)


def _kind(path: Path, checks: dict[str, Any]) -> str:
    folders = [LETTER.sub("", parent.name) for parent in path.parents]
    whole = next((name for name in folders if name in checks), None)
    own = f"{folders[0]}/{LETTER.sub('', path.stem)}"
    if own in checks or whole is None:
        return folders[0] if path.name in EXPECTED else own
    return whole
