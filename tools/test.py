"""Test a detector: predict on the config's test set and print its metric.

python tools/test.py CONFIG CHECKPOINT --show-dir pictures
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import sparse3d  # noqa: F401  # before torch: it says how threads wait

# isort: split
from common import add_config, add_run, add_skip_bad, add_trust, plain_errors, read_config, skip_bad, work_dir
from mmengine.dist import is_main_process

from sparse3d.engine import build_runner, newest_checkpoint


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Test a detector and print its metric.")
    add_config(parser)
    parser.add_argument("checkpoint", type=Path, help="checkpoint file, or a work directory for its newest one")
    add_run(parser)
    parser.add_argument(
        "--show-dir",
        type=Path,
        help="write bird's-eye and camera pictures and a 3D page (scene.html) of some samples here",
    )
    add_skip_bad(parser)
    add_trust(parser)
    return parser.parse_args()


def find_checkpoint(path: Path) -> Path:
    """Return the checkpoint that ``path`` is, or the newest whole one in the work directory that it is."""
    newest = newest_checkpoint(path) if path.is_dir() else path
    if newest is None or not newest.is_file():
        raise SystemExit(f"test: no checkpoint at {path}; give a checkpoint file or a work directory that holds one")
    return newest


def main() -> None:
    """Test."""
    arguments = parse_arguments()
    config = read_config(arguments)
    config.load_from = str(find_checkpoint(arguments.checkpoint))
    if arguments.show_dir:
        hook = dict(type="VisualizationHook", out_dir=str(arguments.show_dir), class_names=config.class_names)
        config.setdefault("custom_hooks", []).append(hook)
    folder = work_dir(arguments)
    if arguments.skip_bad:
        skip_bad(config)
    runner = build_runner(
        config,
        work_dir=folder,
        launcher=arguments.launcher,
        amp=arguments.amp,
        trust_checkpoint=arguments.trust_checkpoint,
    )
    with plain_errors("test"):
        metrics = runner.test()
    if is_main_process():
        (folder / "metrics.json").write_text(json.dumps(metrics, indent=2))


if __name__ == "__main__":
    main()
