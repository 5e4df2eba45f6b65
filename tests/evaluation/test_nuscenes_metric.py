from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator

from sparse3d.datasets.nuscenes_schema import ATTRIBUTES, DETECTION_CLASSES
from sparse3d.datasets.poses import make_poses, rotation_matrices
from sparse3d.evaluation import NuScenesMetric, evaluate_detections, read_submission
from sparse3d.evaluation.nuscenes_world import (
    attributes_from_speed,
    world_bike_racks,
    world_detections,
    world_ground_truth,
)
from sparse3d.registry import METRICS
from sparse3d.structures import Annotations, Boxes3D, Frame, InstanceData, LidarScan, Sample
from tests.evaluation.cases import unit_quaternions

CATEGORIES = (
    "vehicle.car",
    "vehicle.truck",
    "vehicle.trailer",
    "vehicle.bus.bendy",
    "vehicle.construction",
    "vehicle.bicycle",
    "vehicle.motorcycle",
    "human.pedestrian.police_officer",
    "movable_object.trafficcone",
    "movable_object.barrier",
    "animal",
)


def make_frame(token: str = "a", *, tilt: float = 0.0, moving: bool = True, extra: str = "animal") -> Frame:
    """A frame with an object of each class and one more: upright in the world where the vehicle is not tilted."""
    ego2global = make_poses([600.0, 1600, 0], unit_quaternions(np.array([0.7]), np.array([tilt]))[0])
    lidar2ego = make_poses([0.9, 0, 1.8], unit_quaternions(np.array([-1.5]), np.array([tilt]))[0])
    count = len(CATEGORIES)
    index = np.arange(count)
    velocities = np.column_stack([np.full(count, 2.0 * moving), 0.5 * index * moving, np.zeros((count, 2))])[:, :2]
    boxes = np.column_stack(
        [
            index * 2.0 - 9,
            5.0 + index,
            np.zeros(count),
            4.0 + index,
            2.0 + index,
            np.full(count, 1.5),
            index - 5,
            velocities,
        ]
    )
    lidar2global = ego2global @ lidar2ego
    table = Boxes3D(boxes).transform(lidar2global).to_nuscenes()
    annotations = Annotations(
        tokens=tuple(f"{token}-{row}" for row in range(count)),
        instances=tuple(f"{token}-{row}" for row in range(count)),
        categories=(*CATEGORIES[:-1], extra),
        attributes=_attributes(moving),
        boxes=boxes,
        num_lidar_points=index * 0 + 3,
        num_radar_points=index * 0 + 1,
        global_centers=table[0],
        global_rotations=table[2],
        global_velocities=table[3],
    )
    lidar = LidarScan("", 0, np.eye(4))
    return Frame(token, "scene", 0, lidar, (), (), lidar2ego, ego2global, annotations)


def _attributes(moving: bool) -> tuple[str, ...]:
    vehicle = "vehicle.moving" if moving else "vehicle.parked"
    bus = "vehicle.moving" if moving else "vehicle.stopped"
    cycle = "cycle.with_rider" if moving else "cycle.without_rider"
    pedestrian = "pedestrian.moving" if moving else "pedestrian.standing"
    return (*[vehicle] * 3, bus, vehicle, cycle, cycle, pedestrian, "", "", "")


def predict(
    frame: Frame, *, rows: slice = slice(10), velocity: bool = True, dtype: torch.dtype = torch.float64
) -> Sample:
    """The annotations as predictions with score 1."""
    boxes = torch.tensor(frame.annotations.boxes, dtype=dtype)[rows, : 9 if velocity else 7]
    pred = InstanceData(boxes=Boxes3D(boxes), scores=torch.ones(len(boxes)), labels=torch.arange(len(CATEGORIES))[rows])
    return Sample.from_frame(frame).replace(pred=pred)


def run(metric: NuScenesMetric, samples: list[Sample]) -> dict[str, float]:
    """As mmengine's loops call it."""
    evaluator = Evaluator([metric])
    for sample in samples:
        evaluator.process([sample])
    return evaluator.evaluate(len(samples))


def without_annotations(frame: Frame) -> Frame:
    return replace(frame, annotations=None)


# -- end to end --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moving", [True, False])
def test_annotations_as_predictions_are_perfect(moving: bool) -> None:
    frames = [make_frame(token, moving=moving) for token in "abc"]
    metric = METRICS.build(dict(type="NuScenesMetric", class_names=list(DETECTION_CLASSES)))
    entries = run(metric, [predict(frame) for frame in frames])
    assert entries["nuscenes/mAP"] == pytest.approx(1)
    assert entries["nuscenes/NDS"] == pytest.approx(1)
    assert entries["nuscenes/AP@0.5/car"] == pytest.approx(1)
    json.dumps(entries, allow_nan=False)


def test_single_precision_is_enough() -> None:
    entries = run(NuScenesMetric(DETECTION_CLASSES), [predict(make_frame(), dtype=torch.float32)])
    assert entries["nuscenes/NDS"] == pytest.approx(1, abs=1e-4)


def test_predictions_without_velocity() -> None:
    entries = run(NuScenesMetric(DETECTION_CLASSES), [predict(make_frame(moving=False), velocity=False)])
    assert (entries["nuscenes/mAVE"], entries["nuscenes/mAAE"]) == pytest.approx((1, 0))
    assert entries["nuscenes/NDS"] == pytest.approx(0.9)


def test_no_prediction_at_all() -> None:
    entries = run(NuScenesMetric(DETECTION_CLASSES), [predict(make_frame(), rows=slice(0)) for _ in range(2)])
    assert (entries["nuscenes/mAP"], entries["nuscenes/NDS"]) == (0, 0)


def test_results_do_not_leak_into_the_next_evaluation() -> None:
    metric = NuScenesMetric(DETECTION_CLASSES)
    run(metric, [predict(make_frame(), rows=slice(0))])
    assert run(metric, [predict(make_frame())])["nuscenes/NDS"] == pytest.approx(1)


def test_padded_samples_are_dropped() -> None:
    evaluator = Evaluator([NuScenesMetric(DETECTION_CLASSES)])
    evaluator.process([predict(make_frame("a")), predict(make_frame("a"), rows=slice(0))])
    assert evaluator.evaluate(1)["nuscenes/NDS"] == pytest.approx(1)


def test_racks_and_points_of_the_annotations() -> None:
    frame = make_frame(extra="static_object.bicycle_rack")
    points = {"num_lidar_points": np.zeros(11, np.int64), "num_radar_points": np.arange(11)}  # none in the car
    centers = frame.annotations.global_centers.copy()
    centers[10] = centers[5]  # the large rack is around the bicycle and the motorcycle
    frame = replace(frame, annotations=replace(frame.annotations, global_centers=centers, **points))
    entries = run(NuScenesMetric(DETECTION_CLASSES), [predict(frame)])
    assert {entries[f"nuscenes/AP/{name}"] for name in ("car", "bicycle", "motorcycle")} == {0}
    assert entries["nuscenes/mAP"] == pytest.approx(0.7)
    assert entries["nuscenes/mAP_present"] == pytest.approx(1)
    few = run(NuScenesMetric(DETECTION_CLASSES, min_points=9, prefix="many"), [predict(frame)])
    assert few["many/mAP"] == pytest.approx(0.1)


def test_fewer_classes_in_another_order() -> None:
    frame = make_frame()
    sample = predict(frame, rows=slice(2))
    sample.pred.labels = torch.tensor([1, 0])
    entries = run(NuScenesMetric(["truck", "car"]), [sample])
    assert entries["nuscenes/mAP"] == pytest.approx(1)
    assert "nuscenes/AP/bus" not in entries


def test_the_table_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = []
    monkeypatch.setattr("mmengine.logging.MMLogger.info", lambda _, message, *args: lines.append(message % args))
    run(NuScenesMetric(DETECTION_CLASSES), [predict(make_frame())])
    assert "NDS 1.0000  mAP 1.0000" in lines[-1]


def test_score_gives_the_whole_result() -> None:
    metric = NuScenesMetric(DETECTION_CLASSES)
    metric.process(None, [predict(make_frame()).to_dict()])
    assert metric.score(metric.results).num_ground_truth == dict.fromkeys(DETECTION_CLASSES, 1)


# -- result file -------------------------------------------------------------------------------------------------------


def test_result_file(tmp_path: Path) -> None:
    frames = [make_frame(token) for token in "ba"]
    path = tmp_path / "results.json"
    metric = NuScenesMetric(DETECTION_CLASSES, path, dict(use_camera=True, use_lidar=True))
    entries = run(metric, [predict(frame) for frame in frames])
    submission = read_submission(path, "ab")
    assert submission.sample_tokens == ("b", "a")
    assert [name for name, used in submission.modality.items() if used] == ["use_camera", "use_lidar"]
    assert entries["nuscenes/NDS"] == pytest.approx(1)


def test_frames_without_annotations_are_only_written(tmp_path: Path) -> None:
    frame = make_frame()
    sample = predict(frame).replace(frame=without_annotations(frame))
    path = tmp_path / "results.json"
    assert run(NuScenesMetric(DETECTION_CLASSES, path), [sample]) == {}
    assert len(read_submission(path).detections) == 10
    with pytest.raises(ValueError, match="give a submission_path"):
        run(NuScenesMetric(DETECTION_CLASSES), [sample])
    with pytest.raises(ValueError, match="1 of 2 frames are annotated"):
        run(NuScenesMetric(DETECTION_CLASSES), [sample, predict(make_frame("b"))])


def test_a_frame_counts_once(tmp_path: Path) -> None:
    samples = [predict(make_frame(token)) for token in "abb"]
    metric = NuScenesMetric(DETECTION_CLASSES, tmp_path / "results.json")
    assert run(metric, samples) == run(NuScenesMetric(DETECTION_CLASSES), samples[:2])
    assert read_submission(tmp_path / "results.json").sample_tokens == ("a", "b")


# -- the way into the world frame --------------------------------------------------------------------------------------


def test_predictions_keep_roll_and_pitch() -> None:
    """The exported box is the box of the LiDAR frame, corner by corner, also where the vehicle is tilted."""
    frame = make_frame(tilt=0.2)
    boxes = Boxes3D(frame.annotations.boxes)
    detections = world_detections(frame, boxes, torch.ones(11), torch.zeros(11, dtype=torch.int64), ["car"])
    corners = boxes.corners().numpy() @ frame.lidar2global[:3, :3].T + frame.lidar2global[:3, 3]
    upright = (
        Boxes3D.from_nuscenes(np.zeros((11, 3)), detections.size, np.tile([1.0, 0, 0, 0], (11, 1))).corners().numpy()
    )
    exported = upright @ rotation_matrices(detections.rotation).transpose(0, 2, 1) + detections.translation[:, None]
    np.testing.assert_allclose(exported, corners, atol=1e-9)
    velocity = np.pad(frame.annotations.boxes[:, 7:9], ((0, 0), (0, 1))) @ frame.lidar2global[:3, :3].T
    np.testing.assert_allclose(detections.velocity, velocity[:, :2], atol=1e-12)


def test_at_most_500_boxes_of_the_highest_scores() -> None:
    frame = make_frame()
    boxes = Boxes3D(torch.tensor(frame.annotations.boxes[:1]).repeat(700, 1))
    scores = torch.linspace(0, 1, 700).flip(0).roll(100)
    detections = world_detections(frame, boxes, scores, torch.zeros(700, dtype=torch.int64), DETECTION_CLASSES)
    assert len(detections) == 500
    assert detections.score.min() == pytest.approx(200 / 699)
    kept = scores[scores >= detections.score.min()]
    np.testing.assert_array_equal(detections.score, kept.double().numpy())


def test_attributes_from_speed() -> None:
    labels = np.tile(np.arange(10), 4)
    velocities = np.repeat([[0.15, 0.15], [0.1, 0.1], [0.0, 0.2], [math.nan, 0]], 10, axis=0)
    names = np.array([*ATTRIBUTES, ""])[attributes_from_speed(velocities, labels, DETECTION_CLASSES)].reshape(4, 10)
    assert tuple(names[0]) == _attributes(moving=True)[:10]
    for standing in names[1:]:
        assert tuple(standing) == _attributes(moving=False)[:10]


def test_ground_truth_of_a_frame() -> None:
    frame = make_frame(extra="static_object.bicycle_rack")
    truth = world_ground_truth(frame, frame.annotations, DETECTION_CLASSES)
    assert truth.label.tolist() == list(range(10))
    assert truth.num_points.tolist() == [4] * 10
    np.testing.assert_array_equal(truth.size, frame.annotations.boxes[:10, [4, 3, 5]])
    racks = world_bike_racks(frame.annotations)
    np.testing.assert_array_equal(racks.translation, frame.annotations.global_centers[10:])
    assert len(world_ground_truth(frame, frame.annotations, ["barrier", "car"])) == 2


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("scores", torch.full((10,), math.nan), r"score: not in \[0, 1\] in row 0, 1, 2"),
        ("labels", torch.arange(10) + 1, r"label: not in \[0, 10\) in row 9"),
        ("labels", torch.arange(10).float(), "label: expected integers, got float32"),
        ("boxes", Boxes3D(torch.full((10, 9), math.nan)), "translation: NaN or infinite"),
        ("scores", torch.ones(11), r"score: expected shape \(10,\), got \(11,\)"),
    ],
)
def test_bad_predictions(name: str, value: object, problem: str) -> None:
    sample = predict(make_frame("frame-7"))
    pred = InstanceData(**{**dict(sample.pred.items()), "scores": torch.ones(10)})
    fields = {**dict(pred.items()), name: value}
    with pytest.raises(ValueError, match=problem):
        NuScenesMetric(DETECTION_CLASSES).process(None, [{"frame": sample.frame, "pred": fields}])


def test_bad_predictions_name_their_frame() -> None:
    frame = make_frame("frame-7")
    with pytest.raises(ValueError, match="predictions for frame frame-7"):
        world_detections(
            frame, Boxes3D(frame.annotations.boxes), torch.full((11,), 2.0), torch.arange(11), ["car"] * 11
        )


def test_unknown_attributes() -> None:
    frame = make_frame()
    annotations = replace(frame.annotations, attributes=("vehicle.flying",) * 11)
    with pytest.raises(ValueError, match=r"frame a: unknown attributes \['vehicle.flying'\]"):
        world_ground_truth(frame, annotations, DETECTION_CLASSES)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="class_names"):
        NuScenesMetric(["cat"])
    with pytest.raises(ValueError, match="meta: expected a bool"):
        NuScenesMetric(DETECTION_CLASSES, modality=dict(use_sonar=True))


# -- a small data set in the original format ---------------------------------------------------------------------------


def test_recorded_data_set(shared: Path) -> None:
    from sparse3d.datasets.nuscenes_frames import scene_frames
    from sparse3d.datasets.nuscenes_tables import load_tables

    root = shared / "golden" / "nuscenes_synth"
    expected = json.loads((root / "expected.json").read_text())["evaluation"]
    tables = load_tables(root / "v1.0-mini", ["scene-0103"])
    frames = {frame.token: frame for frame in scene_frames(tables, "scene-0103", root)}
    submission = read_submission(root / "predictions_mini_val.json", list(frames))
    ordered = [frames[token] for token in submission.sample_tokens]
    truth = [world_ground_truth(frame, frame.annotations, DETECTION_CLASSES) for frame in ordered]
    result = evaluate_detections(
        type(truth[0]).concatenate(truth),
        submission.detections,
        np.array([frame.ego2global[:3, 3] for frame in ordered]),
    )
    for name in ("mean_ap", "nd_score", "tp_errors", "mean_dist_aps"):
        assert getattr(result, name) == pytest.approx(expected[name], abs=1e-9), name
