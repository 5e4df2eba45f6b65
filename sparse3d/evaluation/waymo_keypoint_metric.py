"""WaymoKeypointMetric: the keypoint metrics as a metric of mmengine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger

from ..registry import METRICS
from ..structures import Frame
from .keypoints import KeypointResult, evaluate_keypoints
from .keypoints_boxes import KeypointTable
from .keypoints_matching import match_by_iou, match_by_mean_error
from .waymo_submission import FrameKey, SubmissionInfo, write_poses
from .waymo_tables import check_class_names, frame_people, frame_predicted_people

PROTOCOLS = ("voxelkp", "challenge")
MAX_DISTANCE = 100.0  # metres; VoxelKP's evaluation drops people beyond it


@dataclass(frozen=True, eq=False)
class ScoredPeople:
    """What the metric keeps of one frame; tables are of one frame each."""

    token: str
    key: FrameKey
    predictions: KeypointTable
    ground_truth: KeypointTable | None  # None: the frame is not annotated


@METRICS.register_module()
class WaymoKeypointMetric(BaseMetric):
    """Score keypoints, and write the files of the pose estimation challenge.

    See ``evaluate_keypoints`` for the metrics. Entries of the table are returned with a prefix:
    ``keypoints/MPJPE/ALL``, ``keypoints/PEM/WRISTS``.
    People with a box but without keypoints are found for nothing: a prediction that matches one does not count.

    Args:
        class_names: the classes that are people, some of ``Pedestrian`` and ``Cyclist``.
        protocol: ``"voxelkp"`` matches boxes by IoU, on the frames where somebody has keypoints and up to 100 m, as
            VoxelKP was evaluated; ``"challenge"`` matches keypoints by their mean error, on all frames.
        submission: arguments of ``SubmissionInfo`` and ``path``, the file to write; None: nowhere.
        prefix: of the returned entries, ``keypoints`` by default.
        collect_device: where results of several processes are gathered, ``cpu`` or ``gpu``.

    Raises:
        ValueError: if a name is no class of Waymo, or the protocol is unknown.
    """

    default_prefix = "keypoints"

    def __init__(
        self,
        class_names: Sequence[str],
        protocol: str = "voxelkp",
        submission: Mapping[str, Any] | None = None,
        prefix: str | None = None,
        collect_device: str = "cpu",
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        check_class_names(class_names)
        if protocol not in PROTOCOLS:
            raise ValueError(f"WaymoKeypointMetric: protocol must be one of {PROTOCOLS}, got {protocol!r}")
        self.class_names = tuple(class_names)
        self.protocol = protocol
        self.path, self.info = SubmissionInfo.with_path(submission)

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Keep what is scored of each sample.

        Args:
            data_batch: not used.
            data_samples: ``Sample.to_dict()`` of each sample: ``frame``, and ``pred`` with ``boxes`` (``Boxes3D``),
                ``keypoints`` ``[M, 14, 3]`` and ``keypoint_visibility`` ``[M, 14]``.
        """
        self.results.extend(self._scored(sample["frame"], sample["pred"]) for sample in data_samples)

    def compute_metrics(self, results: list[ScoredPeople]) -> dict[str, float]:
        """Write the submission, score the people and log the table.

        Raises:
            ValueError: if only some of the frames are annotated, or none is and no submission is wanted, or a table
                holds what cannot be scored.
        """
        results = list({frame.token: frame for frame in results}.values())
        if self.path is not None:
            predictions = KeypointTable.concatenate([frame.predictions for frame in results])
            write_poses(self.path, [frame.key for frame in results], predictions, self.info)
            if results and all(frame.ground_truth is None for frame in results):
                return {}
        result = self.score(results)
        MMLogger.get_current_instance().info("Waymo keypoints (%s)\n%s", self.protocol, result.table())
        return result.summary()

    def score(self, results: Sequence[ScoredPeople]) -> KeypointResult:
        """Score what ``process`` kept in ``results``.

        Raises:
            ValueError: if a frame is not annotated.
        """
        without = sum(frame.ground_truth is None for frame in results)
        if without:
            raise ValueError(
                f"WaymoKeypointMetric: {without} of {len(results)} frames are not annotated; to score, all must be; "
                "if none is, give a submission with a path to write the files of the challenge"
            )
        if self.protocol == "challenge":
            return evaluate_keypoints(*_tables(results), match_by_mean_error, annotated_frames_only=False)
        labelled = [frame for frame in results if frame.ground_truth.is_present.any()]
        return evaluate_keypoints(*(_near(table) for table in _tables(labelled)), match_by_iou)

    def _scored(self, frame: Frame, pred: Mapping[str, Any]) -> ScoredPeople:
        annotations = frame.annotations
        return ScoredPeople(
            token=frame.token,
            key=FrameKey.of(frame),
            predictions=frame_predicted_people(pred["boxes"], pred["keypoints"], pred["keypoint_visibility"]),
            ground_truth=None if annotations is None else frame_people(annotations, self.class_names),
        )


def _tables(frames: Sequence[ScoredPeople]) -> tuple[KeypointTable, KeypointTable]:
    """Return all annotated and all predicted people."""
    truth = KeypointTable.concatenate([frame.ground_truth for frame in frames])
    return truth, KeypointTable.concatenate([frame.predictions for frame in frames])


def _near(table: KeypointTable) -> KeypointTable:
    """Return the people within the distance that VoxelKP's evaluation looks at."""
    return table.take(np.linalg.norm(table.box[:, :3], axis=1) <= MAX_DISTANCE)
