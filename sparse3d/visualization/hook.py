"""Pictures of the first samples of a test run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ..datasets.transforms import LoadAnnotations, LoadImages, move_world
from ..registry import HOOKS
from ..structures import Frame, Sample
from .draw import draw_bev, draw_cameras
from .files import save_image
from .skeletons import draw_skeletons, has_skeletons
from .web import write_scene_html


@HOOKS.register_module()
class VisualizationHook(Hook):
    """Write ``bev_<token>.png``, ``cameras_<token>.png`` and, at the end of the test, ``scene.html`` with all samples.

    Where keypoints are predicted, ``people_<token>.png`` shows the nearest people with them.

    Everything is drawn in the LiDAR frame as recorded. Ground truth are the frame's annotations of ``class_names`` with
    at least one LiDAR point, or the sample's ``gt`` where the frame has none. Cameras whose image file is missing are
    left out. In a distributed run the main process draws, out of its own share of the samples.

    Args:
        out_dir: folder of the pictures; it is made where it is missing.
        class_names: names in the order of the labels.
        max_samples: number of samples to draw, from the first on.
        score_threshold: pictures leave out predictions below it; the page has a slider that starts there.

    Raises:
        ValueError: if ``max_samples`` is below 1.
    """

    def __init__(
        self, out_dir: str, class_names: Sequence[str], max_samples: int = 10, score_threshold: float = 0.3
    ) -> None:
        if max_samples < 1:
            raise ValueError(f"VisualizationHook: max_samples must be at least 1, got {max_samples}")
        self.out_dir = Path(out_dir)
        self.class_names = class_names
        self.max_samples = max_samples
        self.score_threshold = score_threshold
        self.samples: list[Sample] = []

    def before_test(self, runner: Runner) -> None:
        """Forget the samples of an earlier test."""
        self.samples = []

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence[Sample] | None = None
    ) -> None:
        """Draw the samples of this batch while there is room."""
        if not is_main_process():
            return
        for sample in (outputs or [])[: self.max_samples - len(self.samples)]:
            shown = _as_recorded(sample, self.class_names)
            self._write_pictures(shown)
            self.samples.append(shown)

    def after_test(self, runner: Runner) -> None:
        """Write the page."""
        if not self.samples:
            return
        path = self.out_dir / "scene.html"
        write_scene_html(path, self.samples, self.class_names, score_threshold=self.score_threshold)
        runner.logger.info(f"Pictures of {len(self.samples)} samples are in {self.out_dir}; open {path} in a browser.")

    def _write_pictures(self, sample: Sample) -> None:
        frame: Frame = sample.frame
        style = dict(score_threshold=self.score_threshold, title=f"{frame.scene}   {frame.token}".strip())
        boxes = (sample.get("gt"), sample.get("pred"), self.class_names)
        name = re.sub(r"[^\w.-]", "_", frame.token)
        points = sample.get("points", np.zeros((0, 3)))
        save_image(self.out_dir / f"bev_{name}.png", draw_bev(points, *boxes, **style))
        cameras = tuple(camera for camera in frame.cameras if Path(camera.path).is_file())
        if cameras:
            seen = LoadImages()(Sample.from_frame(replace(frame, cameras=cameras)), np.random.default_rng(0))
            images = [image.permute(1, 2, 0).numpy() for image in seen.images]
            save_image(self.out_dir / f"cameras_{name}.png", draw_cameras(images, seen.cameras, *boxes, **style))
        if has_skeletons(sample.get("gt"), sample.pred, self.score_threshold):
            rig = dict(images=images, cameras=seen.cameras) if cameras else {}
            picture = draw_skeletons(points, sample.get("gt"), sample.pred, **rig, **style)
            save_image(self.out_dir / f"people_{name}.png", picture)


def _as_recorded(sample: Sample, class_names: Sequence[str]) -> Sample:
    """Return points, ground truth and predictions in the LiDAR frame as recorded, on the CPU."""
    fields = {name: sample.get(name).to("cpu") for name in ("points", "gt") if name in sample}
    moved = move_world(Sample(metainfo={"lidar_aug": sample.lidar_aug}, **fields), np.linalg.inv(sample.lidar_aug))
    shown = Sample.from_frame(sample.frame).replace(**dict(moved.items()), pred=sample.pred.to("cpu"))
    if sample.frame.annotations is None:
        return shown
    load = LoadAnnotations(class_names, min_points=1, keypoints="keypoints" in sample.pred)
    return load(shown, np.random.default_rng(0))
