from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse3d.datasets.nuscenes_schema import DETECTION_CLASSES
from sparse3d.evaluation import BoxTable, Detections, GroundTruth, evaluate_detections
from sparse3d.evaluation.nuscenes_matching import match, rank
from tests.conftest import REPOSITORY
from tests.evaluation.cases import Case, detections_of, random_case, unit_quaternions
from tests.parity.kinds.nuscenes_eval import evaluate_case

GOLDEN = REPOSITORY / "tests" / "data" / "golden" / "nuscenes_eval"
ERRORS = ("trans_err", "scale_err", "orient_err", "vel_err", "attr_err")


def objects(
    centers: list[tuple[float, float]],
    label: int | list[int] = 0,
    sample: int | list[int] = 0,
    **changes: object,
) -> GroundTruth:
    """Boxes of one size at centres near the ego vehicle in the origin, standing, parked, with points inside."""
    count = len(centers)
    columns = {
        "sample": np.broadcast_to(sample, count),
        "translation": np.column_stack([np.reshape(centers, (count, 2)), np.ones(count)]),
        "size": np.tile([2.0, 4.0, 1.5], (count, 1)),
        "rotation": np.tile([1.0, 0, 0, 0], (count, 1)),
        "velocity": np.zeros((count, 2)),
        "label": np.broadcast_to(label, count),
        "attribute": np.full(count, -1),
        "num_points": np.full(count, 5),
    }
    return GroundTruth(**{**columns, **changes})


def one_of_each(**changes: object) -> GroundTruth:
    """One object of each class."""
    centers = [(2.0 * label, 5.0) for label in range(10)]
    attributes = np.array([2, 2, 2, 1, 2, 4, 4, 6, -1, -1])
    return objects(centers, label=list(range(10)), **{"attribute": attributes, **changes})


def evaluate(ground_truth: GroundTruth, detections: Detections, samples: int = 1, **options: object):
    return evaluate_detections(ground_truth, detections, np.zeros((samples, 3)), **options)


# -- numbers -----------------------------------------------------------------------------------------------------------


def test_recorded_numbers() -> None:
    for path in sorted(GOLDEN.glob("*.json")):
        config = json.loads(path.read_text())
        with np.load(path.with_suffix(".npz")) as arrays:
            result = evaluate_case(config, dict(arrays))
        assert result.nd_score == pytest.approx(config["results"]["nd_score"], abs=1e-12)
        assert result.mean_ap == pytest.approx(config["results"]["mean_ap"], abs=1e-12)


def test_ground_truth_as_detections_is_perfect() -> None:
    truth = one_of_each()
    result = evaluate(truth, detections_of(truth))
    assert (result.mean_ap, result.nd_score, result.mean_ap_present) == pytest.approx((1, 1, 1))
    assert all(error == pytest.approx(0) for error in result.tp_errors.values())


@pytest.mark.parametrize(
    ("truth", "detections", "mean_ap", "nd_score", "error", "value"),
    [
        ({"velocity": np.full((10, 2), np.nan)}, {}, 1, 0.9, "vel_err", 1),
        ({"attribute": np.full(10, -1)}, {}, 1, 0.9, "attr_err", 1),
        ({}, {"attribute": np.full(10, -1)}, 1, 0.9, "attr_err", 1),
        ({}, {"velocity": np.full((10, 2), np.nan)}, 1, 0.9, "vel_err", 1),
        ({}, {"size": np.tile([4.0, 2, 1.5], (10, 1))}, 1, 1 - 0.1 * (1 - 1 / 3), "scale_err", 1 - 1 / 3),
        ({}, {"rotation": np.tile([0.0, 0, 0, 1], (10, 1))}, 1, 0.9, "orient_err", math.pi * 8 / 9),
        ({}, {"velocity": np.tile([0.3, 0.4], (10, 1))}, 1, 0.95, "vel_err", 0.5),
    ],
    ids=[
        "no velocity",
        "no attribute",
        "attribute lost",
        "velocity lost",
        "l and w swapped",
        "half a turn",
        "too fast",
    ],
)
def test_one_mistake_at_a_time(
    truth: dict, detections: dict, mean_ap: float, nd_score: float, error: str, value: float
) -> None:
    ground_truth = one_of_each(**truth)
    result = evaluate(ground_truth, detections_of(ground_truth, **detections))
    assert (result.mean_ap, result.nd_score) == pytest.approx((mean_ap, nd_score))
    assert result.tp_errors[error] == pytest.approx(value)
    assert all(result.tp_errors[other] == pytest.approx(0) for other in ERRORS if other != error)


def test_height_of_the_centre_is_not_looked_at() -> None:
    truth = one_of_each()
    assert evaluate(
        truth, detections_of(truth, translation=truth.translation - [0, 0, 0.75])
    ).nd_score == pytest.approx(1)


def test_barriers_look_the_same_from_behind() -> None:
    truth = one_of_each()
    result = evaluate(truth, detections_of(truth, rotation=np.tile([0.0, 0, 0, 1], (10, 1))))
    assert result.label_tp_errors["barrier"]["orient_err"] == pytest.approx(0)
    assert result.label_tp_errors["car"]["orient_err"] == pytest.approx(math.pi)


def test_errors_that_are_not_defined() -> None:
    truth = one_of_each()
    errors = evaluate(truth, detections_of(truth)).label_tp_errors
    undefined = {(name, error) for name, values in errors.items() for error in ERRORS if np.isnan(values[error])}
    cone = {("traffic_cone", error) for error in ("orient_err", "vel_err", "attr_err")}
    assert undefined == cone | {("barrier", "vel_err"), ("barrier", "attr_err")}


# -- matching ----------------------------------------------------------------------------------------------------------


def test_the_last_of_equal_scores_chooses_first() -> None:
    truth = objects([(0.0, 0.0)])
    pair = objects([(0.1, 0.0), (0.2, 0.0)])
    result = evaluate(truth, detections_of(pair, score=np.array([0.5, 0.5])))
    assert result.label_tp_errors["car"]["trans_err"] == pytest.approx(0.2)


def test_order_of_samples_decides_between_equal_scores() -> None:
    truth = objects([(0.0, 0.0), (0.0, 0.0)], sample=[0, 1])
    table = objects([(0.0, 0.0), (9.0, 0.0)], sample=[1, 0])  # the false box stands in the first sample
    late = evaluate(truth, detections_of(table, score=np.array([0.5, 0.5])), samples=2)
    early = evaluate(truth, detections_of(table, sample=np.array([0, 1]), score=np.array([0.5, 0.5])), samples=2)
    assert late.label_aps["car"][2.0] > early.label_aps["car"][2.0]


def test_a_taken_object_does_not_block_a_farther_one() -> None:
    truth = objects([(0.0, 0.0), (1.5, 0.0)])
    pair = objects([(0.0, 0.0), (0.1, 0.0)])
    aps = evaluate(truth, detections_of(pair, score=np.array([0.9, 0.8]))).label_aps["car"]
    assert aps[2.0] == pytest.approx(1)
    assert aps[1.0] == pytest.approx((39 * 0.9 + 0.4) / 81)  # precision 1 up to recall 0.49, and 0.5 at 0.5


def test_distance_equal_to_a_threshold_is_no_match() -> None:
    truth = objects([(0.0, 0.0)])
    aps = evaluate(truth, detections_of(objects([(2.0, 0.0)]))).label_aps["car"]
    assert aps == {0.5: 0, 1.0: 0, 2.0: 0, 4.0: pytest.approx(1)}


grid_points = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 1), st.integers(0, 1)), max_size=12
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(grid_points, grid_points, st.lists(st.sampled_from([0.1, 0.5, 0.9]), min_size=12, max_size=12))
def test_match_follows_its_definition(truth: list, found: list, scores: list[float]) -> None:
    tables = [
        objects([row[:2] for row in rows], [row[2] for row in rows], [row[3] for row in rows])
        for rows in (truth, found)
    ]
    ranked = rank(detections_of(tables[1], score=np.array(scores[: len(found)])))
    matches = match(tables[0], ranked, 2, 2, (1.0, 1.5, 3.0))
    for threshold, row in zip((1.0, 1.5, 3.0), matches, strict=True):
        assert row.tolist() == greedy(tables[0], ranked, threshold)


def greedy(ground_truth: GroundTruth, ranked: Detections, threshold: float) -> list[int]:
    taken: set[int] = set()
    rows = []
    for p in range(len(ranked)):
        candidates = [
            (math.dist(ranked.translation[p, :2], ground_truth.translation[g, :2]), g)
            for g in range(len(ground_truth))
            if g not in taken and (ground_truth.sample[g], ground_truth.label[g]) == (ranked.sample[p], ranked.label[p])
        ]
        distance, row = min(candidates, default=(math.inf, -1))
        rows.append(row if distance < threshold else -1)
        taken.add(rows[-1])
    return rows


# -- filters -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "limit"), [("car", 50), ("pedestrian", 40), ("barrier", 30)])
def test_class_range_is_excluded(name: str, limit: float) -> None:
    label = DETECTION_CLASSES.index(name)
    truth = objects([(0.6 * limit, 0.8 * limit), (0.0, limit - 1e-6), (0.0, -limit)], label)
    result = evaluate(truth, detections_of(truth))
    assert result.num_ground_truth[name] == result.num_detections[name] == 1


def test_range_is_measured_from_the_ego_vehicle() -> None:
    truth = objects([(1000.0, 2000.0)])
    near = evaluate_detections(truth, detections_of(truth), np.array([[990.0, 2000, 0]]))
    assert near.num_ground_truth["car"] == 1
    assert evaluate(truth, detections_of(truth)).num_ground_truth["car"] == 0


def test_objects_without_points_do_not_count() -> None:
    truth = objects([(0.0, 0.0), (9.0, 0.0), (18.0, 0.0)], num_points=np.array([0, 1, 7]))
    result = evaluate(truth, detections_of(truth))
    assert (result.num_ground_truth["car"], result.num_detections["car"]) == (2, 3)
    assert evaluate(truth, detections_of(truth), min_points=5).num_ground_truth["car"] == 1
    assert evaluate(truth, detections_of(truth), min_points=0).num_ground_truth["car"] == 3


def test_cycles_in_racks_do_not_count() -> None:
    labels = [DETECTION_CLASSES.index(name) for name in ("bicycle", "motorcycle", "pedestrian", "bicycle", "bicycle")]
    truth = objects([(0.0, 0.0), (0.9, 1.9), (0.0, 0.0), (1.9, 0.0), (0.0, 1.9)], labels, [0, 0, 0, 0, 1])
    rack = BoxTable([0], [[0.0, 0, 1]], [[2.0, 4, 2]], unit_quaternions(np.array([math.pi / 2]), np.zeros(1)))
    result = evaluate(truth, detections_of(truth), samples=2, bike_racks=rack)
    left = {"bicycle": 2, "motorcycle": 0, "pedestrian": 1}
    assert {name: result.num_ground_truth[name] for name in left} == left
    assert result.num_ground_truth == result.num_detections


def test_a_rack_includes_its_faces_and_height() -> None:
    bicycle = DETECTION_CLASSES.index("bicycle")
    centers = np.array([[2.0, 1, 2], [2.0, 1, 2.001], [2.001, 1, 1], [-2.0, -1, 0]])
    truth = objects([(0.0, 0.0)] * 4, bicycle, translation=centers)
    rack = BoxTable([0], [[0.0, 0, 1]], [[2.0, 4, 2]], [[1.0, 0, 0, 0]])
    assert evaluate(truth, detections_of(truth), bike_racks=rack).num_ground_truth["bicycle"] == 2


# -- where the development kit stops -----------------------------------------------------------------------------------


def test_no_detection() -> None:
    result = evaluate(one_of_each(), Detections.empty())
    assert result.mean_ap == result.nd_score == 0
    assert all(error == 1 for error in result.tp_errors.values())


def test_no_ground_truth() -> None:
    result = evaluate(GroundTruth.empty(), detections_of(one_of_each()))
    assert result.mean_ap == result.nd_score == result.mean_ap_present == 0
    assert all(error == 1 for error in result.tp_errors.values())


def test_nothing_at_all() -> None:
    for samples in (0, 3):
        assert evaluate(GroundTruth.empty(), Detections.empty(), samples).nd_score == 0


def test_a_class_that_never_occurs() -> None:
    truth = one_of_each().take(np.arange(1, 10))
    result = evaluate(truth, detections_of(truth))
    assert (result.mean_ap, result.mean_ap_present) == pytest.approx((0.9, 1))
    assert list(result.tp_errors.values()) == pytest.approx([1 / 10, 1 / 10, 1 / 9, 1 / 8, 1 / 8])
    assert result.nd_score == pytest.approx(0.8939, abs=5e-5)
    assert set(result.label_tp_errors["car"].values()) == {1.0}


def test_a_sample_without_boxes() -> None:
    truth = objects([(0.0, 0.0), (1.0, 0.0)], sample=[0, 2])
    assert evaluate(truth, detections_of(truth), samples=4).label_aps["car"][0.5] == pytest.approx(1)


def test_fewer_classes() -> None:
    truth = objects([(0.0, 0.0), (5.0, 0.0)], label=[0, 1])
    result = evaluate(truth, detections_of(truth), class_names=["pedestrian", "car"])
    assert result.mean_ap == pytest.approx(1)
    assert list(result.label_aps) == ["pedestrian", "car"]
    cones = evaluate(objects([(0.0, 0.0)]), detections_of(objects([(0.0, 0.0)])), class_names=["traffic_cone"])
    assert np.isnan(cones.tp_errors["vel_err"])
    assert cones.nd_score == pytest.approx(0.7)
    assert "mAVE" not in cones.to_dict()


# -- output ------------------------------------------------------------------------------------------------------------


def test_flat_entries() -> None:
    result = random_case(0).evaluate()
    flat = result.to_dict()
    assert flat["NDS"] == result.nd_score
    assert flat["mATE"] == result.tp_errors["trans_err"]
    assert flat["AP/car"] == result.mean_dist_aps["car"]
    assert flat["AP@2.0/car"] == result.label_aps["car"][2.0]
    assert flat["AOE/barrier"] == result.label_tp_errors["barrier"]["orient_err"]
    assert "AVE/barrier" not in flat
    json.dumps(flat, allow_nan=False)


def test_table() -> None:
    lines = random_case(0).evaluate().table().splitlines()
    assert lines[0].startswith("NDS 0.")
    assert len(lines) == 12
    assert len({len(line) for line in lines[1:]}) == 1
    assert lines[-1].split()[0] == "barrier"
    assert lines[-1].split()[-4:-2] == ["-", "-"]


# -- bad input ---------------------------------------------------------------------------------------------------------


def spoiled(column: str, row: int, value: float) -> Case:
    case = random_case(0)
    array = getattr(case.detections, column).copy()
    array[row] = value
    return case.replace(detections=Detections(**{**vars(case.detections), column: array}))


@pytest.mark.parametrize(
    ("column", "value", "problem"),
    [
        ("translation", np.nan, "NaN or infinite"),
        ("translation", np.inf, "NaN or infinite"),
        ("size", np.nan, "NaN or infinite"),
        ("size", 0, "not positive"),
        ("rotation", np.nan, "NaN or infinite"),
        ("rotation", 0, "length zero"),
        ("velocity", np.inf, "infinite"),
        ("score", np.nan, r"not in \[0, 1\]"),
        ("score", 1.01, r"not in \[0, 1\]"),
        ("score", -0.01, r"not in \[0, 1\]"),
        ("sample", 6, r"not in \[0, 6\)"),
        ("sample", -1, r"not in \[0, 6\)"),
        ("label", 10, r"not in \[0, 10\)"),
        ("attribute", 8, r"not in \[-1, 8\)"),
    ],
)
def test_bad_detections(column: str, value: float, problem: str) -> None:
    with pytest.raises(ValueError, match=rf"detections\.{column}: .*{problem}.* in row 7 \(1 of"):
        spoiled(column, 7, value).evaluate()


def test_bad_ground_truth() -> None:
    truth = one_of_each(num_points=np.array([1, -1, 1, 1, 1, 1, 1, -2, 1, 1]))
    with pytest.raises(ValueError, match=r"ground_truth\.num_points: negative in row 1, 7 \(2 of 10\)"):
        evaluate(truth, Detections.empty())


def test_bad_racks() -> None:
    rack = BoxTable([3], [[0.0, 0, 1]], [[2.0, 4, 2]], [[1.0, 0, 0, 0]])
    with pytest.raises(ValueError, match=r"bike_racks\.sample"):
        evaluate(one_of_each(), Detections.empty(), bike_racks=rack)


def test_too_many_boxes() -> None:
    crowd = objects([(0.0, 0.0)] * 501, sample=1)
    with pytest.raises(ValueError, match=r"detections: more than 500 boxes in sample 1 \(1 of 2\)"):
        evaluate(GroundTruth.empty(), detections_of(crowd), samples=2)
    evaluate(GroundTruth.empty(), detections_of(crowd.take(np.arange(500))), samples=2)


@pytest.mark.parametrize("names", [["car", "cat"], [], ["car", "car"]])
def test_bad_class_names(names: list[str]) -> None:
    with pytest.raises(ValueError, match="class_names: expected different names"):
        evaluate(GroundTruth.empty(), Detections.empty(), class_names=names)


def test_bad_ego_translations() -> None:
    for wrong in (np.zeros((2, 2)), np.full((2, 3), np.nan)):
        with pytest.raises(ValueError, match="ego_translations"):
            evaluate_detections(GroundTruth.empty(), Detections.empty(), wrong)


def test_wrong_shapes_and_types() -> None:
    with pytest.raises(ValueError, match=r"BoxTable\.size: expected shape \(1, 3\), got \(1, 2\)"):
        BoxTable([0], [[0.0, 0, 1]], [[2.0, 4]], [[1.0, 0, 0, 0]])
    with pytest.raises(ValueError, match=r"BoxTable\.sample: expected integers, got float64"):
        BoxTable([0.0], [[0.0, 0, 1]], [[2.0, 4, 1]], [[1.0, 0, 0, 0]])


def test_inputs_stay_as_they_are() -> None:
    case, twin = random_case(3), random_case(3)
    case.evaluate()
    for part in ("ground_truth", "detections", "racks"):
        for name, array in vars(getattr(case, part)).items():
            np.testing.assert_array_equal(array, getattr(getattr(twin, part), name))
