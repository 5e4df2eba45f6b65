"""What a detector gets wrong: by class and by properties of the objects, with pictures of the worst frames.

    python tools/analyze_errors.py results.json data/nuscenes/sparse3d_val.arrow --gallery worst
    python tools/analyze_errors.py results.bin data/waymo/sparse3d_val.arrow

The result file is that of a benchmark: nuScenes' `.json` (`test_evaluator.submission_path`), or Waymo's `.bin` or
`.tar.gz` (`test_evaluator.submission.path`). Objects are told apart by distance, points, speed, and what else the data
set says of them: how visible they are in nuScenes, how difficult in Waymo.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmengine.structures import InstanceData
from rich.console import Console
from rich.table import Table

from sparse3d.analysis.errors import KINDS, Analysis
from sparse3d.analysis.errors_nuscenes import analyze_nuscenes
from sparse3d.analysis.errors_waymo import analyze_waymo
from sparse3d.datasets.frame_dataset import open_frames
from sparse3d.datasets.transforms import LoadAnnotations, LoadPoints, LoadWaymoPoints
from sparse3d.evaluation import CAMERA_ONLY, DETECTION_3D, read_detections, read_submission
from sparse3d.progress import track
from sparse3d.structures import Frame, Sample
from sparse3d.visualization import draw_bev, save_image


def main() -> None:
    """Compare, print, draw."""
    arguments = parse_arguments()
    frames = open_frames(arguments.data_root or arguments.index.parent, arguments.index.resolve())
    found = compare(arguments, frames)
    print_tables(found)
    if arguments.gallery:
        worst = np.argsort(-found.mistakes(), kind="stable")[: arguments.count]
        for place, row in enumerate(track(worst, "drawing")):
            name = found.frames[row].token.replace("/", "_")
            draw(found, int(row), arguments.gallery / f"{place:02d}_{name}.png")


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="result file of a benchmark: .json, or .bin or .tar.gz")
    parser.add_argument("index", type=Path, help="index (.arrow) or info file (.pkl) with the annotations")
    parser.add_argument("--data-root", type=Path, help="folder of the index's files (default: that of the index)")
    parser.add_argument("--camera-only", action="store_true", help="Waymo's task of cameras alone")
    parser.add_argument("--gallery", type=Path, help="folder for pictures of the frames with most mistakes")
    parser.add_argument("--count", type=int, default=10, help="how many pictures (default: %(default)s)")
    return parser.parse_args()


def compare(arguments: argparse.Namespace, frames: Sequence[Frame]) -> Analysis:
    """Compare the results with the annotations, as their benchmark does."""
    if arguments.results.suffix == ".json":
        return analyze_nuscenes(read_submission(arguments.results), frames)
    protocol = CAMERA_ONLY if arguments.camera_only else DETECTION_3D
    return analyze_waymo(read_detections(arguments.results), frames, protocol)


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
    frame = found.frames[row]
    boxes, rows = found.boxes_of(row)
    pred = InstanceData(boxes=boxes, scores=found.detections.score[rows], labels=found.detections.label[rows])
    sample, rng = Sample.from_frame(frame), np.random.default_rng(0)
    gt = LoadAnnotations(found.class_names, min_points=1)(sample, rng).gt
    of_waymo = frame.annotations.waymo is not None
    load = LoadWaymoPoints() if of_waymo else LoadPoints(num_features=frame.lidar.num_features)
    points = load(sample, rng).points
    title = f"{frame.scene}  {frame.token}: {found.mistakes()[row]} mistakes"
    save_image(path, draw_bev(points, gt, pred, found.class_names, score_threshold=0.0, title=title))


def _number(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "-"


if __name__ == "__main__":
    main()
