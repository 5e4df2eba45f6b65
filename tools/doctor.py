"""Examine a config before training: environment, data, boxes in the grid, calibration, one batch through the model.

    python tools/doctor.py CONFIG

Every line says ok, or what was found and what to do about it. Exit status: 0 without a problem, 1 with one.
"""

from __future__ import annotations

import argparse
import sys

import torch
from common import add_config, read_config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from rich.console import Console
from rich.text import Text

from sparse3d.doctor import Finding, diagnose

STYLES = {"ok": "green", "note": "yellow", "problem": "bold red", "skipped": "dim"}


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Examine a config: can it be trained, and on what?")
    add_config(parser)
    parser.add_argument(
        "--frames", type=int, default=20, help="frames of a split to look into, evenly spread (default: %(default)s)"
    )
    return parser.parse_args()


def main() -> None:
    """Examine, print, and tell by the exit status."""
    arguments = parse_arguments()
    config = read_config(arguments)
    init_default_scope(config.get("default_scope", "sparse3d"))
    MMLogger.get_instance("doctor", log_level="WARNING")  # mmengine lists every parameter's initialisation otherwise
    torch.manual_seed(0)
    console = Console(highlight=False)
    problems = 0
    for finding in diagnose(config, arguments.frames):
        console.print(as_line(finding), soft_wrap=True)
        problems += finding.status == "problem"
    console.print(f"{problems} problem{'' if problems == 1 else 's'}" if problems else "no problem found")
    sys.exit(1 if problems else 0)


def as_line(finding: Finding) -> Text:
    """Return a finding as a line, and its advice as a second one."""
    line = Text.assemble((f"{finding.status:8}", STYLES[finding.status]), f"{finding.check:12} {finding.text}")
    if finding.advice:
        line.append(f"\n{'':8}{'':12} -> {finding.advice}", style="cyan")
    return line


if __name__ == "__main__":
    main()
