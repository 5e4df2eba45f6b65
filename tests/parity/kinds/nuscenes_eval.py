"""The nuScenes detection metric against the numbers of the development kit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sparse3d.evaluation import BoxTable, Detections, GroundTruth, NuScenesResult, evaluate_detections

TOLERANCE = 1e-12  # of numbers of size 1; only the order of sums may differ


def check(case: Any) -> None:
    """Compare every number of a case."""
    expected = case.config["results"]
    result = evaluate_case(case.config, case.arrays)
    _compare("mean_ap", result.mean_ap, expected["mean_ap"])
    _compare("nd_score", result.nd_score, expected["nd_score"])
    _compare_all("tp_errors", result.tp_errors, expected["tp_errors"])
    _compare_all("mean_dist_aps", result.mean_dist_aps, expected["mean_dist_aps"])
    for name, aps in expected["label_aps"].items():
        found = {str(threshold): ap for threshold, ap in result.label_aps[name].items()}
        _compare_all(f"label_aps/{name}", found, aps)
    for name, errors in expected["label_tp_errors"].items():
        _compare_all(f"label_tp_errors/{name}", result.label_tp_errors[name], errors)
    if counts := expected.get("counts_after_filter"):
        found = {"gt": sum(result.num_ground_truth.values()), "pred": sum(result.num_detections.values())}
        assert found == counts


KINDS = {"nuscenes_eval": check}


def evaluate_case(config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> NuScenesResult:
    """Score the boxes of a case."""
    names = [name for name in config["attribute_names"] if name]
    none = config["attribute_names"].index("")
    places = np.array([-1 if index == none else index - (index > none) for index in range(len(names) + 1)])
    gt, pred, racks = (_columns(arrays, prefix) for prefix in ("gt_", "pred_", "bikerack_"))
    gt["num_points"] = gt.pop("num_pts")
    for columns in (gt, pred):
        columns["attribute"] = places[columns["attribute"]]
    return evaluate_detections(
        GroundTruth(**gt),
        Detections(**pred),
        arrays["ego_translation"],
        config["class_names"],
        names,
        BoxTable(**racks),
    )


def _columns(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name[len(prefix) :]: array for name, array in arrays.items() if name.startswith(prefix)}


def _compare_all(name: str, found: Mapping[str, float], expected: Mapping[str, float | None]) -> None:
    assert set(found) == set(expected), f"{name}: {sorted(found)} against {sorted(expected)}"
    for key, value in expected.items():
        _compare(f"{name}/{key}", found[key], value)


def _compare(name: str, found: float, expected: float | None) -> None:
    if expected is None:
        assert np.isnan(found), f"{name}: {found}, expected to be undefined"
    else:
        assert abs(found - expected) <= TOLERANCE, f"{name}: {found}, expected {expected}"
