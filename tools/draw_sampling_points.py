"""Draw where the best queries of a camera detector look: the points of its last layer, in the images of one frame.

    python tools/draw_sampling_points.py CONFIG CHECKPOINT --out points.png
    python tools/draw_sampling_points.py CONFIG work_dirs/NAME --split val --sample 3 --queries 5 --out points.png

Each query has a colour. A point is drawn in the image of the camera that looks at it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from common import add_config, add_sample, load_sample, load_weights, plain_errors, read_config
from matplotlib import colormaps
from mmengine.config import Config
from mmengine.registry import init_default_scope

from sparse3d.analysis.sampled_points import SampledPoints, watch_sampling
from sparse3d.models import Detector3D, SparseBEVHead
from sparse3d.registry import MODELS
from sparse3d.structures import Cameras, Sample
from sparse3d.visualization import draw_cameras, save_image

PALETTE = "tab20"
RADIUS = 1 / 160  # of a point, in image widths


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config(parser)
    add_sample(parser)
    parser.add_argument("--out", type=Path, required=True, help="picture to write, .png")
    parser.add_argument("--frame", type=int, default=0, help="0 is the present one (default: %(default)s)")
    parser.add_argument("--queries", type=int, default=20, help="how many of the best (default: %(default)s)")
    return parser.parse_args()


def main() -> None:
    """Draw."""
    arguments = parse_arguments()
    config = read_config(arguments)
    init_default_scope(config.default_scope)
    with plain_errors("draw_sampling_points"):
        detector = build_detector(config, arguments.checkpoint)
    if not 0 <= arguments.frame < detector.head.num_frames:
        raise SystemExit(f"draw_sampling_points: the detector has frames 0 to {detector.head.num_frames - 1}")
    sample = load_sample(config, arguments.split, arguments.sample)
    with watch_sampling(detector.head) as watch:
        [found] = detector.test_step([sample])
    images, rig = images_of(sample, arguments.frame, detector.head.num_frames)
    paint(images, watch.best(arguments.queries, arguments.frame))
    pred = found.pred[: arguments.queries]
    picture = draw_cameras(images, rig, sample.gt, pred, config.class_names, score_threshold=0.0, title="Sampling")
    save_image(arguments.out, picture)
    print(f"picture: {arguments.out}")


def build_detector(config: Config, checkpoint: Path) -> Detector3D:
    """Return the config's detector with trained weights."""
    detector = MODELS.build(config.model).eval()
    if not isinstance(detector.head, SparseBEVHead):
        raise SystemExit(f"draw_sampling_points: {type(detector.head).__name__} samples no points")
    load_weights(detector, checkpoint)
    return detector


def images_of(sample: Sample, frame: int, num_frames: int) -> tuple[list[np.ndarray], Cameras]:
    """Return the images ``[H, W, 3]`` of a frame, to be painted on, and its cameras."""
    count = len(sample.cameras) // num_frames
    own = slice(frame * count, (frame + 1) * count)
    images = [np.ascontiguousarray(image.permute(1, 2, 0).numpy()) for image in sample.images[own]]
    return images, sample.cameras[own]


def paint(images: list[np.ndarray], sampled: SampledPoints) -> None:
    """Paint points into the images of the cameras that look at them, a colour a query."""
    palette = (np.array(colormaps[PALETTE].colors) * 255).astype(int)
    pixels, cameras = sampled.pixels.flatten(1, 2).tolist(), sampled.cameras.flatten(1, 2).tolist()
    for row, (places, seen_by) in enumerate(zip(pixels, cameras, strict=True)):
        color = tuple(int(part) for part in palette[row % len(palette)])
        for (u, v), camera in zip(places, seen_by, strict=True):
            image = images[camera]
            if 0 <= u < image.shape[1] and 0 <= v < image.shape[0]:
                radius = max(1, round(image.shape[1] * RADIUS))
                cv2.circle(image, (int(u), int(v)), radius, color, thickness=-1, lineType=cv2.LINE_AA)


if __name__ == "__main__":
    main()
