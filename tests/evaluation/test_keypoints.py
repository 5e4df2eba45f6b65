"""The Waymo keypoint metrics on worked examples."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from sparse3d.evaluation import KeypointTable, evaluate_keypoints, match_by_iou, match_by_mean_error
from sparse3d.evaluation.keypoints_boxes import GROUPS, OKS_SCALES
from sparse3d.structures.skeleton import KEYPOINT_TYPES, KEYPOINTS, MISSING, NUM_KEYPOINTS, OCCLUDED, VISIBLE

MATCHERS = pytest.mark.parametrize("matcher", [match_by_iou, match_by_mean_error])


def people(centers: list[tuple[float, float]], seed: int = 0, **changes: object) -> KeypointTable:
    """People of volume 1 standing in one frame, all keypoints inside their boxes and visible."""
    count = len(centers)
    box = np.tile([0, 0, 1, 0.5, 1, 2, 0.3], (count, 1))
    box[:, :2] = np.reshape(centers, (count, 2))
    offset = np.random.default_rng(seed).uniform(-0.2, 0.2, (count, NUM_KEYPOINTS, 3))
    columns = {
        "sample": np.zeros(count, int),
        "box": box,
        "location": box[:, None, :3] + offset,
        "visibility": np.full((count, NUM_KEYPOINTS), VISIBLE),
    }
    return KeypointTable(**{**columns, **changes})


def moved(table: KeypointTable, distance: float) -> KeypointTable:
    """All keypoints that far along x."""
    return replace(table, location=table.location + np.array([distance, 0, 0]))


def with_visibility(table: KeypointTable, value: int, keypoints: object = slice(None)) -> KeypointTable:
    visibility = table.visibility.copy()
    visibility[:, keypoints] = value
    return replace(table, visibility=visibility)


def test_names() -> None:
    assert len(KEYPOINTS) == len(KEYPOINT_TYPES) == len(OKS_SCALES) == NUM_KEYPOINTS
    groups = [keypoint for name, group in GROUPS.items() if name != "ALL" for keypoint in group]
    assert sorted(groups) == list(GROUPS["ALL"]) == list(range(NUM_KEYPOINTS))
    for name, group in GROUPS.items():
        if name not in ("ALL", "HEAD"):
            assert all(KEYPOINTS[keypoint].endswith(name[:-1]) for keypoint in group)


@MATCHERS
def test_exact_predictions(matcher) -> None:
    truth = people([(5, 0), (9, 1), (12, -3)])
    result = evaluate_keypoints(truth, truth, matcher)
    assert result.matches.tolist() == [[0, 0], [1, 1], [2, 2]]
    for name, value in result.to_dict().items():
        assert value == pytest.approx(0 if name.startswith(("MPJPE", "PEM")) else 1), name


@MATCHERS
def test_metrics_of_a_known_error(matcher) -> None:
    truth = people([(5, 0), (9, 1)])
    result = evaluate_keypoints(truth, moved(truth, 0.06), matcher)
    assert result.matched_only["MPJPE/ALL"] == pytest.approx(0.06, abs=1e-6)
    assert result.full_set["PEM/ALL"] == pytest.approx(0.06, abs=1e-6)
    for threshold in (0.3, 0.4, 0.5):
        share = np.mean(threshold * OKS_SCALES >= 0.06)
        assert result.matched_only[f"PCK/ALL @ {threshold:.2f}"] == pytest.approx(share)
    oks = math.exp(-(0.06**2) / (2 * 0.214**2))
    assert result.matched_only["OKS/HIPS P @ 0.95"] == float(oks > 0.95) == 1
    oks = np.exp(-(0.06**2) / (2 * OKS_SCALES**2)).mean()
    passed = [threshold for threshold in np.arange(10, 20) / 20 if oks > threshold]
    assert result.matched_only["OKS/ALL AP"] == pytest.approx(len(passed) / 10)


def test_errors_end_at_the_penalty() -> None:
    truth = people([(5, 0)])
    result = evaluate_keypoints(truth, moved(truth, 2.0))
    assert result.full_set["PEM/ALL"] == 0.25
    assert result.full_set["MPJPE/ALL"] == pytest.approx(2.0)


@MATCHERS
def test_missed_and_invented_people_cost_the_penalty(matcher) -> None:
    truth, predictions = people([(5, 0), (9, 1)]), people([(5, 0), (30, 1), (40, 1)])
    predictions = replace(
        predictions, location=np.concatenate([truth.location[:1], predictions.location[1:]], dtype=np.float32)
    )
    result = evaluate_keypoints(truth, predictions, matcher)
    assert result.matches.tolist() == [[0, 0]]
    assert result.full_set["PEM/ALL"] == pytest.approx(0.25 * 3 / 4)
    assert result.full_set["Precision/ALL"] == pytest.approx(1 / 3)
    assert result.full_set["Recall/ALL"] == pytest.approx(1 / 2)
    assert result.matched_only["MPJPE/ALL"] == 0


def test_visibility_on_one_side() -> None:
    truth = with_visibility(people([(5, 0)]), OCCLUDED, list(GROUPS["KNEES"]))
    truth = with_visibility(truth, MISSING, list(GROUPS["HEAD"]))
    predictions = with_visibility(moved(truth, 0.1), VISIBLE)
    predictions = with_visibility(predictions, MISSING, list(GROUPS["WRISTS"]))
    result = evaluate_keypoints(truth, predictions)
    expected = {"KNEES": 0.25, "HEAD": 0.25, "WRISTS": 0.25, "HIPS": 0.1}
    for name, error in expected.items():
        assert result.full_set[f"PEM/{name}"] == pytest.approx(error, abs=1e-6)
    assert result.full_set["Precision/KNEES"] == result.full_set["Recall/WRISTS"] == 0
    assert result.matched_only["MPJPE/KNEES"] == pytest.approx(0.1, abs=1e-6)  # occluded keypoints have a place
    assert result.matched_only["MPJPE/WRISTS"] == result.matched_only["MPJPE/HEAD"] == 0


def test_unannotated_keypoints_are_similar_near_the_box() -> None:
    truth = with_visibility(people([(5, 0)]), MISSING, list(GROUPS["HIPS"]))
    near, far = moved(truth, 0.3), moved(truth, 5.0)
    for predictions, share in ((near, 1), (far, 0)):
        result = evaluate_keypoints(truth, with_visibility(predictions, VISIBLE))
        assert result.matched_only["OKS/HIPS AP"] == share


@MATCHERS
def test_people_without_visible_keypoints_cost_nothing(matcher) -> None:
    truth = people([(5, 0), (9, 1), (20, 0)])
    visibility = truth.visibility.copy()
    visibility[1:] = OCCLUDED
    result = evaluate_keypoints(replace(truth, visibility=visibility), truth.take(np.array([0, 1])), matcher)
    assert result.matches.tolist() == [[0, 0], [1, 1]]
    assert result.full_set["PEM/ALL"] == 0
    assert result.full_set["Precision/ALL"] == result.full_set["Recall/ALL"] == 1


def test_predictions_that_show_nothing_cost_nothing() -> None:
    truth = people([(5, 0)])
    predictions = KeypointTable.concatenate([truth, with_visibility(people([(50, 0)]), OCCLUDED)])
    predictions = replace(predictions, sample=np.zeros(2, int))
    assert evaluate_keypoints(truth, predictions).full_set["Precision/ALL"] == 1


def test_frames_without_people() -> None:
    truth = people([(5, 0)])
    predictions = KeypointTable.concatenate([truth, truth])
    assert evaluate_keypoints(truth, predictions).full_set["Precision/ALL"] == 1
    assert evaluate_keypoints(truth, predictions, annotated_frames_only=False).full_set["Precision/ALL"] == 0.5


def test_the_nearest_pose_wins_where_boxes_are_alike() -> None:
    truth = people([(5, 0), (5, 0)])
    predictions = truth.take(np.array([1, 0]))
    assert match_by_mean_error(truth, predictions).tolist() == [[0, 1], [1, 0]]


def test_iou_matching_takes_the_height_of_the_centre_for_that_of_the_bottom() -> None:
    truth = people([(5, 0)])
    tall = replace(truth, box=truth.box * np.array([1, 1, 1, 1, 1, 1.8, 1]))
    assert match_by_iou(truth, tall).tolist() == [[0, 0]]  # 2 m of 3.6 m
    higher = replace(tall, box=tall.box + [0, 0, 0.4, 0, 0, 0, 0])  # from -0.4 m to 3.2 m, but taken for 1.4 m to 5 m
    assert len(match_by_iou(truth, higher)) == 0  # 1.6 m of 4 m


@MATCHERS
def test_of_nothing(matcher) -> None:
    nobody, someone = people([]), people([(5, 0)])
    assert set(evaluate_keypoints(nobody, nobody, matcher).to_dict().values()) == {0.0}
    assert evaluate_keypoints(someone, nobody, matcher).full_set["PEM/ALL"] == 0.25
    assert evaluate_keypoints(nobody, someone, matcher, annotated_frames_only=False).full_set["PEM/ALL"] == 0.25


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("location", np.full((1, 14, 3), np.nan), "location: NaN or infinite in row 0"),
        ("visibility", np.full((1, 14), 3), "visibility: not in"),
        ("box", np.full((1, 7), np.inf), "box: NaN or infinite"),
        ("sample", np.array([-1]), "sample: negative"),
        ("location", np.zeros((1, 13, 3)), "expected shape"),
    ],
)
def test_bad_predictions(column: str, value: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate_keypoints(people([(5, 0)]), people([(5, 0)], **{column: value}))
