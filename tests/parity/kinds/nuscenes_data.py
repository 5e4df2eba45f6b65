"""Data in nuScenes' format: a synthetic set through tables, index and metric; one real frame's geometry."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sparse3d.datasets import FrameIndex, read_mmdet3d_infos
from sparse3d.datasets.create import create_nuscenes_index
from sparse3d.datasets.nuscenes_schema import CATEGORY_TO_CLASS, DETECTION_CLASSES
from sparse3d.datasets.nuscenes_splits import split_scenes
from sparse3d.datasets.transforms import frame_cameras, read_points
from sparse3d.evaluation import BoxTable, GroundTruth, evaluate_detections, read_submission
from sparse3d.evaluation.nuscenes_filter import CLASS_RANGES
from sparse3d.evaluation.nuscenes_world import world_bike_racks, world_ground_truth
from sparse3d.structures import Annotations, Boxes3D, Frame
from sparse3d_ops.boxes import count_points_in_boxes

EXACT = 1e-9  # metres, radians: float64 poses of about 1,000 m composed in another order
FLOAT32_METRES = 1e-4  # the info file's matrices are float32
FLOAT32_PIXELS = 1e-3
FLOAT32_QUATERNION = 1e-5
MIN_DEPTH = 1.0  # metres, of a corner or a point that counts as visible
CORNER_DEPTH = 0.1  # metres, that all corners of a visible box must have


# -- the synthetic data set -------------------------------------------------------------------------------------------


def check_synth(case: Any) -> None:
    """Index the tables; compare every frame with what the development kit says."""
    (tables,) = case.folder.glob("v1.0-*")
    with tempfile.TemporaryDirectory() as folder:
        paths = create_nuscenes_index(case.folder, tables.name, out=folder)
        frames = {frame.token: frame for path in paths for frame in FrameIndex(path, case.folder)}
    assert set(frames) == {sample["token"] for sample in case.config["samples"]}
    for sample in case.config["samples"]:
        _check_frame(frames[sample["token"]], sample, case.folder)
    _check_evaluation(case, frames)


def _check_frame(frame: Frame, sample: Mapping[str, Any], root: Path) -> None:
    assert frame.scene == sample["scene"]
    assert frame.timestamp == round(sample["timestamp"] * 1e6)
    assert Path(frame.lidar.path) == root.absolute() / sample["lidar_path"]
    _near("lidar2ego", frame.lidar2ego, sample["lidar2ego"], EXACT)
    _near("ego2global", frame.ego2global, sample["ego2global"], EXACT)
    points = read_points(frame.lidar.path, frame.lidar.num_features)
    assert len(points) == sample["num_points"]
    _check_sweeps(frame, sample["sweeps"], root)
    _check_cameras(frame, sample["images"], root)
    _check_instances(frame.annotations, sample["instances"])
    _check_counts(points, frame, sample["instances"])


def _check_sweeps(frame: Frame, sweeps: list[Mapping[str, Any]], root: Path) -> None:
    assert len(frame.sweeps) == len(sweeps)
    for found, sweep in zip(frame.sweeps, sweeps, strict=True):
        assert Path(found.path) == root.absolute() / sweep["lidar_path"]
        assert found.timestamp == round(sweep["timestamp"] * 1e6)
        _near("lidar2key", found.lidar2key, sweep["sensor2lidar"], EXACT)


def _check_cameras(frame: Frame, images: Mapping[str, Mapping[str, Any]], root: Path) -> None:
    assert {camera.name for camera in frame.cameras} == set(images)
    cameras = frame_cameras(frame)
    for number, camera in enumerate(frame.cameras):
        image = images[camera.name]
        assert Path(camera.path) == root.absolute() / image["img_path"]
        assert (camera.width, camera.height) == (image["width"], image["height"])
        assert camera.timestamp == round(image["timestamp"] * 1e6)
        _near("intrinsic", camera.intrinsic, image["cam2img"], EXACT)
        _near("cam2ego", camera.cam2ego, image["cam2ego"], EXACT)
        _near("lidar2cam", camera.lidar2cam, image["lidar2cam"], EXACT)
        seen = _visible_boxes(frame, cameras.lidar2img[number].numpy(), (camera.width, camera.height))
        tokens = {token for token, visible in zip(frame.annotations.tokens, seen, strict=True) if visible}
        assert tokens == set(image["visible_annotation_tokens"]), camera.name


def _visible_boxes(frame: Frame, lidar2img: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    corners = Boxes3D(frame.annotations.boxes).corners().numpy()
    pixels, depth = _project(corners, lidar2img)
    inside = (pixels > 0).all(-1) & (pixels < size).all(-1) & (depth > MIN_DEPTH)
    return inside.any(1) & (depth > CORNER_DEPTH).all(1)


def _check_instances(annotations: Annotations, instances: list[Mapping[str, Any]]) -> None:
    assert list(annotations.tokens) == [instance["annotation_token"] for instance in instances]
    assert list(annotations.categories) == [instance["category"] for instance in instances]
    names = [CATEGORY_TO_CLASS.get(category) for category in annotations.categories]
    assert names == [instance["detection_name"] for instance in instances]
    _near("centre and size", annotations.boxes[:, :6], [instance["bbox_3d"][:6] for instance in instances], EXACT)
    _near("heading", annotations.boxes[:, 6], [instance["yaw_from_x_axis"] for instance in instances], EXACT)
    _near("velocity", annotations.boxes[:, 7:], [instance["velocity"] for instance in instances], EXACT)
    assert annotations.num_lidar_points.tolist() == [instance["num_lidar_pts"] for instance in instances]


def _check_counts(points: np.ndarray, frame: Frame, instances: list[Mapping[str, Any]]) -> None:
    """Count in the world frame, where the annotated boxes stand upright."""
    annotations, pose = frame.annotations, frame.lidar2global
    boxes = Boxes3D.from_nuscenes(
        annotations.global_centers, annotations.boxes[:, [4, 3, 5]], annotations.global_rotations
    )
    world = torch.from_numpy(points[:, :3] @ pose[:3, :3].T + pose[:3, 3])
    expected = [instance["points_in_box"] for instance in instances]
    assert count_points_in_boxes(world, boxes.tensor).tolist() == expected


def _check_evaluation(case: Any, frames: Mapping[str, Frame]) -> None:
    """Score the fixture's result file against the index's annotations."""
    expected = case.config["evaluation"]
    (path,) = case.folder.glob("predictions_*.json")
    assert path.stem == f"predictions_{expected['split']}"
    scored = [token for token, frame in frames.items() if frame.scene in split_scenes(expected["split"])]
    submission = read_submission(path, scored)
    ordered = [frames[token] for token in submission.sample_tokens]
    result = evaluate_detections(
        GroundTruth.concatenate([world_ground_truth(frame, frame.annotations, DETECTION_CLASSES) for frame in ordered]),
        submission.detections,
        np.stack([frame.ego2global[:3, 3] for frame in ordered]),
        bike_racks=BoxTable.concatenate([world_bike_racks(frame.annotations) for frame in ordered]),
    )
    _near("mean_ap", result.mean_ap, expected["mean_ap"], EXACT)
    _near("nd_score", result.nd_score, expected["nd_score"], EXACT)
    for name, value in expected["tp_errors"].items():
        _near(name, result.tp_errors[name], value, EXACT)
    for name, value in expected["mean_dist_aps"].items():
        _near(name, result.mean_dist_aps[name], value, EXACT)


# -- the real frame ---------------------------------------------------------------------------------------------------


def check_geometry(case: Any) -> None:
    """Compare boxes, projections and world quantities of a recorded frame; it is not part of the fixture."""
    folder = case.folder.parent.parent / "data" / "nuscenes_frame"
    if not folder.is_dir():
        pytest.skip(f"the recorded frame is not there: {folder}")
    (path,) = folder.glob("*.pkl")
    (frame,) = read_mmdet3d_infos(path, folder)
    _check_boxes(frame, case.arrays)
    _check_points(frame, case.arrays)
    _check_world(frame, case.arrays)
    for number, camera in enumerate(frame.cameras):
        expected = {
            name.split("/")[1]: array for name, array in case.arrays.items() if name.startswith(f"{camera.name}/")
        }
        _check_projection(frame, number, expected)


def _check_boxes(frame: Frame, arrays: Mapping[str, np.ndarray]) -> None:
    annotations = frame.annotations
    labels = [DETECTION_CLASSES.index(name) if name in DETECTION_CLASSES else -1 for name in annotations.categories]
    assert labels == arrays["labels"].tolist()
    np.testing.assert_array_equal(annotations.boxes[:, :7], arrays["boxes_lidar"])
    np.testing.assert_array_equal(annotations.boxes[:, 7:], arrays["velocity_lidar"])
    np.testing.assert_array_equal(annotations.num_lidar_points, arrays["num_lidar_pts_annotated"])
    np.testing.assert_array_equal(annotations.num_radar_points, arrays["num_radar_pts_annotated"])
    _near("corners", Boxes3D(annotations.boxes).corners(), arrays["corners_lidar"], EXACT)


def _check_points(frame: Frame, arrays: Mapping[str, np.ndarray]) -> None:
    points = torch.from_numpy(read_points(frame.lidar.path, frame.lidar.num_features)[:, :3].copy())
    boxes = torch.from_numpy(frame.annotations.boxes[:, :7])
    counted = count_points_in_boxes(points, boxes)
    np.testing.assert_array_equal(counted, arrays["num_lidar_pts_counted"])
    boxes = boxes * boxes.new_tensor([1, 1, 1, 1.25, 1.25, 1.25, 1])
    enlarged = count_points_in_boxes(points, boxes)
    np.testing.assert_array_equal(enlarged, arrays["num_lidar_pts_counted_enlarged_1_25"])


def _check_world(frame: Frame, arrays: Mapping[str, np.ndarray]) -> None:
    annotations = frame.annotations
    _near("global centres", annotations.global_centers, arrays["global_translation"], FLOAT32_METRES)
    expected = arrays["global_rotation_wxyz"]
    signs = np.sign((annotations.global_rotations * expected).sum(axis=1, keepdims=True))
    _near("global rotations", annotations.global_rotations * signs, expected, FLOAT32_QUATERNION)
    _near("global velocities", annotations.global_velocities, arrays["global_velocity_xy"], FLOAT32_METRES)
    in_ego = annotations.boxes[:, :3] @ frame.lidar2ego[:3, :3].T + frame.lidar2ego[:3, 3]
    distances = np.linalg.norm(in_ego[:, :2], axis=1)
    _near("distances", distances, arrays["ego_xy_distance"], FLOAT32_METRES)
    ranges = np.array([CLASS_RANGES.get(name, 0.0) for name in annotations.categories])
    seen = annotations.num_lidar_points + annotations.num_radar_points > 0
    np.testing.assert_array_equal((distances < ranges) & seen, arrays["kept_by_evaluation_filter"])


def _check_projection(frame: Frame, number: int, expected: Mapping[str, np.ndarray]) -> None:
    camera, lidar2img = frame.cameras[number], frame_cameras(frame).lidar2img[number].numpy()
    size = (camera.width, camera.height)
    corners = Boxes3D(frame.annotations.boxes).corners().numpy()
    in_camera = corners @ camera.lidar2cam[:3, :3].T + camera.lidar2cam[:3, 3]
    _near("corners in the camera", in_camera, expected["corners_cam"], FLOAT32_METRES)
    pixels, depth = _project(corners, lidar2img)
    ahead = depth > MIN_DEPTH
    _near("corners in the image", pixels[ahead], expected["corners_px"][ahead], FLOAT32_PIXELS)
    inside = (pixels > 0).all(-1) & (pixels < size).all(-1) & ahead
    all_ahead = (depth > CORNER_DEPTH).all(1)
    np.testing.assert_array_equal(inside.any(1) & all_ahead, expected["visible_any"])
    np.testing.assert_array_equal(inside.all(1) & all_ahead, expected["visible_all"])
    points = read_points(frame.lidar.path, frame.lidar.num_features)[:, :3]
    pixels, depth = _project(points, lidar2img)
    mask = (depth > MIN_DEPTH) & (pixels > 1).all(-1) & (pixels < np.array(size) - 1).all(-1)
    np.testing.assert_array_equal(np.packbits(mask), expected["points_in_image_mask"])


def _project(points: np.ndarray, lidar2img: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return pixels ``[..., 2]`` and depths ``[...]`` of ``[..., 3]``; pixels behind the camera mean nothing."""
    projected = points @ lidar2img[:3, :3].T + lidar2img[:3, 3]
    return projected[..., :2] / projected[..., 2:], projected[..., 2]


def _near(name: str, found: Any, expected: Any, tolerance: float) -> None:
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=0, atol=tolerance, err_msg=name)


KINDS = {"nuscenes_synth": check_synth, "nuscenes_geometry": check_geometry}
