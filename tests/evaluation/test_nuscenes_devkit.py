"""Our metric against nuScenes' development kit on random scenes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sparse3d.datasets.nuscenes_schema import ATTRIBUTES, DETECTION_CLASSES
from sparse3d.evaluation import BoxTable, NuScenesResult
from sparse3d.evaluation.nuscenes_boxes import ObjectTable
from tests.evaluation.cases import Case, random_case

pytest.importorskip("nuscenes", reason="nuscenes-devkit is not installed")

TOLERANCE = 1e-12  # of numbers of size 1; only the order of sums may differ
ATTRIBUTE_NAMES = (*ATTRIBUTES, "")  # -1 is the last one


class TablesOfCase:
    """What the development kit asks its data set for: ego positions and bicycle racks."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.racks = [_rack_record(case.racks, row) for row in range(len(case.racks))]

    def get(self, table: str, token: Any) -> dict[str, Any]:
        if table == "sample":
            return {"data": {"LIDAR_TOP": token}, "anns": np.flatnonzero(self.case.racks.sample == int(token)).tolist()}
        if table == "sample_data":
            return {"ego_pose_token": token}
        if table == "ego_pose":
            return {"translation": self.case.ego_translations[int(token)].tolist()}
        return self.racks[token]


def _rack_record(racks: BoxTable, row: int) -> dict[str, Any]:
    columns = {name: getattr(racks, name)[row].tolist() for name in ("translation", "size", "rotation")}
    return {**columns, "category_name": "static_object.bicycle_rack"}


def devkit_boxes(table: ObjectTable, num_samples: int) -> Any:
    from nuscenes.eval.common.data_classes import EvalBoxes
    from nuscenes.eval.detection.data_classes import DetectionBox

    boxes = EvalBoxes()
    for sample in range(num_samples):
        boxes.add_boxes(str(sample), [])
    for row in range(len(table)):
        token = str(table.sample[row])
        own = (
            {"num_pts": int(table.num_points[row])}
            if hasattr(table, "num_points")
            else {"detection_score": float(table.score[row])}
        )
        box = DetectionBox(
            sample_token=token,
            translation=tuple(table.translation[row].tolist()),
            size=tuple(table.size[row].tolist()),
            rotation=tuple(table.rotation[row].tolist()),
            velocity=tuple(table.velocity[row].tolist()),
            detection_name=DETECTION_CLASSES[table.label[row]],
            attribute_name=ATTRIBUTE_NAMES[table.attribute[row]],
            **own,
        )
        boxes.add_boxes(token, [box])
    return boxes


def devkit_evaluate(case: Case) -> Any:
    """The development kit's `DetectionMetrics`."""
    from nuscenes.eval.common.config import config_factory
    from nuscenes.eval.common.loaders import add_center_dist, filter_eval_boxes
    from nuscenes.eval.detection.evaluate import DetectionEval

    tables, config = TablesOfCase(case), config_factory("detection_cvpr_2019")
    gt_boxes, pred_boxes = (
        filter_eval_boxes(tables, add_center_dist(tables, devkit_boxes(table, len(case.ego_translations))), ranges)
        for table, ranges in ((case.ground_truth, config.class_range), (case.detections, config.class_range))
    )
    run = SimpleNamespace(cfg=config, gt_boxes=gt_boxes, pred_boxes=pred_boxes, verbose=False)
    return DetectionEval.evaluate(run)[0]


def assert_equal(result: NuScenesResult, devkit: Any) -> None:
    expected = devkit.serialize()
    found = {name: getattr(result, name) for name in expected if hasattr(result, name)}
    assert set(found) >= {"mean_ap", "nd_score", "tp_errors", "mean_dist_aps", "label_aps", "label_tp_errors"}
    for name, values in _flat("", found).items():
        np.testing.assert_allclose(values, _flat("", expected)[name], rtol=0, atol=TOLERANCE, err_msg=name)


def _flat(prefix: str, values: Any) -> dict[str, float]:
    if not hasattr(values, "items"):
        return {prefix: values}
    return {name: value for key, part in values.items() for name, value in _flat(f"{prefix}/{key}", part).items()}


CASES = {
    "plain": {},
    "dense": {"num_samples": 3, "objects_per_sample": 120},
    "equal scores": {"score_decimals": 1},
    "two scores": {"score_decimals": 0},
    "equal distances": {"on_grid": True, "score_decimals": 1},
    "equal distances, dense": {"on_grid": True, "objects_per_sample": 90},
    "absent classes": {"absent_classes": (0, 3, 9)},
    "undetected classes": {"undetected_classes": (1, 7, 8), "absent_classes": (7, 4)},
    "one sample": {"num_samples": 1},
    "hardly an object": {"num_samples": 2, "objects_per_sample": 4},
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", CASES)
def test_equals_the_development_kit(name: str, seed: int) -> None:
    case = random_case(seed, **CASES[name])
    assert_equal(case.evaluate(), devkit_evaluate(case))


def test_unknown_velocities_and_attributes() -> None:
    case = random_case(11)
    unknown = {"velocity": np.full_like(case.ground_truth.velocity, np.nan), "attribute": -np.ones(180, np.int64)}
    case = case.replace(ground_truth=type(case.ground_truth)(**{**vars(case.ground_truth), **unknown}))
    result = case.evaluate()
    assert result.tp_errors["vel_err"] == result.tp_errors["attr_err"] == 1
    assert_equal(result, devkit_evaluate(case))


def test_the_cases_reach_what_they_are_for() -> None:
    """Racks, ranges and points each drop something, and distances and scores really tie."""
    case = random_case(0, on_grid=True, score_decimals=1)
    result = case.evaluate()
    without_racks = case.replace(racks=BoxTable.empty()).evaluate()
    assert sum(result.num_ground_truth.values()) < sum(without_racks.num_ground_truth.values())
    assert sum(result.num_detections.values()) < sum(without_racks.num_detections.values())
    offset = case.ground_truth.translation - case.ego_translations[case.ground_truth.sample]
    distance = np.linalg.norm(offset[:, :2], axis=1)
    assert len(np.unique(case.detections.score)) < 12
    assert (random_case(0).ground_truth.num_points == 0).any()
    assert len(np.unique(distance.round(9))) < len(distance)
