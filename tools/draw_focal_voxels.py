"""Draw which voxels the focal convolutions of a detector keep as foreground, and which they grow.

    python tools/draw_focal_voxels.py CONFIG CHECKPOINT --out focus.png
    python tools/draw_focal_voxels.py CONFIG work_dirs/NAME --split val --sample 3 --zoom 0 -10 20 10 --out focus.png

A panel is one focal convolution, seen from above.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from common import add_config, add_sample, load_sample, load_weights, plain_errors, read_config
from mmengine.config import Config
from mmengine.registry import init_default_scope

from sparse3d.analysis.focal_voxels import watch_focals
from sparse3d.models import Detector3D, FocalEncoder
from sparse3d.registry import MODELS
from sparse3d.visualization import save_image
from sparse3d.visualization.focus import draw_focus


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config(parser)
    add_sample(parser)
    parser.add_argument("--out", type=Path, required=True, help="picture to write, .png")
    parser.add_argument(
        "--zoom", type=float, nargs=4, metavar=("X0", "Y0", "X1", "Y1"), help="square to show in metres (default: all)"
    )
    parser.add_argument("--size", type=int, default=500, help="pixels of a panel's side (default: %(default)s)")
    return parser.parse_args()


def main() -> None:
    """Draw."""
    arguments = parse_arguments()
    config = read_config(arguments)
    init_default_scope(config.default_scope)
    with plain_errors("draw_focal_voxels"):
        detector = build_detector(config, arguments.checkpoint)
    sample = load_sample(config, arguments.split, arguments.sample)
    with watch_focals(detector.point_branch.backbone) as seen:
        detector.test_step([sample])
    grid = detector.point_branch.grid
    extent = (*grid.lower[:2], *grid.upper[:2])
    picture = draw_focus(
        seen,
        sample.gt if "gt" in sample else None,
        extent,
        tuple(arguments.zoom or extent),
        class_names=config.class_names,
        size=arguments.size,
        title="Focal convolutions",
    )
    save_image(arguments.out, picture)
    print(f"picture: {arguments.out}")


def build_detector(config: Config, checkpoint: Path) -> Detector3D:
    """Return the config's detector with trained weights."""
    detector = MODELS.build(config.model).eval()
    if not isinstance(getattr(detector.point_branch, "backbone", None), FocalEncoder):
        raise SystemExit("draw_focal_voxels: the config's detector has no focal convolutions")
    load_weights(detector, checkpoint)
    return detector


if __name__ == "__main__":
    main()
