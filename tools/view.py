"""Look at frames in 3D: points, boxes, camera images, and what the model looked at, along the time line.

    python tools/view.py pillar_demo --html scene.html
    python tools/view.py pillar_demo --weights work_dirs/demo --frames 0:40
    python tools/view.py dsvt_pillar_nuscenes --data data/nuscenes --frames 100:140

With `--html` one file is written that opens offline; with `--open3d` a window opens on this machine (extra `open3d`);
without either, a page is served until Ctrl-C (viser, extra `web`). The frames are those of the config's test set, or of
an index or info file in the folder `--data`. With weights there are layers to switch on and off: the points that
SparseBEV samples, the voxels that focal convolutions keep and grow.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from common import CFG_OPTIONS_HELP, plain_errors
from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from sparse3d.analysis.model_layers import watch_layers
from sparse3d.config import load_config
from sparse3d.datasets.frame_dataset import open_frames
from sparse3d.datasets.transforms import Compose, LoadAnnotations, LoadImages, LoadPoints
from sparse3d.inference import Detector, is_loader
from sparse3d.progress import track
from sparse3d.structures import Frame, Sample
from sparse3d.visualization import write_scene_html
from sparse3d.visualization.desktop import show_scene
from sparse3d.zoo import find_config


class ShownFrames:
    """Frames as they are looked at: recorded points and images, all annotated objects, and what a detector finds.

    Args:
        frames: of an index.
        config: whose loaders read the points, and whose classes are shown.
        detector: finds objects; None shows none.
        images: show camera images.
    """

    def __init__(self, frames: Sequence[Frame], config: Config, detector: Detector | None, images: bool) -> None:
        self.frames, self.detector, self.images = frames, detector, images
        steps = [step for step in config.test_dataloader.dataset.pipeline if is_loader(step)]
        steps = [step for step in steps if step["type"] != LoadImages.__name__]  # all cameras are shown, as recorded
        self.load = Compose(steps or [LoadPoints()])
        self.annotate = LoadAnnotations(config.class_names, min_points=1)

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, item: int) -> Sample:
        """Return a frame with everything there is."""
        frame, rng = self.frames[item], np.random.default_rng(0)
        sample = self.load(Sample.from_frame(frame), rng)
        if self.images and frame.cameras:
            sample = LoadImages()(sample, rng)
        if frame.annotations is not None:
            sample = self.annotate(sample, rng)
        if self.detector is None:
            return sample
        prepared = self.detector.preparation(frame)
        with watch_layers(self.detector.model) as layers:
            [found] = self.detector.detect([prepared])
        pred = InstanceData(boxes=found.boxes, scores=found.scores, labels=found.labels)
        return sample.replace(pred=pred, layers=layers(prepared.lidar_aug))


def main() -> None:
    """Write the page, or serve it."""
    arguments = parse_arguments()
    config = load_config(find_config(arguments.config), arguments.cfg_options)
    init_default_scope(config.default_scope)
    with plain_errors("view"):
        detector = None
        if arguments.weights:
            detector = Detector(arguments.config, arguments.weights, options=arguments.cfg_options)
        shown = ShownFrames(chosen_frames(config, arguments), config, detector, arguments.images)
        if not (arguments.html or arguments.open3d):
            serve(shown, config.class_names, arguments)
            return
        samples = [shown[row] for row in track(range(len(shown)), "reading")]
        style = dict(title=Path(config.filename).stem, score_threshold=arguments.score)
        if arguments.html:
            write_scene_html(arguments.html, samples, config.class_names, **style)
        if arguments.open3d:
            show_scene(samples, config.class_names, **style)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="name of the zoo (tools/zoo.py lists them) or config file")
    parser.add_argument("--weights", type=Path, help="checkpoint, or a work directory for its newest one")
    parser.add_argument("--data", type=Path, help="folder with an index or info file instead of the config's test set")
    parser.add_argument("--frames", default="0:10", metavar="FROM:TO", help="which frames (default: %(default)s)")
    parser.add_argument("--score", type=float, default=0.3, help="where the score slider starts (default: %(default)s)")
    parser.add_argument("--no-images", dest="images", action="store_false", help="leave out the camera images")
    parser.add_argument("--html", type=Path, help="write one file that opens offline, and end")
    parser.add_argument("--open3d", action="store_true", help="open a window on this machine")
    parser.add_argument("--port", type=int, default=8080, help="where to serve (default: %(default)s)")
    parser.add_argument(
        "--cfg-options", nargs="+", action=DictAction, default={}, metavar="KEY=VALUE", help=CFG_OPTIONS_HELP
    )
    return parser.parse_args()


def chosen_frames(config: Config, arguments: argparse.Namespace) -> list[Frame]:
    """Return the frames to show."""
    dataset = config.test_dataloader.dataset
    root = arguments.data or Path(dataset.data_root)
    index = root / dataset.index
    if arguments.data:
        found = sorted(root.glob("sparse3d_*.arrow")) or sorted(root.glob("*.pkl"))
        if not found:
            raise SystemExit(f"view: {root} holds neither an index (sparse3d_*.arrow) nor an info file (*.pkl)")
        index = found[0]
    frames = open_frames(root, index)
    first, _, last = arguments.frames.partition(":")
    rows = range(len(frames))[int(first or 0) : int(last or len(frames))]
    if not rows:
        raise SystemExit(f"view: there are {len(frames)} frames, none of them in {arguments.frames}")
    return [frames[row] for row in rows]


def serve(shown: ShownFrames, class_names: Sequence[str], arguments: argparse.Namespace) -> None:
    """Serve until Ctrl-C."""
    from sparse3d.visualization.server import SceneServer

    server = SceneServer(shown, class_names, arguments.port, arguments.score)
    print(f"http://localhost:{server.port}   (Ctrl-C ends)", flush=True)
    try:
        while True:
            time.sleep(1)
    except KeyboardInterrupt:
        server.stop()


if __name__ == "__main__":
    main()
