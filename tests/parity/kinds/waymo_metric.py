"""The Waymo detection metrics against the numbers of the released operator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sparse3d.evaluation import (
    CAMERA_ONLY,
    DETECTION_3D,
    DETECTION_BEV,
    DETECTION_BY_SPEED,
    WaymoResult,
    evaluate_waymo,
)
from sparse3d.evaluation.waymo_boxes import tables_from_arrays

PROTOCOLS = {"det": DETECTION_3D, "let": CAMERA_ONLY, "bev": DETECTION_BEV, "velocity": DETECTION_BY_SPEED}
TOLERANCE = 1e-6  # the operator sums in float32
PRINTED_TOLERANCE = 3e-6  # six digits


def check(case: Any) -> None:
    """Compare every number of a case."""
    ground_truth, detections = tables_from_arrays(case.arrays)
    for name, expected in case.config["results"].items():
        result = evaluate_waymo(ground_truth, detections, PROTOCOLS[name])
        assert list(result.rows) == list(expected), f"{name}: rows {list(result.rows)}, expected {list(expected)}"
        _compare(name, result, expected, TOLERANCE)
        if name == "det":
            _compare_counts(result, case.config["counts_per_cutoff"])
    if "gt_camera" in case.arrays:  # cameras as annotated, which the operator cannot be told
        ground_truth = replace(ground_truth, camera=case.arrays["gt_camera"])
        result = evaluate_waymo(ground_truth, detections, CAMERA_ONLY)
        _compare("published", result, case.config["published_header_comment"], PRINTED_TOLERANCE)


KINDS = {"waymo_metric": check}


def _compare(config: str, result: WaymoResult, expected: Mapping[str, Mapping[str, float]], tolerance: float) -> None:
    for row, numbers in expected.items():
        for name, number in numbers.items():
            found = result.rows[row].average_precision[name]
            assert abs(found - number) <= tolerance, f"{config}/{row}/{name}: {found}, expected {number}"


def _compare_counts(result: WaymoResult, expected: Mapping[str, Mapping[str, list[int]]]) -> None:
    for row, counts in expected.items():
        for name, numbers in counts.items():
            found = getattr(result.rows[row], name).tolist()
            assert found == numbers, f"{row}/{name}: {found}, expected {numbers}"
