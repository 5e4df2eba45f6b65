"""Compare trainings: draw their curves, and print where they ended.

python tools/analyze_logs.py work_dirs/a work_dirs/b --keys loss lr --out curves.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sparse3d.analysis.logs import draw_curves, read_run, summarise


def main() -> None:
    """Read, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="work directories")
    parser.add_argument("--keys", nargs="+", default=["loss"], help="what to show (default: loss)")
    parser.add_argument("--out", type=Path, help="picture to draw, .png, .svg or .pdf")
    arguments = parser.parse_args()
    runs = [read_run(folder) for folder in arguments.runs]
    table = Table("run", "curve", "last", "lowest", "highest", "steps")
    for run in runs:
        for key in arguments.keys:
            if key in run.curves:
                numbers = (f"{value:.5g}" for value in summarise(run, key))
                table.add_row(run.name, key, *numbers, str(run.curves[key][0][-1]))
    Console().print(table)
    if arguments.out:
        draw_curves(arguments.out, runs, arguments.keys)


if __name__ == "__main__":
    main()
