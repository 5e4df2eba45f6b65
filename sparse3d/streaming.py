"""Camera detectors of several frames on a stream: each image goes through the backbone once.

Offline, a sample brings the images of all its frames. Here it brings those of the present one, and the features of
earlier frames are kept. Which of them a detector sees is the same choice as offline (`datasets.history`): those nearest
to certain ages, with the oldest where the stream does not reach so far, and the frame itself where it is the first.

A stream that breaks begins anew: at another scene, at a frame that is not later than the one before, and after a gap
that is longer than the detector looks back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from mmengine.logging import print_log
from torch import Tensor

from .datasets.history import nearest
from .decoding.image_boxes import ImageDetections
from .models import Detector3D, Features
from .structures import Cameras, Frame, Sample


@dataclass(frozen=True)
class SeenFrame:
    """What is kept of a frame.

    Args:
        frame: its record.
        cameras: of its own LiDAR frame.
        maps: one ``[1, N, C, H, W]`` a level; None where the detector wants no other frames and keeps none.
        detections: boxes in its images, where the detector has a 2D one.
    """

    frame: Frame
    cameras: Cameras
    maps: tuple[Tensor, ...] | None
    detections: ImageDetections | None


class FrameStream:
    """Detect objects in one frame after the other.

    Args:
        detector: with an image branch and no point branch; it is run in eval mode, without gradients.
        ages: seconds before a frame at which the detector wants others, as ``past`` of the data set; none may lie
            after it.
        longest_gap: seconds between two frames after which the stream begins anew; None means the largest age, but at
            least one second.

    Attributes:
        restart: why the last frame began the stream anew, or None if it did not.

    Raises:
        ValueError: if the detector reads points, or an age lies in the future.
    """

    def __init__(self, detector: Detector3D, ages: Sequence[float], longest_gap: float | None = None) -> None:
        if detector.image_branch is None or detector.point_branch is not None:
            raise ValueError("FrameStream: expected a detector with an image branch alone")
        if any(age <= 0 for age in ages):
            raise ValueError(f"FrameStream: a stream knows no frames after the present one, got ages {tuple(ages)}")
        self.detector = detector.eval()
        self.ages = np.asarray(ages, dtype=np.float64) * 1e6
        longest_gap = max([1.0, *ages]) if longest_gap is None else longest_gap
        self.longest_gap = longest_gap * 1e6
        self.restart: str | None = None
        self._seen: list[SeenFrame] = []

    @torch.no_grad()
    def __call__(self, sample: Sample) -> Sample:
        """Return the sample with ``pred``.

        Args:
            sample: with the ``frame``, and ``images`` and ``cameras`` of this frame alone.

        Raises:
            ValueError: if the sample brings other frames.
        """
        if sample.get("past", ()):
            raise ValueError("FrameStream: the sample brings past frames; load it without `past`")
        self.restart = self._break_before(sample.frame)
        if self.restart:
            print_log(f"frame {sample.frame.token} begins the stream anew: {self.restart}", "current")
            self._seen.clear()
        batch = self.detector.data_preprocessor([sample])["batch"]
        features = self.detector.image_branch(batch)
        now = SeenFrame(sample.frame, batch.cameras[0], features.images, features.detections)
        whole = _stack([now, *self._others(now)], features.image_size) if len(self.ages) else features
        self._keep(now)
        [pred] = self.detector.head.predict(whole, [sample])
        return sample.replace(pred=sample.as_recorded(pred))

    def _break_before(self, frame: Frame) -> str | None:
        """Return why a frame cannot follow the last one."""
        if not self._seen:
            return None
        last = self._seen[-1].frame
        step = frame.timestamp - last.timestamp
        if frame.scene != last.scene:
            return f"scene {frame.scene} after {last.scene}"
        if step <= 0:
            return f"it is {-step * 1e-6:.3f} s before the last one"
        if step > self.longest_gap:
            return f"{step * 1e-6:.3f} s without a frame"
        return None

    def _others(self, now: SeenFrame) -> list[SeenFrame]:
        """Return the frame that is nearest to each age."""
        if not self._seen:
            return [now] * len(self.ages)
        timestamps = np.array([each.frame.timestamp for each in self._seen])
        everything = np.arange(len(timestamps))
        wanted = now.frame.timestamp - self.ages
        return [self._seen[nearest(timestamps, everything, time)] for time in wanted]

    def _keep(self, now: SeenFrame) -> None:
        """Keep a frame, and drop those that no later frame can ask for."""
        self._seen.append(now)
        horizon = now.frame.timestamp - (self.ages.max() if len(self.ages) else 0)
        while len(self._seen) > 1 and self._seen[1].frame.timestamp <= horizon:
            del self._seen[0]


def _stack(frames: Sequence[SeenFrame], image_size: tuple[int, int]) -> Features:
    """Return the features of several frames as those of one sample, for points of the first one's LiDAR."""
    now = frames[0]
    return Features(
        images=tuple(torch.cat(level, dim=1) for level in zip(*(each.maps for each in frames), strict=True)),
        cameras=(Cameras.cat([_seen_from(each, now.frame) for each in frames]),),
        image_size=image_size,
        detections=None if now.detections is None else ImageDetections.stack([each.detections for each in frames]),
    )


def _seen_from(seen: SeenFrame, frame: Frame) -> Cameras:
    """Return the cameras of a frame that was seen, for points of another one's LiDAR and times relative to it."""
    if seen.frame is frame:
        return seen.cameras
    moved = seen.cameras.change_frame(torch.from_numpy(np.linalg.inv(frame.lidar2global) @ seen.frame.lidar2global))
    later = (seen.frame.lidar.timestamp - frame.lidar.timestamp) * 1e-6
    return replace(moved, timestamps=moved.timestamps + later)
