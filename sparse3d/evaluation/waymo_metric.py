"""WaymoMetric: the Waymo detection metrics, for LiDAR and for cameras alone, as a metric of mmengine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger

from ..registry import METRICS
from ..structures import Frame
from .waymo import CAMERA_ONLY, DETECTION_3D, WaymoResult, evaluate_waymo
from .waymo_boxes import WaymoDetections, WaymoGroundTruth
from .waymo_submission import FrameKey, SubmissionInfo, write_detections
from .waymo_tables import check_class_names, frame_detections, frame_ground_truth

TASKS = MappingProxyType({"lidar": DETECTION_3D, "camera": CAMERA_ONLY})


@dataclass(frozen=True, eq=False)
class ScoredFrame:
    """What the metric keeps of one frame; tables are of one frame each."""

    token: str
    key: FrameKey
    detections: WaymoDetections
    ground_truth: WaymoGroundTruth | None  # None: the frame is not annotated


@METRICS.register_module()
class WaymoMetric(BaseMetric):
    """Score detections as the Waymo benchmark does, and write its files.

    Ground truth comes from the annotations of the samples' frames; without any (the test set), the metric only writes.
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
        super().__init__(collect_device=collect_device, prefix=prefix)
        check_class_names(class_names)
        if task not in TASKS:
            raise ValueError(f"WaymoMetric: task must be one of {tuple(TASKS)}, got {task!r}")
        self.class_names = tuple(class_names)
        self.task = task
        self.path, self.info = SubmissionInfo.with_path(submission)

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Keep what is scored of each sample.

        Args:
            data_batch: not used.
            data_samples: ``Sample.to_dict()`` of each sample: ``frame``, and ``pred`` with ``boxes`` (``Boxes3D`` in
                the LiDAR frame), ``scores`` ``[M]`` and ``labels`` ``[M]``.
        """
        self.results.extend(self._scored(sample["frame"], sample["pred"]) for sample in data_samples)

    def compute_metrics(self, results: list[ScoredFrame]) -> dict[str, float]:
        """Write the submission, score the detections and log the table.

        A frame counts once, however often it was tested: frames stand in for others that could not be loaded.

        Raises:
            ValueError: if only some of the frames are annotated, or none is and no submission is wanted, or a table
                holds what cannot be scored.
        """
        results = list({frame.token: frame for frame in results}.values())
        detections = WaymoDetections.concatenate([frame.detections for frame in results])
        if self.path is not None:
            keys = [frame.key for frame in results]
            write_detections(self.path, keys, detections, self.info, camera_only=self.task == "camera")
            if results and all(frame.ground_truth is None for frame in results):
                return {}
        result = self.score(results, detections)
        MMLogger.get_current_instance().info("Waymo detection (%s)\n%s", self.task, result.table())
        return result.to_dict()

    def score(self, results: Sequence[ScoredFrame], detections: WaymoDetections) -> WaymoResult:
        """Score the detections of frames.

        Raises:
            ValueError: if a frame is not annotated.
        """
        ground_truth = [frame.ground_truth for frame in results if frame.ground_truth is not None]
        if len(ground_truth) < len(results):
            raise ValueError(
                f"WaymoMetric: {len(ground_truth)} of {len(results)} frames are annotated; to score, all must be; "
                "if none is, give a submission with a path to write the files of the benchmark"
            )
        result = evaluate_waymo(WaymoGroundTruth.concatenate(ground_truth), detections, TASKS[self.task])
        types = tuple(f"TYPE_{name.upper()}_" for name in self.class_names)
        rows = {name: row for name, row in result.rows.items() if any(each in name for each in types)}
        return WaymoResult(rows, result.levels)

    def _scored(self, frame: Frame, pred: Mapping[str, Any]) -> ScoredFrame:
        annotations, camera = frame.annotations, self.task == "camera"
        return ScoredFrame(
            token=frame.token,
            key=FrameKey.of(frame),
            detections=frame_detections(frame, pred["boxes"], pred["scores"], pred["labels"], self.class_names),
            ground_truth=None if annotations is None else frame_ground_truth(annotations, self.class_names, camera),
        )
