"""The Waymo metrics as metrics of mmengine: from samples to tables and files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparse3d.datasets.protobuf_wire import Message
from sparse3d.registry import METRICS
from sparse3d.structures import Frame, InstanceData
from sparse3d.structures.skeleton import MISSING

from .waymo_cases import NAMES, annotations, frame, poses, prediction

CAR = [10.0, 2, 1, 4.5, 2, 1.6, 0.3]
WALKER = [12.0, -5, 1, 0.8, 0.8, 1.7, 1.0]
RIDER = [40.0, 8, 1, 1.8, 0.7, 1.7, 2.0]


def run(metric: str, samples: list[tuple[Frame, InstanceData]], **options: Any) -> dict[str, float]:
    built = METRICS.build(dict(type=metric, class_names=options.pop("class_names", NAMES), **options))
    built.process(None, [dict(frame=each, pred=pred) for each, pred in samples])
    return built.evaluate(len(samples))


# -- detection -------------------------------------------------------------------------------------------------------


def perfect(number: int = 0) -> tuple[Frame, InstanceData]:
    boxes = [CAR, WALKER, RIDER]
    return frame(annotations(boxes, NAMES), number), prediction(boxes, [0, 1, 2], [0.9, 0.8, 0.7])


def test_perfect_detections_score_one_in_each_row_that_has_objects() -> None:
    numbers = run("WaymoMetric", [perfect(0), perfect(1)])
    assert numbers["waymo/mAPH/L2"] == pytest.approx(1) and numbers["waymo/mAP/L1"] == pytest.approx(1)
    assert numbers["waymo/AP/RANGE_TYPE_CYCLIST_[30, 50)_LEVEL_2"] == pytest.approx(1)
    assert numbers["waymo/AP/RANGE_TYPE_CYCLIST_[0, 30)_LEVEL_2"] == 0
    assert not any("SIGN" in name for name in numbers)


def test_a_frame_that_was_tested_twice_counts_once() -> None:
    missed = frame(annotations([CAR], ["Vehicle"]), 1), prediction([], [], [])
    once, twice = (run("WaymoMetric", [perfect(), *[missed] * times])["waymo/mAP/L2"] for times in (1, 2))
    assert once == twice < 1


def test_objects_without_points_and_of_other_classes_are_not_missed() -> None:
    objects = annotations([CAR, CAR, WALKER], ["Vehicle", "Sign", "Pedestrian"], num_lidar_points=[10, 10, 0])
    numbers = run("WaymoMetric", [(frame(objects), prediction([CAR], [0], [0.9]))], class_names=["Vehicle"])
    assert numbers["waymo/mAP/L2"] == pytest.approx(1)


def test_few_points_make_an_object_hard_unless_an_annotator_said_otherwise() -> None:
    far = [20.0, 9, 1, 4, 2, 1.5, 0]
    objects = annotations([CAR, far], ["Vehicle"] * 2, num_lidar_points=[10, 5])
    found = prediction([CAR], [0], [0.9])
    numbers = run("WaymoMetric", [(frame(objects), found)], class_names=["Vehicle"])
    assert numbers["waymo/mAP/L1"] == pytest.approx(1) and numbers["waymo/mAP/L2"] < 0.6
    easy = annotations([CAR, far], ["Vehicle"] * 2, num_lidar_points=[10, 5], difficulties=np.array([0, 1]))
    assert run("WaymoMetric", [(frame(easy), found)], class_names=["Vehicle"])["waymo/mAP/L1"] < 0.6


def test_an_alarm_in_a_no_label_zone_is_no_alarm() -> None:
    alarm = prediction([CAR, RIDER], [0, 0], [0.5, 0.9])
    objects = annotations([CAR], ["Vehicle"])
    zone = np.array([[140.1, 8.0], [150, 0], [150, 20]])  # around the vehicle at (100, 0)
    pose = np.eye(4)
    pose[0, 3] = 100
    outside = frame(objects, ego2global=pose)
    inside = frame(objects, ego2global=pose, no_label_zones=(zone,))
    numbers = [run("WaymoMetric", [(each, alarm)], class_names=["Vehicle"]) for each in (outside, inside)]
    assert [each["waymo/mAP/L2"] for each in numbers] == pytest.approx([0.5, 1.0])


def test_cameras_are_scored_on_what_they_saw() -> None:
    synced = np.array(CAR) + [0.2, 0, 0, 0, 0, 0, 0]
    objects = annotations([CAR, RIDER], ["Vehicle"] * 2, camera_synced_boxes=np.array([synced, RIDER]))
    hidden = np.array([1, 0])
    objects.waymo.most_visible_cameras[:] = hidden
    farther = synced * [1.04, 1.04, 1, 1, 1, 1, 1]  # along the line of sight, within the tolerance
    found = prediction([farther], [0], [0.9])
    numbers = run("WaymoMetric", [(frame(objects), found)], class_names=["Vehicle"], task="camera")
    assert numbers["waymo/mAP/L2"] == pytest.approx(1)
    assert 0.4 < numbers["waymo/mAPL/L2"] < 0.8
    assert "waymo/APL/CAMERA_TYPE_VEHICLE_FRONT_LEVEL_2" in numbers


def test_without_annotations_only_the_files_are_written(tmp_path: Path) -> None:
    unknown = frame(None), prediction([CAR], [0], [0.9])
    path = tmp_path / "found" / "predictions.bin"
    assert run("WaymoMetric", [unknown], submission=dict(path=path)) == {}
    assert len(Message(path.read_bytes()).messages(1)) == 1
    with pytest.raises(ValueError, match="0 of 1 frames are annotated"):
        run("WaymoMetric", [unknown])
    with pytest.raises(ValueError, match="1 of 2 frames are annotated"):
        run("WaymoMetric", [perfect(1), unknown])


@pytest.mark.parametrize(
    ("metric", "options", "message"),
    [
        ("WaymoMetric", dict(class_names=["car"]), "not a class of Waymo"),
        ("WaymoMetric", dict(task="radar"), "task must be one of"),
        ("WaymoMetric", dict(submission=dict(path="found.json")), "must end with .bin or .tar.gz"),
        ("WaymoKeypointMetric", dict(protocol="coco"), "protocol must be one of"),
    ],
)
def test_options_that_do_not_exist_are_refused(metric: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(metric, [], **options)


def test_labels_of_another_data_set_are_refused() -> None:
    objects = annotations([CAR], ["Vehicle"])
    object.__setattr__(objects, "waymo", None)
    with pytest.raises(ValueError, match="not those of Waymo"):
        run("WaymoMetric", [(frame(objects), prediction([CAR], [0], [0.9]))])


# -- keypoints -------------------------------------------------------------------------------------------------------

PEOPLE = ["Pedestrian", "Cyclist"]


@pytest.mark.parametrize("protocol", ["voxelkp", "challenge"])
def test_keypoints_that_are_off_by_five_centimetres(protocol: str) -> None:
    objects = annotations([WALKER, RIDER, CAR], ["Pedestrian", "Cyclist", "Vehicle"])
    people = annotations([WALKER, RIDER], PEOPLE)
    sample = frame(objects), poses(people, shift=0.05)
    numbers = run("WaymoKeypointMetric", [sample], class_names=PEOPLE, protocol=protocol)
    assert numbers["keypoints/MPJPE/ALL"] == pytest.approx(0.05, rel=1e-4)
    assert numbers["keypoints/PEM/WRISTS"] == pytest.approx(0.05, rel=1e-4)
    assert numbers["keypoints/Recall/ALL"] == 1


def test_people_without_keypoints_are_found_for_nothing() -> None:
    objects = annotations([WALKER, RIDER], PEOPLE)
    objects.waymo.keypoint_visibility[1] = MISSING
    numbers = run("WaymoKeypointMetric", [(frame(objects), poses(objects))], class_names=PEOPLE)
    assert numbers["keypoints/PEM/ALL"] == pytest.approx(0, abs=1e-6) and numbers["keypoints/Precision/ALL"] == 1


def test_frames_where_nobody_has_keypoints_do_not_count_for_voxelkp() -> None:
    labelled, unlabelled = annotations([WALKER], ["Pedestrian"]), annotations([RIDER], ["Cyclist"])
    unlabelled.waymo.keypoint_visibility[:] = MISSING
    invented = annotations([[30.0, 30, 1, 0.8, 0.8, 1.7, 0]], ["Pedestrian"])
    samples = [(frame(labelled, 0), poses(labelled)), (frame(unlabelled, 1), poses(invented))]
    precision = [
        run("WaymoKeypointMetric", samples, class_names=PEOPLE, protocol=protocol)["keypoints/Precision/ALL"]
        for protocol in ("voxelkp", "challenge")
    ]
    assert precision == [1.0, 0.5]


def test_nobody_beyond_a_hundred_metres_counts_for_voxelkp() -> None:
    objects = annotations([WALKER, [101.0, 0, 1, 0.8, 0.8, 1.7, 0]], ["Pedestrian"] * 2)
    found = poses(objects)[:1]
    numbers = run("WaymoKeypointMetric", [(frame(objects), found)], class_names=PEOPLE)
    assert numbers["keypoints/Recall/ALL"] == 1
    numbers = run("WaymoKeypointMetric", [(frame(objects), found)], class_names=PEOPLE, protocol="challenge")
    assert numbers["keypoints/Recall/ALL"] == 0.5


def test_poses_of_the_test_set_are_written_and_not_scored(tmp_path: Path) -> None:
    path = tmp_path / "poses.bin"
    found = poses(annotations([WALKER], ["Pedestrian"]))
    submission = dict(path=path, account_name="someone@example.org", method_name="VoxelKP")
    assert run("WaymoKeypointMetric", [(frame(None), found)], class_names=PEOPLE, submission=submission) == {}
    message = Message(path.read_bytes())
    assert message.text(1) == "someone@example.org" and len(message.messages(7)) == 1
