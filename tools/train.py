"""Train a detector.

python tools/train.py configs/demo/pillar_demo.py
torchrun --nproc-per-node 8 tools/train.py CONFIG --launcher pytorch
"""

from __future__ import annotations

import argparse

from common import add_config, add_run, read_config, work_dir

from sparse3d.engine import build_runner


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Train the detector of a config.")
    add_config(parser)
    add_run(parser)
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="CHECKPOINT",
        help="go on from a checkpoint; without a name, from the newest one in the work directory",
    )
    return parser.parse_args()


def main() -> None:
    """Train."""
    arguments = parse_arguments()
    config = read_config(arguments)
    if arguments.resume:
        config.resume = True
        config.load_from = None if arguments.resume == "auto" else arguments.resume
    build_runner(config, work_dir=work_dir(arguments), launcher=arguments.launcher, amp=arguments.amp).train()


if __name__ == "__main__":
    main()
