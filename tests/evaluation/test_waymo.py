"""The Waymo detection metrics against definitions: assignment by scipy, cut-off by cut-off, and worked examples."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from sparse3d.evaluation import (
    CAMERA_ONLY,
    DETECTION_3D,
    DETECTION_BEV,
    DETECTION_BY_SPEED,
    WaymoDetections,
    WaymoGroundTruth,
    WaymoProtocol,
    evaluate_waymo,
)
from sparse3d.evaluation.waymo import CUTOFFS, _average_precision
from sparse3d.evaluation.waymo_boxes import TYPES, difficulty
from sparse3d.evaluation.waymo_matching import SENSOR, Pairs, best_pairs, find_pairs, matched_sums

VEHICLE = TYPES.index("VEHICLE")
ALL_VEHICLES = "OBJECT_TYPE_TYPE_VEHICLE_LEVEL_2"
PROTOCOLS = pytest.mark.parametrize("protocol", [DETECTION_3D, DETECTION_BEV, DETECTION_BY_SPEED, CAMERA_ONLY])


def objects(centers: list[tuple[float, float]], **changes: object) -> WaymoGroundTruth:
    """Vehicles of one size in one frame, heading along x, of level 1, standing."""
    count = len(centers)
    box = np.tile(np.array([0, 0, 1, 4, 2, 1.5, 0], np.float32), (count, 1))
    box[:, :2] = np.reshape(centers, (count, 2))
    columns = {
        "sample": np.zeros(count, int),
        "box": box,
        "type": np.full(count, VEHICLE),
        "level": np.ones(count, int),
        "speed": np.zeros((count, 2)),
        "camera": np.zeros(count, int),
    }
    return WaymoGroundTruth(**{**columns, **changes})


def found(truth: WaymoGroundTruth, scores: object = 0.9, **changes: object) -> WaymoDetections:
    """Detections of the objects, exact but for the changes."""
    columns = {
        "sample": truth.sample,
        "box": truth.box,
        "type": truth.type,
        "score": np.broadcast_to(scores, len(truth)),
        "overlaps_no_label_zone": np.zeros(len(truth), bool),
    }
    return WaymoDetections(**{**columns, **changes})


def random_tables(seed: int, frames: int = 6, per_frame: int = 14) -> tuple[WaymoGroundTruth, WaymoDetections]:
    """Crowded frames in which boxes compete for each other."""
    rng = np.random.default_rng(seed)
    count = frames * per_frame
    box = np.column_stack(
        [
            rng.uniform(-9, 9, (count, 2)),
            rng.normal(1, 0.2, count),
            rng.uniform(2, 5, (count, 3)),
            rng.normal(0, 2, count),
        ]
    )
    truth = WaymoGroundTruth(
        sample=rng.integers(0, frames, count),
        box=box,
        type=rng.integers(0, len(TYPES), count),
        level=rng.integers(0, 3, count),
        speed=rng.normal(0, 3, (count, 2)),
        camera=np.zeros(count, int),
    )
    copies = np.concatenate([np.arange(count)] * 2)
    noise = rng.normal(0, [0.3, 0.3, 0.1, 0.1, 0.1, 0.1, 0.4], (2 * count, 7))
    detections = WaymoDetections(
        sample=truth.sample[copies],
        box=truth.box[copies] + noise,
        type=truth.type[copies],
        score=rng.integers(0, 40, 2 * count) / 40,
        overlaps_no_label_zone=rng.random(2 * count) < 0.1,
    )
    return truth, detections


# -- matching ----------------------------------------------------------------------------------------------------------


@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_every_cutoff_has_a_best_assignment(seed: int, num_detections: int, num_objects: int) -> None:
    rng = np.random.default_rng(seed)
    overlap = rng.integers(1, 6, (num_detections, num_objects)) / 5 * (rng.random((num_detections, num_objects)) < 0.5)
    rows, columns = np.nonzero(overlap)
    pairs = Pairs(rows, columns, overlap[rows, columns].astype(np.float32), np.ones(len(rows)))
    reached = rng.integers(0, 5, num_detections)
    sums = matched_sums(reached, pairs, num_objects, pairs.weight[:, None].astype(float), 4)
    for cutoff in range(4):
        kept = np.zeros_like(overlap)
        kept[rows, columns] = pairs.weight
        kept[reached <= cutoff] = 0
        assert sums[cutoff, 0] == kept[linear_sum_assignment(kept, maximize=True)].sum()


def test_best_pairs_match_nobody_twice() -> None:
    truth, detections = random_tables(0)
    pairs = best_pairs(find_pairs(detections, truth, "3d"), len(detections), len(truth))
    assert len(pairs.iou) > 30
    for column in ("detection", "ground_truth"):
        assert len(np.unique(getattr(pairs, column))) == len(pairs.iou)


def test_pairs_do_not_depend_on_the_size_of_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, detections = random_tables(1)
    whole = find_pairs(detections, truth, "let")
    monkeypatch.setattr("sparse3d.evaluation.waymo_matching.CHUNK", 7)
    parts = find_pairs(detections, truth, "let")
    for column in fields(Pairs):
        np.testing.assert_array_equal(getattr(whole, column.name), getattr(parts, column.name))


@PROTOCOLS
def test_frames_may_come_in_any_order(protocol: WaymoProtocol) -> None:
    truth, detections = random_tables(2)
    rng = np.random.default_rng(0)
    shuffled = truth.take(rng.permutation(len(truth))), detections.take(rng.permutation(len(detections)))
    first, second = evaluate_waymo(truth, detections, protocol), evaluate_waymo(*shuffled, protocol)
    assert any(row.average_precision["AP"] > 0.2 for row in first.rows.values())
    for name, row in first.rows.items():
        assert row.average_precision == pytest.approx(second.rows[name].average_precision, abs=1e-9)


def test_longitudinal_errors_are_tolerated_along_the_line_of_sight() -> None:
    truth = objects([(40 + SENSOR[0], 0)])
    box = truth.box.copy()
    box[:, 2] = SENSOR[2]
    truth = replace(truth, box=box)
    box = truth.box.copy()
    box[:, 0] += 1.0  # a quarter of the tolerance of 4 m
    pairs = find_pairs(found(truth, box=box), truth, "let")
    np.testing.assert_allclose(pairs.iou, 1, atol=1e-6)
    np.testing.assert_allclose(pairs.affinity, 0.75, atol=1e-6)


# -- numbers -----------------------------------------------------------------------------------------------------------


@PROTOCOLS
def test_exact_detections(protocol: WaymoProtocol) -> None:
    truth = objects([(10, 0), (40, 0), (60, 5)])
    result = evaluate_waymo(truth, found(truth), protocol)
    rows = [row for name, row in result.rows.items() if row.tp.any()]
    assert rows
    for row in rows:
        assert all(value == pytest.approx(1, abs=1e-6) for value in row.average_precision.values())


@pytest.mark.parametrize(("turn", "accuracy"), [(0, 1), (math.pi / 2, 0.5), (math.pi, 0), (2 * math.pi, 1)])
def test_heading_weighs_the_precision(turn: float, accuracy: float) -> None:
    truth = objects([(10, 0)])
    truth = replace(truth, box=truth.box * [1, 1, 1, 0.5, 1, 1, 1])  # square: turned, it overlaps as before
    values = evaluate_waymo(truth, found(truth, box=truth.box + [0, 0, 0, 0, 0, 0, turn])).rows[ALL_VEHICLES]
    assert values.average_precision == pytest.approx({"AP": 1, "APH": accuracy}, abs=1e-6)


def test_a_matched_hard_object_is_a_true_positive_of_level_1() -> None:
    truth = objects([(10, 0), (20, 0), (30, 0)], level=np.array([1, 2, 2]))
    result = evaluate_waymo(truth, found(truth.take(np.array([1]))))
    easy, hard = (result.rows[f"OBJECT_TYPE_TYPE_VEHICLE_LEVEL_{level}"] for level in (1, 2))
    assert (easy.tp[0], easy.fn[0], hard.tp[0], hard.fn[0]) == (1, 1, 1, 2)
    assert easy.average_precision["AP"] == pytest.approx(1 / 2)
    assert hard.average_precision["AP"] == pytest.approx(1 / 3)


def test_no_label_zones_excuse_false_positives_only() -> None:
    truth = objects([(10, 0)])
    boxes = objects([(10, 0), (20, 0), (30, 0)])
    row = evaluate_waymo(truth, found(boxes, overlaps_no_label_zone=np.array([True, True, False]))).rows[ALL_VEHICLES]
    assert (row.tp[0], row.fp[0], row.fn[0]) == (1, 1, 0)


def test_cutoffs_are_compared_as_float32() -> None:
    truth = objects([(10, 0)])
    for index in (0, 7, 29, 57, 100):
        row = evaluate_waymo(truth, found(truth, CUTOFFS[index])).rows[ALL_VEHICLES]
        assert row.tp.sum() == index + 1


def test_range_separates_a_detection_from_its_object() -> None:
    truth = objects([(29.9, 0)])
    detections = found(truth, box=truth.box + [0.3, 0, 0, 0, 0, 0, 0])
    result = evaluate_waymo(truth, detections)
    near, far = (result.rows[f"RANGE_TYPE_VEHICLE_{label}_LEVEL_1"] for label in ("[0, 30)", "[30, 50)"))
    assert result.rows[ALL_VEHICLES].tp[0] == 1
    assert (near.tp[0], near.fn[0], far.fp[0], far.fn[0]) == (0, 1, 1, 0)


def test_a_detection_about_an_object_of_another_speed_is_no_false_positive() -> None:
    truth = objects([(10, 0), (20, 0)], speed=np.array([[0, 0], [5, 0]]))
    boxes = truth.box + np.array([[0, 0, 0, 0, 0, 0, 0], [2, 0, 0, 0, 0, 0, 0]])  # the second overlaps too little
    result = evaluate_waymo(truth, found(truth, box=boxes), DETECTION_BY_SPEED)
    still, fast = (result.rows[f"VELOCITY_TYPE_VEHICLE_{name}_LEVEL_1"] for name in ("STATIONARY", "FAST"))
    assert (still.tp[0], still.fp[0], still.fn[0]) == (1, 0, 0)
    assert (fast.tp[0], fast.fp[0], fast.fn[0]) == (0, 1, 1)


def test_precision_holds_for_whole_steps_of_recall() -> None:
    tp, fp, fn = np.array([12.0, 10, 0]), np.array([12.0, 0, 0]), np.array([8.0, 10, 20])
    # recall 0.6 at precision 0.5, recall 0.5 at precision 1: one whole step of 0.05, then a slope, then 1 all the way
    assert _average_precision(tp, tp, fp, fn) == pytest.approx(0.5 * 0.05 + 0.75 * 0.05 + 0.5)


def test_of_nothing() -> None:
    truth, detections = objects([]), found(objects([]))
    for protocol in (DETECTION_3D, CAMERA_ONLY):
        result = evaluate_waymo(truth, detections, protocol)
        assert set(result.to_dict().values()) == {0.0}
    assert len(result.table().splitlines()) == 2 + 36


def test_boxes_without_size_overlap_nothing() -> None:
    truth = objects([(10, 0)])
    flat = truth.box * np.array([1, 1, 1, 1, 1, 0.005, 1], np.float32)
    assert len(find_pairs(found(truth, box=flat), replace(truth, box=flat), "3d").iou) == 0


def test_means_are_of_the_ranked_types() -> None:
    truth, detections = random_tables(3)
    result = evaluate_waymo(truth, detections)
    expected = [result.rows[f"OBJECT_TYPE_TYPE_{name}_LEVEL_2"] for name in ("VEHICLE", "PEDESTRIAN", "CYCLIST")]
    assert result.means["APH/L2"] == pytest.approx(np.mean([row.average_precision["APH"] for row in expected]))
    assert result.to_dict()["mAPH/L2"] == result.means["APH/L2"]


def test_difficulty() -> None:
    assert difficulty(np.array([0, 0, 1, 2]), np.array([5, 6, 1, 100])).tolist() == [2, 1, 1, 2]


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("box", np.full((2, 7), np.nan), "box: NaN or infinite in row 0, 1"),
        ("box", -np.ones((2, 7)), "box: a negative size"),
        ("type", np.array([1, 5]), "type: not in"),
        ("score", np.array([0.5, np.nan]), "score: not in"),
        ("sample", np.array([0, -1]), "sample: negative"),
        ("score", np.ones(3), "expected shape"),
    ],
)
def test_bad_detections(column: str, value: np.ndarray, message: str) -> None:
    truth = objects([(10, 0), (20, 0)])
    with pytest.raises(ValueError, match=message):
        evaluate_waymo(truth, found(truth, **{column: value}))


@pytest.mark.parametrize(("column", "value"), [("level", [1, 3]), ("camera", [6, 0]), ("speed", [[0, np.inf], [0, 0]])])
def test_bad_ground_truth(column: str, value: list) -> None:
    truth = objects([(10, 0), (20, 0)], **{column: np.array(value)})
    with pytest.raises(ValueError, match=f"ground_truth.{column}"):
        evaluate_waymo(truth, found(truth))
