"""What a detector gets wrong: by class, distance, number of points and speed, with pictures of the worst frames.

    python tools/analyze_errors.py results.json data/nuscenes/sparse3d_val.arrow --gallery worst

The result file is that of the nuScenes benchmark (`test_evaluator.submission_path`, or tools/infer.py).
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
from mmengine.structures import InstanceData
from rich.console import Console
from rich.table import Table

from sparse3d.analysis.errors import KINDS, Analysis, analyze
from sparse3d.datasets.frame_dataset import open_frames
from sparse3d.datasets.transforms import LoadAnnotations
from sparse3d.datasets.transforms.loading import read_points
from sparse3d.evaluation import read_submission
from sparse3d.progress import track
from sparse3d.structures import Boxes3D, Frame, Sample
from sparse3d.visualization import draw_bev, save_image


def main() -> None:
    """Compare, print, draw."""
    arguments = parse_arguments()
    frames = open_frames(arguments.data_root or arguments.index.parent, arguments.index.resolve())
    found = analyze(read_submission(arguments.results), frames)
    print_tables(found)
    if arguments.gallery:
        worst = np.argsort(-found.mistakes(), kind="stable")[: arguments.count]
        for place, row in enumerate(track(worst, "drawing")):
            draw(found, int(row), arguments.gallery / f"{place:02d}_{found.frames[row].token}.png")


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="result file of the nuScenes benchmark")
    parser.add_argument("index", type=Path, help="index (.arrow) or info file (.pkl) with the annotations")
    parser.add_argument("--data-root", type=Path, help="folder of the index's files (default: that of the index)")
    parser.add_argument("--gallery", type=Path, help="folder for pictures of the frames with most mistakes")
    parser.add_argument("--count", type=int, default=10, help="how many pictures (default: %(default)s)")
    return parser.parse_args()


def print_tables(found: Analysis) -> None:
    """Print what was found by class, and what was missed by property."""
    console = Console()
    classes = Table("class", "score from", "objects", "found", "offset (m)", *KINDS)
    for name, threshold, count, recall, offset, kinds in found.classes():
        classes.add_row(name, _number(threshold), str(count), _number(recall), _number(offset), *map(str, kinds))
    console.print(classes)
    bins = Table("property", "from to", "objects", "found", "offset (m)")
    for name, interval, count, recall, offset in found.recalls():
        bins.add_row(name, interval, str(count), _number(recall), _number(offset))
    console.print(bins)


def draw(found: Analysis, row: int, path: Path) -> None:
    """Draw a frame with its objects and the detections that count."""
    frame: Frame = found.frames[row]
    mine = found.detections.take(found.detections.sample == row)
    boxes = Boxes3D.from_nuscenes(mine.translation, mine.size, mine.rotation, mine.velocity)
    pred = InstanceData(boxes=boxes.transform(np.linalg.inv(frame.lidar2global)), scores=mine.score, labels=mine.label)
    gt = LoadAnnotations(found.class_names, min_points=1)(Sample.from_frame(frame), np.random.default_rng(0)).gt
    points = read_points(frame.lidar.path, frame.lidar.num_features)
    title = f"{frame.scene}  {frame.token}: {found.mistakes()[row]} mistakes"
    save_image(path, draw_bev(points, gt, pred, found.class_names, score_threshold=0.0, title=title))


def _number(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "-"


if __name__ == "__main__":
    main()
