"""The written data set: reproducible, complete, and accepted by the nuScenes development kit."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from sparse3d.datasets.nuscenes_schema import CAMERA_CHANNELS, CATEGORY_TO_CLASS, LIDAR_CHANNEL
from sparse3d.datasets.poses import make_poses
from sparse3d.datasets.synthetic import write_synthetic
from sparse3d.datasets.synthetic.recording import sweep_ages

SETTINGS = {
    "scenes": 1,
    "val_scenes": 1,
    "frames": 3,
    "seed": 5,
    "version": "v1.0-mini",
    "sweeps": 2,
    "image_scale": 0.1,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("synthetic") / "data"
    write_synthetic(target, **SETTINGS, workers=1, progress=False)
    return target


@pytest.fixture(scope="module")
def tables(root: Path) -> dict[str, list[dict]]:
    return {path.stem: json.loads(path.read_text()) for path in (root / "v1.0-mini").glob("*.json")}


def by_token(records: list[dict]) -> dict[str, dict]:
    return {record["token"]: record for record in records}


def digest(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# -- files -----------------------------------------------------------------------------------------------------------


def test_same_seed_gives_the_same_bytes_for_any_number_of_workers(root: Path, tmp_path: Path):
    write_synthetic(tmp_path / "again", **SETTINGS, workers=2, progress=False)
    assert digest(tmp_path / "again") == digest(root)


def test_another_seed_gives_another_world(root: Path, tmp_path: Path):
    settings = {**SETTINGS, "seed": 6, "val_scenes": 0, "frames": 1}
    write_synthetic(tmp_path / "other", **settings, workers=1, progress=False)
    scans = [next((folder / "samples" / LIDAR_CHANNEL).glob("*scene-0061*")) for folder in (root, tmp_path / "other")]
    assert scans[0].read_bytes() != scans[1].read_bytes()


def test_every_record_has_its_file(root: Path, tables: dict):
    for record in tables["sample_data"]:
        path = root / record["filename"]
        if record["fileformat"] == "pcd":
            points = np.fromfile(path, np.float32).reshape(-1, 5)
            assert len(points) > 5000
        else:
            assert cv2.imread(str(path)).shape == (record["height"], record["width"], 3) == (90, 160, 3)
    on_disk = [path for kind in ("samples", "sweeps") for path in (root / kind).rglob("*") if path.is_file()]
    assert len(on_disk) == len(tables["sample_data"])
    assert all((root / record["filename"]).is_file() for record in tables["map"])


def test_chains_run_in_the_order_of_time(tables: dict):
    assert len(tables) == 13
    for name in ("sample", "sample_data", "sample_annotation"):
        records = by_token(tables[name])
        assert len(records) == len(tables[name])
        for record in tables[name]:
            if record["next"]:
                following = records[record["next"]]
                assert following["prev"] == record["token"]
                if "timestamp" in record:
                    assert following["timestamp"] > record["timestamp"]
    heads = [record for record in tables["sample_data"] if not record["prev"]]
    assert len(heads) == 2 * (1 + len(CAMERA_CHANNELS))
    scans = [record for record in tables["sample_data"] if LIDAR_CHANNEL in record["filename"]]
    assert len(scans) == 2 * 3 * (1 + 2)
    samples = by_token(tables["sample"])
    for record in scans:
        lag = samples[record["sample_token"]]["timestamp"] - record["timestamp"]
        ages = [0] if record["is_key_frame"] else [age * 50_000 for age in sweep_ages(2)]
        assert lag in ages


@pytest.mark.parametrize("count", range(10))
def test_kept_sweeps_are_spread_between_key_frames(count: int):
    ages = sweep_ages(count)
    assert len(set(ages)) == count and ages == sorted(ages)
    assert all(1 <= age <= 9 for age in ages)
    assert np.ptp(np.diff([0, *ages, 10])) <= 1


def test_velocity_is_displacement(tables: dict):
    """Positions of an instance follow one smooth course: half the double step is the mean of the single ones."""
    records = by_token(tables["sample_annotation"])
    samples = by_token(tables["sample"])
    attributes = by_token(tables["attribute"])
    moving = 0
    for record in tables["sample_annotation"]:
        if not record["prev"] or not record["next"]:
            continue
        chain = [records[record["prev"]], record, records[record["next"]]]
        times = np.array([samples[each["sample_token"]]["timestamp"] for each in chain]) / 1e6
        before, here, after = np.array([each["translation"][:2] for each in chain])
        velocity = (after - before) / (times[2] - times[0])
        names = [attributes[token]["name"] for token in record["attribute_tokens"]]
        if {"vehicle.parked", "pedestrian.standing", "cycle.without_rider"} & set(names):
            assert np.linalg.norm(velocity) < 1e-6
        if "vehicle.moving" in names and np.linalg.norm(velocity) > 3:
            moving += 1
            heading = make_poses(np.zeros(3), record["rotation"])[:2, 0]
            assert np.dot(heading, velocity) / np.linalg.norm(velocity) > 0.98
            assert np.linalg.norm(here - (before + after) / 2) < 0.5  # at most 3 m/s^2 over half a second, and the beam
    assert moving > 3


def test_point_counts_are_those_of_the_written_scan(root: Path, tables: dict):
    poses, mounts = by_token(tables["ego_pose"]), by_token(tables["calibrated_sensor"])
    keys = {r["sample_token"]: r for r in tables["sample_data"] if r["is_key_frame"] and LIDAR_CHANNEL in r["filename"]}
    for sample, data in keys.items():
        points = np.fromfile(root / data["filename"], np.float32).reshape(-1, 5)[:, :3].astype(np.float64)
        for link in (mounts[data["calibrated_sensor_token"]], poses[data["ego_pose_token"]]):
            pose = make_poses(link["translation"], link["rotation"])
            points = points @ pose[:3, :3].T + pose[:3, 3]
        for record in tables["sample_annotation"]:
            if record["sample_token"] == sample:
                local = (points - record["translation"]) @ make_poses(np.zeros(3), record["rotation"])[:3, :3]
                width, length, height = record["size"]
                inside = (np.abs(local) <= np.array([length, width, height]) / 2).all(axis=1).sum()
                assert inside == record["num_lidar_pts"]


def test_tokens_and_attributes(tables: dict):
    categories, attributes = by_token(tables["category"]), by_token(tables["attribute"])
    instances = by_token(tables["instance"])
    for records in tables.values():
        assert all(isinstance(record["token"], str) for record in records)
    for record in tables["sample_annotation"]:
        name = categories[instances[record["instance_token"]]["category_token"]]["name"]
        expected = {"vehicle": "vehicle", "human": "pedestrian"}.get(name.split(".")[0])
        if name in ("vehicle.bicycle", "vehicle.motorcycle"):
            expected = "cycle"
        named = [attributes[token]["name"].split(".")[0] for token in record["attribute_tokens"]]
        assert named == ([expected] if expected else [])
        assert record["visibility_token"] in ("1", "2", "3", "4")
    assert {instance["nbr_annotations"] for instance in tables["instance"]} <= {1, 2, 3}


# -- the development kit ---------------------------------------------------------------------------------------------


def test_development_kit_scores_ground_truth_as_perfect(root: Path, tmp_path: Path):
    nuscenes = pytest.importorskip("nuscenes.nuscenes")
    evaluate = pytest.importorskip("nuscenes.eval.detection.evaluate")
    config = pytest.importorskip("nuscenes.eval.common.config").config_factory("detection_cvpr_2019")
    kit = nuscenes.NuScenes("v1.0-mini", str(root), verbose=False)
    results = {
        sample["token"]: [] for sample in kit.sample if kit.get("scene", sample["scene_token"])["name"] == "scene-0103"
    }
    for token in results:
        for name in kit.get("sample", token)["anns"]:
            annotation = kit.get("sample_annotation", name)
            # The metric drops what no point hit from the ground truth only.
            if annotation["category_name"] in CATEGORY_TO_CLASS and annotation["num_lidar_pts"]:
                results[token].append(as_prediction(kit, token, annotation))
    path = tmp_path / "results.json"
    meta = {f"use_{kind}": kind == "lidar" for kind in ("camera", "lidar", "radar", "map", "external")}
    path.write_text(json.dumps({"meta": meta, "results": results}))
    task = evaluate.DetectionEval(kit, config, str(path), "mini_val", str(tmp_path), verbose=False)
    metrics, _ = task.evaluate()
    present = {box.detection_name for box in task.gt_boxes.all}
    assert {"car", "pedestrian"} <= present
    for name in present:
        assert metrics.mean_dist_aps[name] == pytest.approx(1.0, abs=0.02)
        assert metrics.get_label_tp(name, "trans_err") == pytest.approx(0, abs=1e-9)
    assert kit.get_sample_data_path(kit.sample[0]["data"]["CAM_FRONT"]).endswith(".jpg")


def as_prediction(kit, sample: str, annotation: dict) -> dict:
    velocity = kit.box_velocity(annotation["token"])[:2]
    attributes = [kit.get("attribute", token)["name"] for token in annotation["attribute_tokens"]]
    return {
        "sample_token": sample,
        "translation": annotation["translation"],
        "size": annotation["size"],
        "rotation": annotation["rotation"],
        "velocity": velocity.tolist(),
        "detection_name": CATEGORY_TO_CLASS[annotation["category_name"]],
        "detection_score": 1.0,
        "attribute_name": attributes[0] if attributes else "",
    }


# -- the door --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scenes": 9}, "scenes must be 0 to 8"),
        ({"val_scenes": 3}, "val_scenes must be 0 to 2"),
        ({"version": "v1.0-test"}, "version must be one of"),
        ({"frames": 0}, "frames must be at least 1"),
        ({"sweeps": 10}, "sweeps must be 0 to 9"),
        ({"image_scale": 0.0}, "image_scale must be"),
        ({"workers": 0}, "workers must be at least 1"),
        ({"seed": -1}, "seed must not be negative"),
        ({"scenes": 0, "val_scenes": 0}, "nothing to write"),
    ],
)
def test_arguments_are_checked(tmp_path: Path, changes: dict, message: str):
    with pytest.raises(ValueError, match=message):
        write_synthetic(tmp_path / "data", **{**SETTINGS, **changes}, progress=False)
    assert not any(tmp_path.iterdir())


def test_foreign_folders_are_never_replaced(tmp_path: Path):
    (tmp_path / "precious.txt").write_text("keep me")
    with pytest.raises(FileExistsError, match="was not written by write_synthetic"):
        write_synthetic(tmp_path, **SETTINGS, progress=False, force=True)
    assert (tmp_path / "precious.txt").read_text() == "keep me"


def test_own_folder_is_replaced_by_force_only(tmp_path: Path):
    settings = {**SETTINGS, "scenes": 1, "val_scenes": 0, "frames": 1, "workers": 1, "progress": False}
    write_synthetic(tmp_path / "data", **settings)
    with pytest.raises(FileExistsError, match="pass force"):
        write_synthetic(tmp_path / "data", **settings)
    before = digest(tmp_path / "data")
    write_synthetic(tmp_path / "data", **settings, force=True)
    assert digest(tmp_path / "data") == before
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_interrupted_run_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sparse3d.datasets.synthetic.writer.record_scene", fail)
    with pytest.raises(KeyboardInterrupt):
        write_synthetic(tmp_path / "data", **SETTINGS, workers=1, progress=False)
    assert not any(tmp_path.iterdir())
