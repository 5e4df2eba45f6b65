"""Run the checks in their order; one that fails takes those that need it with it, and no others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from traceback import extract_tb

from mmengine.config import Config

from .config_checks import check_environment, check_grid, check_schedule
from .data_checks import check_boxes, check_calibration, check_data, check_files, check_labels
from .model_checks import check_model, check_samples
from .subject import PROBLEM, SKIPPED, Finding, Subject

MAX_FRAMES = 20
PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Check:
    """A check: a function that yields findings, and the names of the checks that it builds on."""

    run: Callable[[Subject], Iterator[Finding]]
    needs: tuple[str, ...] = ()


CHECKS = {
    "environment": Check(check_environment),
    "grid": Check(check_grid),
    "schedule": Check(check_schedule),
    "data": Check(check_data),
    "files": Check(check_files, ("data",)),
    "labels": Check(check_labels, ("data",)),
    "boxes": Check(check_boxes, ("data", "grid", "labels")),
    "calibration": Check(check_calibration, ("data", "files")),
    "samples": Check(check_samples, ("data", "files", "grid")),
    "model": Check(check_model, ("grid", "samples")),
}


def diagnose(config: Config, max_frames: int = MAX_FRAMES) -> Iterator[Finding]:
    """Yield the findings of all checks, each as it is made.

    Args:
        config: what ``load_config`` returned.
        max_frames: frames of a split to look into, evenly spread.
    """
    subject, failed = Subject(config, max_frames), set()
    for name, check in CHECKS.items():
        missing = [each for each in check.needs if each in failed]
        if missing:
            failed.add(name)
            yield Finding(name, SKIPPED, f"needs {', '.join(missing)}")
            continue
        for finding in _run(name, check, subject):
            if finding.status == PROBLEM:
                failed.add(name)
            yield finding


def _run(name: str, check: Check, subject: Subject) -> Iterator[Finding]:
    """Yield a check's findings; an error that it meets is one of them."""
    try:
        yield from check.run(subject)
    except Exception as error:
        text = f"{type(error).__name__}: {str(error).strip() or 'no message'}"
        yield Finding(name, PROBLEM, text, f"it was raised in {_place(error)}: look at what the config gives to it")


def _place(error: Exception) -> str:
    """Return where in this package an error comes from."""
    trail = [step for step in extract_tb(error.__traceback__) if Path(step.filename).is_relative_to(PACKAGE)]
    return f"{Path(trail[-1].filename).relative_to(PACKAGE.parent)}, {trail[-1].name}, line {trail[-1].lineno}"
