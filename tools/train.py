"""Train a detector.

python tools/train.py configs/demo/pillar_demo.py
torchrun --nproc-per-node 8 tools/train.py CONFIG --launcher pytorch
"""

from __future__ import annotations

import argparse

import sparse3d  # noqa: F401  # before torch: it says how threads wait

# isort: split
from common import add_config, add_run, add_skip_bad, add_trust, plain_errors, read_config, skip_bad, work_dir

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
    parser.add_argument("--load-from", metavar="CHECKPOINT", help="begin with these weights (.pth or .safetensors)")
    parser.add_argument("--auto-scale-lr", action="store_true", help="scale the learning rate by the real batch size")
    parser.add_argument("--deterministic", action="store_true", help="the same results bit by bit; slower on a GPU")
    add_skip_bad(parser)
    add_trust(parser)
    return parser.parse_args()


def main() -> None:
    """Train."""
    arguments = parse_arguments()
    config = read_config(arguments)
    if arguments.resume:
        config.resume = True
        config.load_from = None if arguments.resume == "auto" else arguments.resume
    elif arguments.load_from:
        config.load_from = arguments.load_from
    if arguments.skip_bad:
        skip_bad(config)
    runner = build_runner(
        config,
        work_dir=work_dir(arguments),
        launcher=arguments.launcher,
        amp=arguments.amp,
        deterministic=arguments.deterministic,
        auto_scale_lr=arguments.auto_scale_lr,
        trust_checkpoint=arguments.trust_checkpoint,
    )
    with plain_errors("train"):
        runner.train()


if __name__ == "__main__":
    main()
