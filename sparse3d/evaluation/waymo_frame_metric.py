"""What the metrics of the Waymo benchmark share: frames that are scored, and files for its server."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.evaluator import BaseMetric

from ..structures import Frame
from .waymo_submission import FrameKey, SubmissionInfo
from .waymo_tables import check_class_names


@dataclass(frozen=True, eq=False)
class ScoredFrame:
    """What a metric keeps of one frame; tables are of one frame each."""

    token: str
    key: FrameKey
    predictions: Any
    ground_truth: Any  # None: the frame is not annotated


class WaymoFrameMetric(BaseMetric):
    """Score frames, write a file for the benchmark, or both.

    Ground truth comes from the annotations of the samples' frames; without any (the test set), a metric only writes.

    Args:
        class_names: names of the labels, some of ``Vehicle``, ``Pedestrian``, ``Sign``, ``Cyclist``.
        submission: arguments of ``SubmissionInfo`` and ``path``, the file to write; None: nowhere.
        prefix: of the returned entries.
        collect_device: where results of several processes are gathered, ``cpu`` or ``gpu``.

    Raises:
        ValueError: if a name is no class of Waymo.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        submission: Mapping[str, Any] | None = None,
        prefix: str | None = None,
        collect_device: str = "cpu",
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        check_class_names(class_names)
        self.class_names = tuple(class_names)
        self.path, self.info = SubmissionInfo.with_path(submission)

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Keep what is scored of each sample.

        Args:
            data_batch: not used.
            data_samples: ``Sample.to_dict()`` of each sample: ``frame``, and ``pred`` in the LiDAR frame.
        """
        for sample in data_samples:
            frame, pred = sample["frame"], sample["pred"]
            truth = None if frame.annotations is None else self.truth_of(frame)
            kept = ScoredFrame(frame.token, FrameKey.of(frame), self.predictions_of(frame, pred), truth)
            self.results.append(kept)

    def compute_metrics(self, results: list[ScoredFrame]) -> dict[str, float]:
        """Write the submission, score the predictions and log the table.

        A frame counts once, however often it was tested: frames stand in for others that could not be loaded.

        Raises:
            ValueError: if only some of the frames are annotated, or none is and no submission is wanted, or a table
                holds what cannot be scored.
        """
        results = list({frame.token: frame for frame in results}.values())
        annotated = sum(frame.ground_truth is not None for frame in results)
        if self.path is not None:
            self.write(results)
            if results and not annotated:
                return {}
        if annotated < len(results):
            raise ValueError(
                f"{type(self).__name__}: {annotated} of {len(results)} frames are annotated; to score, all must be; "
                "if none is, give a submission with a path to write the files of the benchmark"
            )
        return self.score(results)

    @abstractmethod
    def predictions_of(self, frame: Frame, pred: Mapping[str, Any]) -> Any:
        """Return the table of a frame's predictions."""

    @abstractmethod
    def truth_of(self, frame: Frame) -> Any:
        """Return the table of an annotated frame's ground truth."""

    @abstractmethod
    def write(self, results: Sequence[ScoredFrame]) -> None:
        """Write the file of the benchmark to ``path``."""

    @abstractmethod
    def score(self, results: Sequence[ScoredFrame]) -> dict[str, float]:
        """Score annotated frames, log the table and return its entries."""
