"""WaymoMetric: the Waymo detection metrics, for LiDAR and for cameras alone, as a metric of mmengine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from mmengine.logging import MMLogger

from ..registry import METRICS
from ..structures import Frame
from .waymo import CAMERA_ONLY, DETECTION_3D, WaymoResult, evaluate_waymo
from .waymo_boxes import WaymoDetections, WaymoGroundTruth
from .waymo_frame_metric import ScoredFrame, WaymoFrameMetric
from .waymo_submission import write_detections
from .waymo_tables import frame_detections, frame_ground_truth

TASKS = MappingProxyType({"lidar": DETECTION_3D, "camera": CAMERA_ONLY})


@METRICS.register_module()
class WaymoMetric(WaymoFrameMetric):
    """Score detections as the Waymo benchmark does, and write its files.

    See ``evaluate_waymo`` for the definitions and ``WaymoResult.to_dict`` for the entries that are returned, here with
    a prefix: ``waymo/mAPH/L2``, ``waymo/AP/RANGE_TYPE_VEHICLE_[0, 30)_LEVEL_1``. Means are over the classes there are.

    Args:
        class_names: names of the labels, some of ``Vehicle``, ``Pedestrian``, ``Sign``, ``Cyclist``.
        task: ``"lidar"`` (3D IoU; AP and APH) or ``"camera"`` (LET-3D-AP, -APH and -APL on camera-synced boxes).
        submission: arguments of ``SubmissionInfo`` and ``path``, the file to write; None: nowhere.
        prefix: of the returned entries, ``waymo`` by default.
        collect_device: where results of several processes are gathered, ``cpu`` or ``gpu``.

    Raises:
        ValueError: if a name is no class of Waymo, or the task is unknown.
    """

    default_prefix = "waymo"

    def __init__(
        self,
        class_names: Sequence[str],
        task: str = "lidar",
        submission: Mapping[str, Any] | None = None,
        prefix: str | None = None,
        collect_device: str = "cpu",
    ) -> None:
        super().__init__(class_names, submission, prefix, collect_device)
        if task not in TASKS:
            raise ValueError(f"WaymoMetric: task must be one of {tuple(TASKS)}, got {task!r}")
        self.task = task

    def predictions_of(self, frame: Frame, pred: Mapping[str, Any]) -> WaymoDetections:
        """Return the detections of a frame: ``boxes`` (``Boxes3D``), ``scores`` ``[M]`` and ``labels`` ``[M]``."""
        return frame_detections(frame, pred["boxes"], pred["scores"], pred["labels"], self.class_names)

    def truth_of(self, frame: Frame) -> WaymoGroundTruth:
        """See ``WaymoFrameMetric``."""
        return frame_ground_truth(frame.annotations, self.class_names, self.task == "camera")

    def write(self, results: Sequence[ScoredFrame]) -> None:
        """See ``WaymoFrameMetric``."""
        keys = [frame.key for frame in results]
        write_detections(self.path, keys, _detections(results), self.info, camera_only=self.task == "camera")

    def score(self, results: Sequence[ScoredFrame]) -> dict[str, float]:
        """See ``WaymoFrameMetric``."""
        truth = WaymoGroundTruth.concatenate([frame.ground_truth for frame in results])
        whole = evaluate_waymo(truth, _detections(results), TASKS[self.task])
        types = tuple(f"TYPE_{name.upper()}_" for name in self.class_names)
        rows = {name: row for name, row in whole.rows.items() if any(each in name for each in types)}
        result = WaymoResult(rows, whole.levels)
        MMLogger.get_current_instance().info("Waymo detection (%s)\n%s", self.task, result.table())
        return result.to_dict()


def _detections(results: Sequence[ScoredFrame]) -> WaymoDetections:
    return WaymoDetections.concatenate([frame.predictions for frame in results])
