"""The nuScenes detection metric: mean average precision, five true-positive errors and the nuScenes detection score.

    AP   precision at recalls 0.11, 0.12, ..., 1 (linear between detections, 0 beyond the highest recall reached),
         less 0.1, not below 0, averaged, divided by 0.9; averaged over the thresholds 0.5, 1, 2 and 4 m
    mAP  mean AP of the classes
    TP   running mean of an error over the matches at 2 m, in the order of falling scores, as a function of the score;
         averaged over the scores at recalls from 0.11 to the highest one reached; 1 if recall 0.11 is not reached
    NDS  (5 mAP + sum over the five errors of max(0, 1 - mean over the classes)) / 10

Every number equals the development kit's (configuration ``detection_cvpr_2019``). Where the kit stops with an error,
the definitions above hold: without any detection, AP is 0 and every error 1; a class without ground truth has AP 0 and
errors 1; samples without boxes are samples like others.

Source: nuScenes (Caesar et al., CVPR 2020), section 3.1, and its development kit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from ..datasets.nuscenes_schema import ATTRIBUTES, DETECTION_CLASSES
from .nuscenes_boxes import (
    BoxTable,
    Detections,
    GroundTruth,
    check_box_counts,
    check_boxes,
    check_detections,
    check_ground_truth,
)
from .nuscenes_filter import CLASS_RANGES, has_points, is_scored
from .nuscenes_matching import ERRORS, match, pair_errors, rank

DISTANCE_THRESHOLDS = (0.5, 1.0, 2.0, 4.0)  # metres
ERROR_THRESHOLD = 2.0  # metres; true-positive errors are taken at this one
RECALLS = np.linspace(0, 1, 101)
FIRST_RECALL = 11  # recalls up to 0.1 do not count
MIN_PRECISION = 0.1
MEAN_AP_WEIGHT = 5

SYMMETRIC_CLASSES = ("barrier",)  # the same when turned by half a turn
UNDEFINED_ERRORS = MappingProxyType(
    {"traffic_cone": ("orient_err", "vel_err", "attr_err"), "barrier": ("vel_err", "attr_err")}
)
SHORT_NAMES = MappingProxyType(dict(zip(ERRORS, ("ATE", "ASE", "AOE", "AVE", "AAE"), strict=True)))


@dataclass(frozen=True)
class NuScenesResult:
    """What the metric found; the attributes carry the development kit's names.

    Args:
        label_aps: class -> distance threshold in metres -> AP.
        label_tp_errors: class -> error -> value; NaN where the error is not defined for the class.
        num_ground_truth: class -> number of annotated objects that were scored.
        num_detections: class -> number of detections that were scored.
    """

    label_aps: Mapping[str, Mapping[float, float]]
    label_tp_errors: Mapping[str, Mapping[str, float]]
    num_ground_truth: Mapping[str, int]
    num_detections: Mapping[str, int]

    @property
    def mean_dist_aps(self) -> dict[str, float]:
        """Class -> AP, the mean over the distance thresholds."""
        return {name: float(np.mean(list(aps.values()))) for name, aps in self.label_aps.items()}

    @property
    def mean_ap(self) -> float:
        """Mean AP of all classes."""
        return float(np.mean(list(self.mean_dist_aps.values())))

    @property
    def mean_ap_present(self) -> float:
        """Mean AP of the classes that have ground truth, 0 if none has; not an official number."""
        present = [ap for name, ap in self.mean_dist_aps.items() if self.num_ground_truth[name]]
        return float(np.mean(present)) if present else 0.0

    @property
    def tp_errors(self) -> dict[str, float]:
        """Error -> mean over the classes for which it is defined; NaN if it is defined for none."""
        values = {error: [errors[error] for errors in self.label_tp_errors.values()] for error in ERRORS}
        return {error: _mean_of_defined(np.array(values[error])) for error in ERRORS}

    @property
    def nd_score(self) -> float:
        """The nuScenes detection score; an error that is defined for no class adds nothing to it."""
        scores = [max(0.0, 1 - error) for error in self.tp_errors.values() if not np.isnan(error)]
        return (MEAN_AP_WEIGHT * self.mean_ap + sum(scores)) / (MEAN_AP_WEIGHT + len(ERRORS))

    def to_dict(self) -> dict[str, float]:
        """Return flat entries for logs: mAP, NDS, mATE, AP/car, AP@2.0/car, ATE/car; what is undefined is left out."""
        flat = {"mAP": self.mean_ap, "NDS": self.nd_score, "mAP_present": self.mean_ap_present}
        flat.update({f"m{SHORT_NAMES[error]}": value for error, value in self.tp_errors.items()})
        flat.update({f"AP/{name}": ap for name, ap in self.mean_dist_aps.items()})
        for name, aps in self.label_aps.items():
            flat.update({f"AP@{threshold}/{name}": ap for threshold, ap in aps.items()})
        for name, errors in self.label_tp_errors.items():
            flat.update({f"{SHORT_NAMES[error]}/{name}": value for error, value in errors.items()})
        return {key: value for key, value in flat.items() if not np.isnan(value)}

    def table(self) -> str:
        """Return the numbers as lines of text: the means, then one line a class ('-': not defined)."""
        errors = [f"m{SHORT_NAMES[error]} {_cell(value)}" for error, value in self.tp_errors.items()]
        means = "  ".join([f"NDS {self.nd_score:.4f}", f"mAP {self.mean_ap:.4f}", *errors])
        columns = ["AP", *SHORT_NAMES.values(), "objects", "boxes"]
        header = f"{'class':<22}" + "".join(f"{column:>9}" for column in columns)
        return "\n".join([means, header, *map(self._class_line, self.label_aps)])

    def _class_line(self, name: str) -> str:
        numbers = [self.mean_dist_aps[name], *(self.label_tp_errors[name][error] for error in ERRORS)]
        counts = [str(self.num_ground_truth[name]), str(self.num_detections[name])]
        return f"{name:<22}" + "".join(f"{cell:>9}" for cell in [*map(_cell, numbers), *counts])


def evaluate_detections(
    ground_truth: GroundTruth,
    detections: Detections,
    ego_translations: np.ndarray,  # [S, 3]
    class_names: Sequence[str] = DETECTION_CLASSES,
    attribute_names: Sequence[str] = ATTRIBUTES,
    bike_racks: BoxTable | None = None,
    min_points: int = 1,
) -> NuScenesResult:
    """Score detections against ground truth.

    Args:
        ground_truth: annotated objects of all samples.
        detections: detected objects; rows of a sample in the order of the result file, samples in its order, which
            decides between equal scores.
        ego_translations: ``[S, 3]`` positions of the ego vehicle in the world frame, in metres, at the time of the
            LiDAR scan of each sample.
        class_names: names of the labels, some of the ten detection classes; official numbers need all ten.
        attribute_names: names of the attributes.
        bike_racks: annotated bicycle racks; cycles inside them are ignored. None: there are none.
        min_points: ground truth with fewer LiDAR and radar points is ignored; official numbers need 1.

    Raises:
        ValueError: if a table holds what cannot be scored; the message lists the rows.
    """
    ego_translations = np.asarray(ego_translations, dtype=np.float64)
    racks = BoxTable.empty() if bike_racks is None else bike_racks
    check_class_names(class_names)
    _check_tables(ground_truth, detections, racks, ego_translations, len(class_names), len(attribute_names))

    kept = is_scored(ground_truth, ego_translations, racks, class_names) & has_points(ground_truth, min_points)
    ground_truth = ground_truth.take(kept)
    detections = rank(detections.take(is_scored(detections, ego_translations, racks, class_names)))
    matches = match(ground_truth, detections, len(ego_translations), len(class_names), DISTANCE_THRESHOLDS)
    return _score(ground_truth, detections, matches, class_names)


def check_class_names(class_names: Sequence[str]) -> None:
    """Check that the names are detection classes, each at most once.

    Raises:
        ValueError: if there is no name, an unknown one, or one twice.
    """
    unknown = [name for name in class_names if name not in CLASS_RANGES]
    if unknown or not class_names or len(set(class_names)) < len(class_names):
        raise ValueError(f"class_names: expected different names out of {list(CLASS_RANGES)}, got {list(class_names)}")


def _check_tables(
    ground_truth: GroundTruth,
    detections: Detections,
    racks: BoxTable,
    ego_translations: np.ndarray,
    num_classes: int,
    num_attributes: int,
) -> None:
    if ego_translations.ndim != 2 or ego_translations.shape[1] != 3 or not np.isfinite(ego_translations).all():
        raise ValueError(f"ego_translations: expected finite numbers [S, 3], got {ego_translations!r}")
    num_samples = len(ego_translations)
    check_ground_truth("ground_truth", ground_truth, num_samples, num_classes, num_attributes)
    check_detections("detections", detections, num_samples, num_classes, num_attributes)
    check_box_counts("detections", detections, num_samples)
    check_boxes("bike_racks", racks, num_samples)


def _score(
    ground_truth: GroundTruth,  # [G]
    detections: Detections,  # [P], ranked
    matches: np.ndarray,  # [T, P]
    class_names: Sequence[str],
) -> NuScenesResult:
    counts = np.bincount(ground_truth.label, minlength=len(class_names)).tolist()
    bounds = np.searchsorted(detections.label, np.arange(len(class_names) + 1)).tolist()
    label_aps, label_tp_errors = {}, {}
    for label, name in enumerate(class_names):
        rows = np.arange(bounds[label], bounds[label + 1])
        label_aps[name], label_tp_errors[name] = _score_class(
            name, counts[label], ground_truth, detections.take(rows), matches[:, rows]
        )
    return NuScenesResult(
        label_aps=label_aps,
        label_tp_errors=label_tp_errors,
        num_ground_truth=dict(zip(class_names, counts, strict=True)),
        num_detections=dict(zip(class_names, np.diff(bounds).tolist(), strict=True)),
    )


def _score_class(
    name: str,
    num_ground_truth: int,
    ground_truth: GroundTruth,  # [G], all classes
    detections: Detections,  # [P], this class, by falling score
    matches: np.ndarray,  # [T, P]
) -> tuple[dict[float, float], dict[str, float]]:
    """Return threshold -> AP and error -> value."""
    aps = {}
    for threshold, rows in zip(DISTANCE_THRESHOLDS, matches, strict=True):
        aps[threshold] = _average_precision(rows >= 0, num_ground_truth)
    rows = matches[DISTANCE_THRESHOLDS.index(ERROR_THRESHOLD)]
    matched = detections.take(rows >= 0)
    errors = pair_errors(ground_truth.take(rows[rows >= 0]), matched, symmetric=name in SYMMETRIC_CLASSES)
    scores = _scores_at_recalls(rows >= 0, detections.score, num_ground_truth)
    undefined = UNDEFINED_ERRORS.get(name, ())
    return aps, {
        error: np.nan if error in undefined else _true_positive_error(values, matched.score, scores)
        for error, values in errors.items()
    }


def _average_precision(
    is_match: np.ndarray,  # [P], by falling score
    num_ground_truth: int,
) -> float:
    if not is_match.any():
        return 0.0
    found = np.cumsum(is_match)
    precision = found / np.arange(1, len(found) + 1)
    precision = np.interp(RECALLS, found / num_ground_truth, precision, right=0)[FIRST_RECALL:]
    return float(np.maximum(precision - MIN_PRECISION, 0).mean() / (1 - MIN_PRECISION))


def _scores_at_recalls(
    is_match: np.ndarray,  # [P]
    scores: np.ndarray,  # [P], falling
    num_ground_truth: int,
) -> np.ndarray:
    """Return the score ``[101]`` at which each recall is reached, 0 where none reaches it."""
    if not is_match.any():
        return np.zeros_like(RECALLS)
    return np.interp(RECALLS, np.cumsum(is_match) / num_ground_truth, scores, right=0)


def _true_positive_error(
    errors: np.ndarray,  # [M], NaN: unknown
    scores: np.ndarray,  # [M], falling
    scores_at_recalls: np.ndarray,  # [101], falling
) -> float:
    reached = np.flatnonzero(scores_at_recalls)
    if not len(reached) or reached[-1] < FIRST_RECALL:
        return 1.0
    curve = np.interp(scores_at_recalls[::-1], scores[::-1], _running_mean(errors)[::-1])[::-1]
    return float(curve[FIRST_RECALL : reached[-1] + 1].mean())


def _running_mean(values: np.ndarray) -> np.ndarray:
    """Return the mean ``[M]`` of the known values up to each one: 0 before the first known one, 1 if none is known."""
    known = ~np.isnan(values)
    if not known.any():
        return np.ones_like(values)
    return np.nancumsum(values) / np.maximum(np.cumsum(known), 1)


def _mean_of_defined(values: np.ndarray) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")


def _cell(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.4f}"
