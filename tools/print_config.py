"""Print a config as the tools see it: inherited, overridden, every "$name" replaced.

python tools/print_config.py CONFIG --cfg-options grid.voxel_size=[0.6,0.6,8]
python tools/print_config.py CONFIG --entry model.head
"""

from __future__ import annotations

import argparse
from functools import reduce
from typing import Any

from common import add_config, read_config
from mmengine.config import Config, ConfigDict


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Print a resolved config.")
    add_config(parser)
    parser.add_argument("--entry", metavar="PATH", help="print this part alone, e.g. model.head")
    return parser.parse_args()


def main() -> None:
    """Print."""
    arguments = parse_arguments()
    config = read_config(arguments)
    if arguments.entry is None:
        print(config.pretty_text)
        return
    part = find_entry(config, arguments.entry)
    print(Config(part).pretty_text if isinstance(part, dict) else repr(part))


def find_entry(config: Config, path: str) -> Any:
    """Return the entry at a dotted path."""

    def step(part: Any, name: str) -> Any:
        key = int(name) if isinstance(part, (list, tuple)) and name.isdecimal() else name
        try:
            return part[key]
        except (KeyError, IndexError, TypeError) as error:
            known = ", ".join(part) if isinstance(part, (dict, ConfigDict, Config)) else f"{len(part)} items"
            raise SystemExit(f"print_config: there is no {name!r} in {path!r}; there is: {known}") from error

    return reduce(step, path.split("."), config)


if __name__ == "__main__":
    main()
