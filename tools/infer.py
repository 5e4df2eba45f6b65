"""Detect objects in scans, camera rigs, or the frames of an index.

    python tools/infer.py pillar_demo configs/demo/scan.npy
    python tools/infer.py dsvt_pillar_nuscenes scans/ --weights dsvt.safetensors --out found --html found.html
    python tools/infer.py sparsebev_r50_nuimg_704x256 rig.json --weights sparsebev.safetensors

An input is a point file (.bin, .pcd, .npy, .ply), a folder of them, an index (.arrow) or info file (.pkl), or a rig
(.json): {camera: {"image": file, "intrinsic": 3x3, "lidar2cam": 4x4, "delay": seconds}}, and {"points": file} beside
the cameras for fusion models. Files are named relative to the rig.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch
from common import CFG_OPTIONS_HELP, plain_errors
from mmengine.config import DictAction
from mmengine.structures import InstanceData

from sparse3d.datasets.frame_dataset import open_frames
from sparse3d.datasets.point_files import READERS, read_scan
from sparse3d.datasets.transforms import frame_cameras
from sparse3d.inference import Detector, camera_sample
from sparse3d.progress import track
from sparse3d.results import NamedDetections
from sparse3d.structures import Cameras, Frame, Sample
from sparse3d.visualization import write_scene_html
from sparse3d.visualization.files import write_file

INDEXES = (".arrow", ".pkl")
RIG = ".json"


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="name of the zoo (tools/zoo.py lists them) or config file")
    parser.add_argument("inputs", type=Path, nargs="+", help="point files, folders, indexes or rigs, see above")
    parser.add_argument(
        "--weights",
        type=Path,
        help="checkpoint, or a work directory for its newest one (default: those that come with the model)",
    )
    parser.add_argument("--data-root", type=Path, help="folder of an index's files (default: that of the index)")
    parser.add_argument("--score", type=float, default=0.1, help="leave out what scores less (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="folder for one file an input")
    parser.add_argument(
        "--format", choices=["json", "nuscenes", "waymo", "kitti"], default="json", help="(default: %(default)s)"
    )
    parser.add_argument("--camera", type=int, default=0, help="position of the camera that KITTI labels are for")
    parser.add_argument("--html", type=Path, help="write a 3D page, which opens offline")
    parser.add_argument(
        "--html-inputs", type=int, default=20, metavar="N", help="of the first N inputs (default: %(default)s)"
    )
    parser.add_argument("--batch-size", type=int, default=1, help="(default: %(default)s)")
    parser.add_argument("--device", help="where to run (default: a GPU if there is one)")
    parser.add_argument(
        "--cfg-options", nargs="+", action=DictAction, default={}, metavar="KEY=VALUE", help=CFG_OPTIONS_HELP
    )
    return parser.parse_args()


def main() -> None:
    """Detect, print, and write."""
    arguments = parse_arguments()
    with plain_errors("infer"):
        detector = Detector(arguments.config, arguments.weights, arguments.device, arguments.cfg_options)
        inputs = [each for path in arguments.inputs for each in find_inputs(path, arguments.data_root)]
        found = detector.iterate((load(item) for _, item in inputs), arguments.batch_size)
        shown = []
        for (name, item), each in zip(inputs, track(found, "detecting", total=len(inputs)), strict=True):
            kept = each.above(arguments.score)
            print(f"{name}: {summary(kept)}")
            if arguments.out:
                write(arguments, name, item, kept)
            if arguments.html and len(shown) < arguments.html_inputs:
                shown.append(picture(detector, item, kept))
        if arguments.html:
            title = Path(detector.config.filename).stem
            write_scene_html(arguments.html, shown, detector.class_names, title=title, score_threshold=arguments.score)


def find_inputs(path: Path, data_root: Path | None) -> Iterator[tuple[str, Path | Frame]]:
    """Yield names and inputs that a path stands for.

    Raises:
        SystemExit: if a folder holds no point file, or there is nothing at the path.
    """
    if path.is_dir():
        files = sorted(each for each in path.iterdir() if each.suffix in READERS)
        if not files:
            raise SystemExit(f"infer: {path} holds no point file ({', '.join(READERS)})")
        yield from ((each.name, each) for each in files)
    elif not path.exists():
        raise SystemExit(f"infer: there is no {path}")
    elif path.suffix in INDEXES:
        yield from ((frame.token, frame) for frame in open_frames(data_root or path.parent, path.resolve()))
    else:
        yield path.name, path


def load(item: Path | Frame) -> Path | Frame | Sample:
    """Return what the detector takes."""
    return read_rig(item) if isinstance(item, Path) and item.suffix == RIG else item


def read_rig(path: Path) -> Sample:
    """Return the sample of a rig's file."""
    content = json.loads(path.read_text(encoding="utf-8"))
    points = content.pop("points", None)
    images = {name: path.parent / each["image"] for name, each in content.items()}
    return camera_sample(images, content, None if points is None else read_scan(path.parent / points))


def summary(found: NamedDetections) -> str:
    """Return how many objects of each class there are."""
    counts = Counter(found.names)
    return ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "nothing"


def write(arguments: argparse.Namespace, name: str, item: Path | Frame, found: NamedDetections) -> None:
    """Write the detections of one input."""
    if arguments.format == "kitti":
        text = "".join(f"{line}\n" for line in found.to_kitti(cameras_of(item), arguments.camera))
    elif arguments.format == "json":
        text = found.to_json()
    else:
        text = json.dumps(found.to_nuscenes() if arguments.format == "nuscenes" else found.to_waymo())
    suffix = ".txt" if arguments.format == "kitti" else ".json"
    write_file(arguments.out / f"{name}{suffix}", text.encode())


def cameras_of(item: Path | Frame) -> Cameras:
    """Return the cameras of an input as recorded."""
    if isinstance(item, Frame):
        return frame_cameras(item)
    if item.suffix != RIG:
        raise SystemExit(f"infer: KITTI's labels are for a camera, and {item} has none; give a rig or an index")
    return read_rig(item).cameras


def picture(detector: Detector, item: Path | Frame, found: NamedDetections) -> Sample:
    """Return the input with its detections, for a page."""
    pred = InstanceData(boxes=found.boxes, scores=found.scores, labels=found.labels)
    if isinstance(item, Frame):
        path, sample = item.lidar.path, Sample.from_frame(item)
    else:
        path, sample = str(item), Sample(metainfo={})
    if path.endswith(RIG):
        return sample.replace(pred=pred)
    loader = detector.preparation.load_points
    points = read_scan(path, 5 if loader is None else loader.num_features)
    return sample.replace(pred=pred, points=torch.nn.functional.pad(torch.from_numpy(points[:, :4]), (0, 1)))


if __name__ == "__main__":
    main()
