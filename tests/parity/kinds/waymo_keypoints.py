"""The Waymo keypoint metrics against the numbers of the original."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sparse3d.evaluation import KeypointTable, evaluate_keypoints, match_by_iou, match_by_mean_error

MATCHERS = {"iou_matcher": match_by_iou, "mean_error_matcher": match_by_mean_error}
TOLERANCE = 1e-6  # the original computes in float32


def check(case: Any) -> None:
    """Compare the pairs and every number of a case."""
    ground_truth, predictions = tables(case.arrays)
    for name, expected in case.config["results"].items():
        result = evaluate_keypoints(ground_truth, predictions, MATCHERS[name])
        pairs = sorted(map(tuple, expected["matched_pairs"]))
        assert sorted(map(tuple, result.matches.tolist())) == pairs, f"{name}: other pairs"
        _compare(f"{name}/matched_only", result.matched_only, expected["matched_only"])
        _compare(f"{name}/full_set", result.full_set, expected["full_set"])


KINDS = {"waymo_keypoints": check}


def tables(arrays: Mapping[str, np.ndarray]) -> tuple[KeypointTable, KeypointTable]:
    """Return the annotated and the predicted people of a case."""
    frames = np.concatenate([arrays["gt_frame_ids"], arrays["pred_frame_ids"]])
    samples = np.split(np.unique(frames, return_inverse=True)[1], [len(arrays["gt_frame_ids"])])
    ground_truth, predictions = (
        KeypointTable(sample, *(arrays[f"{prefix}_{name}"] for name in ("boxes", "keypoints", "visibility")))
        for sample, prefix in zip(samples, ("gt", "pred"), strict=True)
    )
    return ground_truth, predictions


def _compare(part: str, found: Mapping[str, float], expected: Mapping[str, float]) -> None:
    assert set(found) == set(expected), f"{part}: {sorted(set(found) ^ set(expected))}"
    for name, number in expected.items():
        assert abs(found[name] - number) <= TOLERANCE, f"{part}/{name}: {found[name]}, expected {number}"
