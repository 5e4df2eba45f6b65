"""WaymoKeypointMetric: the keypoint metrics as a metric of mmengine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.logging import MMLogger

from ..registry import METRICS
from ..structures import Frame
from .keypoints import KeypointResult, evaluate_keypoints
from .keypoints_boxes import KeypointTable
from .keypoints_matching import match_by_iou, match_by_mean_error
from .waymo_frame_metric import ScoredFrame, WaymoFrameMetric
from .waymo_submission import write_poses
from .waymo_tables import frame_people, frame_predicted_people

PROTOCOLS = ("voxelkp", "challenge")
MAX_DISTANCE = 100.0  # metres; VoxelKP's evaluation drops people beyond it


@METRICS.register_module()
class WaymoKeypointMetric(WaymoFrameMetric):
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
        super().__init__(class_names, submission, prefix, collect_device)
        if protocol not in PROTOCOLS:
            raise ValueError(f"WaymoKeypointMetric: protocol must be one of {PROTOCOLS}, got {protocol!r}")
        self.protocol = protocol

    def predictions_of(self, frame: Frame, pred: Mapping[str, Any]) -> KeypointTable:
        """Return a frame's people: ``boxes``, ``keypoints`` ``[M, 14, 3]``, ``keypoint_visibility`` ``[M, 14]``."""
        return frame_predicted_people(pred["boxes"], pred["keypoints"], pred["keypoint_visibility"])

    def truth_of(self, frame: Frame) -> KeypointTable:
        """See ``WaymoFrameMetric``."""
        return frame_people(frame.annotations, self.class_names)

    def write(self, results: Sequence[ScoredFrame]) -> None:
        """See ``WaymoFrameMetric``."""
        write_poses(self.path, [frame.key for frame in results], _predictions(results), self.info)

    def score(self, results: Sequence[ScoredFrame]) -> dict[str, float]:
        """See ``WaymoFrameMetric``."""
        result = self._evaluate(results)
        MMLogger.get_current_instance().info("Waymo keypoints (%s)\n%s", self.protocol, result.table())
        return result.summary()

    def _evaluate(self, results: Sequence[ScoredFrame]) -> KeypointResult:
        if self.protocol == "challenge":
            return evaluate_keypoints(
                _truth(results), _predictions(results), match_by_mean_error, annotated_frames_only=False
            )
        labelled = [frame for frame in results if frame.ground_truth.is_present.any()]
        return evaluate_keypoints(_near(_truth(labelled)), _near(_predictions(labelled)), match_by_iou)


def _truth(frames: Sequence[ScoredFrame]) -> KeypointTable:
    return KeypointTable.concatenate([frame.ground_truth for frame in frames])


def _predictions(frames: Sequence[ScoredFrame]) -> KeypointTable:
    return KeypointTable.concatenate([frame.predictions for frame in frames])


def _near(table: KeypointTable) -> KeypointTable:
    """Return the people within the distance that VoxelKP's evaluation looks at."""
    return table.take(np.linalg.norm(table.box[:, :3], axis=1) <= MAX_DISTANCE)
