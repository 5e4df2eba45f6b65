"""What was found in one sample, with names, and the formats that others read.

    nuScenes   world frame, (w, l, h), quaternion: the records of the benchmark's result file
    Waymo      vehicle frame: the JSON form of the protocol buffer `metrics.Objects`
    KITTI      camera frame (x right, y down, z forward), bottom centre, rotation about y: lines of a label file
    JSON       LiDAR frame, gravity centre, yaw: our own convention, for everything else

Deployed models return this too, so nothing here needs mmengine except the rule of nuScenes' attributes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from .structures import Boxes3D, Cameras, Detections, Frame

WAYMO_TYPES = MappingProxyType(
    {
        **dict.fromkeys(("vehicle", "car", "truck", "bus", "trailer", "construction_vehicle"), "TYPE_VEHICLE"),
        "motorcycle": "TYPE_VEHICLE",
        "pedestrian": "TYPE_PEDESTRIAN",
        **dict.fromkeys(("cyclist", "bicycle"), "TYPE_CYCLIST"),
    }
)
KITTI_TYPES = MappingProxyType({"vehicle": "Car", "bicycle": "Cyclist"})  # others: their own name, capitalised
KITTI_UNKNOWN = "-1 -1"  # truncation and occlusion are not predicted


@dataclass(frozen=True)
class NamedDetections(Detections):
    """Boxes of one sample, in descending order of score, with what is needed to hand them on.

    Args:
        boxes: M boxes in the LiDAR frame.
        scores: ``[M]`` float32.
        labels: ``[M]`` int64, positions in ``class_names``.
        class_names: names of the labels.
        frame: where the sample comes from, for its poses and token; None for points without any.
    """

    class_names: tuple[str, ...] = ()
    frame: Frame | None = None

    @classmethod
    def of(cls, found: Detections, class_names: Sequence[str], frame: Frame | None = None) -> NamedDetections:
        """Give names to detections (anything with ``boxes``, ``scores`` and ``labels``); tensors come to the CPU."""
        boxes, scores, labels = found.boxes.detach().to("cpu"), found.scores.detach().cpu(), found.labels.cpu()
        return cls(boxes, scores, labels, tuple(class_names), frame)

    @property
    def names(self) -> list[str]:
        """Name of each box's class."""
        return [self.class_names[label] for label in self.labels.tolist()]

    def above(self, score: float) -> NamedDetections:
        """Return the detections with at least this score."""
        return self.select(self.scores >= score)

    def select(self, mask: torch.Tensor) -> NamedDetections:
        """Return the detections where ``mask`` ``[M]`` is true."""
        return NamedDetections(self.boxes[mask], self.scores[mask], self.labels[mask], self.class_names, self.frame)

    def to_nuscenes(self) -> list[dict[str, Any]]:
        """Return the records of this sample for the ``results`` of nuScenes' result file, in the world frame.

        Attributes follow from class and speed; of more than 500 boxes, those with the highest scores.

        Raises:
            ValueError: without a frame, or if a class is none of the benchmark's.
        """
        from .evaluation.nuscenes_submission import NO_MODALITY, Submission, sample_records
        from .evaluation.nuscenes_world import world_detections

        frame = self._need_frame("to_nuscenes", "nuScenes' boxes stand in the world frame")
        found = world_detections(frame, self.boxes, self.scores, self.labels, self.class_names)
        [(_, records)] = sample_records(Submission((frame.token,), found, self.class_names, NO_MODALITY))
        return records

    def to_waymo(self) -> dict[str, Any]:
        """Return the sample as the JSON form of ``metrics.Objects``, boxes in the vehicle frame.

        ``google.protobuf.json_format.ParseDict`` reads it. Without a frame, the LiDAR frame is taken for the vehicle's,
        and context and time are left out. Objects of classes that Waymo does not have (cones, barriers) are left out.
        """
        boxes = self.boxes.to(torch.float64)
        context: dict[str, Any] = {}
        if self.frame is not None:
            boxes = boxes.transform(self.frame.lidar2ego)
            context = {"contextName": self.frame.scene, "frameTimestampMicros": str(self.frame.timestamp)}
        rows = zip(boxes.tensor.tolist(), self.scores.tolist(), self.names, strict=True)
        return {
            "objects": [
                {"object": {"box": _waymo_box(box), "type": WAYMO_TYPES[name.lower()]}, "score": score, **context}
                for box, score, name in rows
                if name.lower() in WAYMO_TYPES
            ]
        }

    def to_kitti(self, cameras: Cameras, camera: int = 0) -> list[str]:
        """Return the lines of a KITTI label file for one camera.

        Args:
            cameras: the calibrated rig; ``lidar2cam`` is from the frame of the boxes.
            camera: which of its cameras.

        Returns:
            A line for each box that is in the image at least in part: class, -1, -1, alpha, the rectangle in pixels,
            height, width, length, bottom centre in camera coordinates, rotation about the camera's y axis, score.

        Source: the object development kit's readme of the KITTI benchmark.
        """
        rectangles, seen = _rectangles(self.boxes, cameras, camera)
        centers, turns = _in_camera(self.boxes, cameras.lidar2cam[camera].cpu().numpy())
        sizes, scores, names = self.boxes.sizes.numpy(), self.scores.tolist(), self.names
        lines = []
        for row in np.flatnonzero(seen):
            length, width, height = sizes[row]
            alpha = _wrap(turns[row] - math.atan2(centers[row, 0], centers[row, 2]))
            numbers = [alpha, *rectangles[row], height, width, length, *centers[row], turns[row], scores[row]]
            lines.append(f"{_kitti_type(names[row])} {KITTI_UNKNOWN} " + " ".join(f"{each:.4f}" for each in numbers))
        return lines

    def to_json(self) -> str:
        """Return the sample as JSON: our own box convention, metres, radians, m/s; null for an unknown velocity."""
        columns = (self.boxes.tensor.tolist(), self.boxes.velocities.tolist(), self.scores.tolist(), self.names)
        content = {
            "frame": None if self.frame is None else self.frame.token,
            "box": "x, y, z, l, w, h, yaw in the LiDAR frame; gravity centre, yaw counter-clockwise from +x",
            "detections": [
                {"class": name, "score": score, "box": box[:7], "velocity": _known(velocity)}
                for box, velocity, score, name in zip(*columns, strict=True)
            ],
        }
        return json.dumps(content, allow_nan=False)

    def _need_frame(self, method: str, why: str) -> Frame:
        if self.frame is None:
            raise ValueError(f"{method}: {why}, and these detections come without poses; detect in a sample that has")
        return self.frame


def _known(velocity: list[float]) -> list[float] | None:
    return velocity if all(map(math.isfinite, velocity)) else None


def _waymo_box(box: list[float]) -> dict[str, float]:
    names = ("centerX", "centerY", "centerZ", "length", "width", "height", "heading")
    return dict(zip(names, box, strict=False))


def _kitti_type(name: str) -> str:
    return KITTI_TYPES.get(name.lower(), name[:1].upper() + name[1:])


def _wrap(angle: float) -> float:
    return (angle + math.pi) % (2 * math.pi) - math.pi


def _in_camera(boxes: Boxes3D, lidar2cam: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return bottom centres ``[M, 3]`` and rotations about y ``[M]`` in the camera's frame."""
    array = boxes.numpy().astype(np.float64)
    bottoms = array[:, :3] - np.stack([np.zeros(len(array))] * 2 + [array[:, 5] / 2], axis=1)
    headings = np.stack([np.cos(array[:, 6]), np.sin(array[:, 6]), np.zeros(len(array))], axis=1) @ lidar2cam[:3, :3].T
    return bottoms @ lidar2cam[:3, :3].T + lidar2cam[:3, 3], np.arctan2(-headings[:, 2], headings[:, 0])


def _rectangles(boxes: Boxes3D, cameras: Cameras, camera: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rectangles ``(left, top, right, bottom)`` ``[M, 4]`` round the corners, cut to the image, and a mask.

    Corners behind the camera do not count; a box that lies behind it or beside the image is masked out.
    """
    rig = cameras[camera : camera + 1]
    pixels = rig.project(boxes.corners().reshape(-1, 3))[0][0].reshape(-1, 8, 2).cpu().numpy()
    in_front = np.isfinite(pixels).all(axis=2)
    height, width = rig.image_sizes[0].tolist()
    low = np.where(in_front[..., None], pixels, np.inf).min(axis=1)
    high = np.where(in_front[..., None], pixels, -np.inf).max(axis=1)
    rectangles = np.clip(np.concatenate([low, high], axis=1), 0, [width, height, width, height])
    seen = in_front.any(axis=1) & (rectangles[:, 0] < rectangles[:, 2]) & (rectangles[:, 1] < rectangles[:, 3])
    return rectangles, seen
