"""Draw the candidates of a fusion detector from above: those of the LiDAR, those of the cameras, and what they become.

python tools/draw_candidates.py CONFIG CHECKPOINT --out candidates.png
python tools/draw_candidates.py CONFIG work_dirs/NAME --split val --sample 3 --threshold 0.1 --out candidates.png

Objects are white and dashed, candidates have the colours of their classes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from common import add_config, add_sample, load_sample, load_weights, plain_errors, read_config
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import Tensor

from sparse3d.decoding.sparsefusion import decode_boxes
from sparse3d.models import Detector3D, SparseFusionHead
from sparse3d.models.heads.sparsefusion_layers import Predictions
from sparse3d.registry import MODELS
from sparse3d.structures import Boxes3D, Grid, InstanceData, Sample
from sparse3d.visualization import draw_bev, save_image


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config(parser)
    add_sample(parser)
    parser.add_argument("--out", type=Path, required=True, help="picture to write, .png")
    parser.add_argument("--threshold", type=float, default=0.1, help="lowest score drawn (default: %(default)s)")
    return parser.parse_args()


def main() -> None:
    """Draw."""
    arguments = parse_arguments()
    config = read_config(arguments)
    init_default_scope(config.default_scope)
    with plain_errors("draw_candidates"):
        detector = build_detector(config, arguments.checkpoint)
    sample = load_sample(config, arguments.split, arguments.sample)
    panels = [
        draw_bev(
            sample.points,
            sample.gt,
            found,
            config.class_names,
            score_threshold=arguments.threshold,
            title=title,
            extent=extent_of(detector.head.grid),
        )
        for title, found in candidates(detector, sample).items()
    ]
    save_image(arguments.out, np.concatenate(panels, axis=1))
    print(f"picture: {arguments.out}")


def extent_of(grid: Grid) -> tuple[float, float, float, float]:
    """Return the grid's ``(x0, y0, x1, y1)`` in metres."""
    return (*grid.lower[:2], *grid.upper[:2])


def build_detector(config: Config, checkpoint: Path) -> Detector3D:
    """Return the config's detector with trained weights."""
    detector = MODELS.build(config.model).eval()
    if not isinstance(detector.head, SparseFusionHead):
        raise SystemExit(f"draw_candidates: {type(detector.head).__name__} has no candidates of several sensors")
    load_weights(detector, checkpoint)
    return detector


@torch.no_grad()
def candidates(detector: Detector3D, sample: Sample) -> dict[str, InstanceData]:
    """Return what each sensor's candidates say about a sample, and the detector's final boxes."""
    head = detector.head
    output = head(detector.extract_features(detector.data_preprocessor([sample])["batch"]))
    lidar, camera = output.lidar_queries, output.camera_queries
    [fused] = head.predict_from_output(output)
    return {
        "LiDAR": scored(output.lidar, lidar.labels, lidar.heat, head.grid),
        "Cameras, lifted": scored(output.view, camera.labels, camera.heat, head.grid),
        "Fused": fused,
    }


def scored(said: Predictions, labels: Tensor, heat: Tensor, grid: Grid) -> InstanceData:
    """Return the candidates of the first sample of a batch: the class of their peak, its heat times their own score."""
    own = said.logits.gather(2, labels[..., None])[..., 0].sigmoid()
    return InstanceData(boxes=Boxes3D(decode_boxes(said.codes, grid)[0]), scores=(own * heat)[0], labels=labels[0])


if __name__ == "__main__":
    main()
