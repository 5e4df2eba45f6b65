"""Curves of trainings, from the scalars that every run writes into `vis_data/scalars.json` of its work directory.

A resumed run has several such files; where they overlap, the later one counts, for its steps are those that were kept.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt

SCALARS = "vis_data/scalars.json"
STEP = "step"
LEFT_OUT = (STEP, "iter", "epoch")
PANEL = (6.0, 3.2)  # inches


@dataclass(frozen=True)
class Run:
    """A training.

    Args:
        name: of its work directory.
        curves: key -> (steps ``[N]`` int64, values ``[N]`` float64), steps ascending.
    """

    name: str
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]]


def read_run(folder: Path) -> Run:
    """Return the curves of a work directory.

    Raises:
        FileNotFoundError: if it holds no scalars.
        ValueError: if a line is no JSON; the last one of a file may be cut off, for a run may be writing it.
    """
    files = sorted(folder.rglob(SCALARS))  # folders are named by their time
    if not files:
        raise FileNotFoundError(f"{folder}: no {SCALARS} in it; give the work directory of a run")
    points: dict[str, dict[int, float]] = {}
    for path in files:
        for entry in _entries(path):
            for key, value in entry.items():
                if key not in LEFT_OUT and isinstance(value, (int, float)):
                    points.setdefault(key, {})[entry[STEP]] = value
    curves = {key: tuple(map(np.array, zip(*sorted(values.items()), strict=True))) for key, values in points.items()}
    return Run(folder.name, curves)


def _entries(path: Path) -> list[dict]:
    lines = path.read_text(encoding="utf-8").splitlines()
    entries = []
    for number, line in enumerate(lines, start=1):
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise ValueError(f"{path}, line {number}: no JSON: {error}") from error
    return entries


def draw_curves(path: Path, runs: Sequence[Run], keys: Sequence[str]) -> None:
    """Draw one panel a key with the curves of all runs that have it.

    Raises:
        ValueError: if no run has one of the keys.
    """
    known = sorted({key for run in runs for key in run.curves})
    unknown = [key for key in keys if key not in known]
    if unknown:
        raise ValueError(f"no run logged {', '.join(unknown)}; there are {', '.join(known)}")
    figure, axes = plt.subplots(len(keys), 1, figsize=(PANEL[0], PANEL[1] * len(keys)), squeeze=False, sharex=True)
    for axis, key in zip(axes[:, 0], keys, strict=True):
        for run in runs:
            if key in run.curves:
                axis.plot(*run.curves[key], label=run.name)
        axis.set_ylabel(key)
        axis.grid(alpha=0.3)
        axis.legend()
    axes[-1, 0].set_xlabel(STEP)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    plt.close(figure)


def summarise(run: Run, key: str) -> tuple[float, float, float]:
    """Return the last, the lowest and the highest value of a curve."""
    values = run.curves[key][1]
    return float(values[-1]), float(values.min()), float(values.max())
