"""Draw samples as the network will see them: after loading, augmentation and filtering.

    python tools/browse_dataset.py CONFIG --samples 8
    python tools/browse_dataset.py CONFIG --split test --start 100

Each sample gives a picture from above and, where the pipeline loads images, one through its cameras.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from common import add_config, read_config, work_dir
from mmengine.registry import init_default_scope
from torch import Tensor

from sparse3d.progress import track
from sparse3d.registry import DATASETS
from sparse3d.structures import Grid, Sample
from sparse3d.visualization import draw_bev, draw_cameras, save_image


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Draw samples of a data set after its pipeline.")
    add_config(parser)
    parser.add_argument("--split", choices=["train", "val", "test"], default="train", help="(default: %(default)s)")
    parser.add_argument("--samples", type=int, default=8, help="how many samples to draw (default: %(default)s)")
    parser.add_argument("--start", type=int, default=0, help="position of the first one (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the augmentation (default: %(default)s)")
    parser.add_argument("--work-dir", type=Path, help="folder for results (default: work_dirs/<config name>)")
    return parser.parse_args()


def main() -> None:
    """Draw."""
    arguments = parse_arguments()
    config = read_config(arguments)
    init_default_scope(config.get("default_scope", "sparse3d"))
    torch.manual_seed(arguments.seed)
    try:
        dataset = DATASETS.build(config[f"{arguments.split}_dataloader"].dataset)
    except (OSError, ValueError) as error:
        raise SystemExit(f"browse_dataset: {error}") from error
    rows = range(len(dataset))[arguments.start : arguments.start + arguments.samples]
    if not len(rows):
        raise SystemExit(f"browse_dataset: no sample {arguments.start}, the {arguments.split} set has {len(dataset)}")
    folder, grid = work_dir(arguments) / f"browse_{arguments.split}", Grid.build(config.grid)
    for row in track(rows, "drawing"):
        draw(dataset[row], folder, f"{row:06d}", grid, config.class_names)
    print(f"pictures of {len(rows)} samples are in {folder}")


def draw(sample: Sample, folder: Path, name: str, grid: Grid, class_names: Sequence[str]) -> None:
    """Write the pictures of a sample."""
    token = sample.frame.token
    file, title, gt = f"{name}_{re.sub(r'[^A-Za-z0-9.-]', '_', token)}.png", f"{name}  {token}", sample.get("gt")
    points = sample.get("points", torch.zeros(0, 3))
    style = dict(title=title, color_truth=True)
    extent = (*grid.lower[:2], *grid.upper[:2])
    save_image(folder / f"bev_{file}", draw_bev(points, gt, None, class_names, extent=extent, **style))
    if "images" in sample:
        pictures = [as_picture(image) for image in sample.images]
        save_image(
            folder / f"cameras_{file}", draw_cameras(pictures, sample.cameras, gt, None, class_names, title=title)
        )


def as_picture(image: Tensor) -> np.ndarray:
    """Return an image ``[3, H, W]`` as ``[H, W, 3]`` uint8; one that is normalised is stretched to the full range."""
    if image.dtype != torch.uint8:
        low, high = image.min(), image.max()
        image = ((image - low) / (high - low).clamp(min=1e-6) * 255).round().to(torch.uint8)
    return image.permute(1, 2, 0).contiguous().numpy()


if __name__ == "__main__":
    main()
