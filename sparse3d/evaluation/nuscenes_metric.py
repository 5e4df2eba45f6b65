"""NuScenesMetric: the nuScenes detection metric as a metric of mmengine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger

from ..registry import METRICS
from ..structures import Frame
from .nuscenes import NuScenesResult, check_class_names, evaluate_detections
from .nuscenes_boxes import BoxTable, Detections, GroundTruth
from .nuscenes_submission import NO_MODALITY, Submission, check_modality, write_submission
from .nuscenes_world import world_bike_racks, world_detections, world_ground_truth

LIDAR_ONLY = {"use_lidar": True}


@dataclass(frozen=True, eq=False)
class ScoredSample:
    """What the metric keeps of one sample; tables are of one sample each."""

    token: str
    ego_translation: np.ndarray  # [3]
    detections: Detections
    ground_truth: GroundTruth | None  # None: the frame is not annotated
    bike_racks: BoxTable


@METRICS.register_module()
class NuScenesMetric(BaseMetric):
    """Score detections as the nuScenes benchmark does, and write its result file.

    Ground truth comes from the annotations of the samples' frames. Without annotations (the test set), the metric only
    writes the result file. See ``evaluate_detections`` for the definitions and ``NuScenesResult.to_dict`` for the
    entries that are returned, here with a prefix: ``nuscenes/mAP``, ``nuscenes/NDS``, ``nuscenes/AP/car``.

    Args:
        class_names: names of the labels, some of the ten detection classes; official numbers need all ten.
        submission_path: where to write the result file; None: nowhere.
        modality: inputs for the ``meta`` of the result file, e.g. ``dict(use_lidar=True, use_camera=True)``; what is
            not named is false.
        min_points: annotated objects with fewer LiDAR and radar points are ignored; official numbers need 1.
        prefix: of the returned entries, ``nuscenes`` by default.
        collect_device: where results of several processes are gathered, ``cpu`` or ``gpu``.

    Raises:
        ValueError: if a name is no detection class or no modality.
    """

    default_prefix = "nuscenes"

    def __init__(
        self,
        class_names: Sequence[str],
        submission_path: str | Path | None = None,
        modality: Mapping[str, bool] = LIDAR_ONLY,
        min_points: int = 1,
        prefix: str | None = None,
        collect_device: str = "cpu",
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        check_class_names(class_names)
        self.class_names = tuple(class_names)
        self.submission_path = submission_path
        self.modality = {**NO_MODALITY, **modality}
        check_modality(self.modality)
        self.min_points = min_points

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Keep what is scored of each sample.

        Args:
            data_batch: not used.
            data_samples: ``Sample.to_dict()`` of each sample: ``frame``, and ``pred`` with ``boxes`` (``Boxes3D`` in
                the LiDAR frame), ``scores`` ``[M]`` and ``labels`` ``[M]``.

        Raises:
            ValueError: if a prediction cannot be scored; the message names the frame.
        """
        self.results.extend(self._scored(sample["frame"], sample["pred"]) for sample in data_samples)

    def compute_metrics(self, results: list[ScoredSample]) -> dict[str, float]:
        """Write the result file, score the detections and log the table.

        A frame counts once, however often it was tested: frames stand in for others that could not be loaded.

        Raises:
            ValueError: if only some of the frames are annotated, or none is and no result file is wanted.
        """
        results = list({sample.token: sample for sample in results}.values())
        if self.submission_path is not None:
            self._write(self.submission_path, results)
            if results and all(sample.ground_truth is None for sample in results):
                return {}
        result = self.score(results)
        MMLogger.get_current_instance().info("nuScenes detection\n%s", result.table())
        return result.to_dict()

    def score(self, results: list[ScoredSample]) -> NuScenesResult:
        """Score what ``process`` kept in ``results``.

        Raises:
            ValueError: if a frame is not annotated.
        """
        ground_truth = [sample.ground_truth for sample in results if sample.ground_truth is not None]
        if len(ground_truth) < len(results):
            raise ValueError(
                f"NuScenesMetric: {len(ground_truth)} of {len(results)} frames are annotated; to score, all must be; "
                "if none is, give a submission_path to write the result file"
            )
        return evaluate_detections(
            GroundTruth.concatenate(ground_truth),
            Detections.concatenate([sample.detections for sample in results]),
            np.array([sample.ego_translation for sample in results]).reshape(-1, 3),
            self.class_names,
            bike_racks=BoxTable.concatenate([sample.bike_racks for sample in results]),
            min_points=self.min_points,
        )

    def _write(self, path: str | Path, results: list[ScoredSample]) -> None:
        tokens = tuple(sample.token for sample in results)
        detections = Detections.concatenate([sample.detections for sample in results])
        write_submission(path, Submission(tokens, detections, self.class_names, self.modality))

    def _scored(self, frame: Frame, pred: Mapping[str, Any]) -> ScoredSample:
        annotations = frame.annotations
        return ScoredSample(
            token=frame.token,
            ego_translation=frame.ego2global[:3, 3],
            detections=world_detections(frame, pred["boxes"], pred["scores"], pred["labels"], self.class_names),
            ground_truth=None if annotations is None else world_ground_truth(frame, annotations, self.class_names),
            bike_racks=BoxTable.empty() if annotations is None else world_bike_racks(annotations),
        )
