"""Checks of the data: it is there, it is annotated, it lies in the grid, and the sensors fit together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from sparse3d_ops import count_points_in_boxes

from ..datasets.sensor_files import read_scan
from ..datasets.transforms import frame_cameras
from ..structures import CameraImage, Frame
from .subject import NOTE, OK, PROBLEM, Finding, Subject, open_index

FEW_POINTS = 5  # boxes with fewer annotated points are too small a sample to judge a calibration by
MIN_FILLED = 0.5  # share of boxes that have to hold at least half of the points that they are annotated with
MAX_OUTSIDE = 0.05  # share of boxes outside of the grid that is worth a word
FARTHEST_CAMERA = 10.0  # metres from the LiDAR
LONGEST_LAG = 0.1  # seconds between LiDAR and camera
TURN_TOLERANCE, SHIFT_TOLERANCE = 1e-2, 0.05  # between two ways to the same pose; metres for the shift


# -- data and files ----------------------------------------------------------------------------------------------------


def check_data(subject: Subject) -> Iterator[Finding]:
    """Every split has an index that opens and is not empty."""
    for split, dataset in subject.splits.items():
        try:
            count = len(open_index(dataset))
        except (OSError, ValueError) as error:
            advice = f"put the data where data_root says ({dataset['data_root']}), or set data_root"
            yield Finding("data", PROBLEM, f"{split}: {error}", advice)
            continue
        if count == 0:
            yield Finding("data", PROBLEM, f"{split}: the index {dataset['index']} is empty", "create it again")
        else:
            yield Finding("data", OK, f"{split}: {count} frames in {Path(dataset['data_root']) / dataset['index']}")


def check_files(subject: Subject) -> Iterator[Finding]:
    """The sensor files of some frames exist."""
    with_images = any("Image" in step["type"] for step in subject.splits["train"].get("pipeline", []))
    paths = [path for frame in subject.frames for path in _paths(frame, with_images)]
    missing = [path for path in paths if not Path(path).is_file()]
    if missing:
        text = f"{len(missing)} of {len(paths)} files of {len(subject.frames)} frames are missing, first {missing[0]}"
        yield Finding("files", PROBLEM, text, "complete the download; if the data moved, set data_root")
    else:
        kinds = "LiDAR and camera files" if with_images else "LiDAR files"
        yield Finding("files", OK, f"{len(paths)} {kinds} of {len(subject.frames)} frames are there")


def _paths(frame: Frame, with_images: bool) -> list[str]:
    paths = [frame.lidar.path, *(sweep.path for sweep in frame.sweeps)]
    return paths + [camera.path for camera in frame.cameras] if with_images else paths


# -- annotations -------------------------------------------------------------------------------------------------------


def check_labels(subject: Subject) -> Iterator[Finding]:
    """The training frames are annotated with the config's classes, with boxes that have a size."""
    bare = [frame.token for frame in subject.frames if frame.annotations is None]
    if bare:
        text = f"{len(bare)} of {len(subject.frames)} training frames are not annotated, first {bare[0]}"
        yield Finding("labels", PROBLEM, text, "train on a split with annotations (train, mini_train)")
        return
    counts = np.zeros(len(subject.config.class_names), dtype=int)
    for frame, boxes, labels in subject.annotations():
        counts += np.bincount(labels[labels >= 0], minlength=len(counts))
        wrong = np.flatnonzero(~np.isfinite(boxes[:, :7]).all(axis=1) | ~(boxes[:, 3:6] > 0).all(axis=1))
        if len(wrong):
            text = f"frame {frame.token}: box {wrong[0]} is {boxes[wrong[0], :7].tolist()}"
            yield Finding("labels", PROBLEM, text, "centre, size and yaw must be finite, and sizes positive")
    yield _count_classes(subject, counts)


def _count_classes(subject: Subject, counts: np.ndarray) -> Finding:
    names = np.array(subject.config.class_names)
    total = f"{counts.sum()} boxes of a class in {len(subject.frames)} frames"
    if not counts.any():
        categories = sorted({name for frame in subject.frames for name in frame.annotations.categories})
        text = f"no box of the classes {names.tolist()}; the annotations know {categories[:12]}"
        return Finding("labels", PROBLEM, text, "set class_names to what the annotations call their objects")
    absent = names[counts == 0].tolist()
    if absent:
        advice = "look at more frames (--frames), and at the spelling of class_names"
        return Finding("labels", NOTE, f"{total}, none of {', '.join(absent)}", advice)
    return Finding("labels", OK, f"{total}, every class among them")


def check_boxes(subject: Subject) -> Iterator[Finding]:
    """The grid holds the boxes that are to be learned."""
    boxes = np.concatenate([boxes[labels >= 0] for _, boxes, labels in subject.annotations()])
    lower, upper = np.split(np.array(subject.grid.point_range), 2)
    inside = (boxes[:, :3] >= lower) & (boxes[:, :3] < upper)
    too_far, wrong_height = ~inside[:, :2].all(axis=1), inside[:, :2].all(axis=1) & ~inside[:, 2]
    lost = (
        f"{np.mean(too_far):.0%} of {len(boxes)} boxes lie beyond the grid, {np.mean(wrong_height):.0%} above or below"
    )
    if inside.all(axis=1).mean() == 0 or np.mean(wrong_height) > MAX_OUTSIDE:
        low, high = np.quantile(boxes[:, :3], [0.05, 0.95], axis=0).round(1).tolist()
        text = f"{lost}; 90% of the centres lie between {low} and {high}"
        yield Finding("boxes", PROBLEM, text, "let grid.point_range hold them: they are lost to training and testing")
    elif np.mean(too_far) > MAX_OUTSIDE:
        yield Finding("boxes", NOTE, lost, "that is the price of this grid.point_range; the metric will miss them")
    else:
        yield Finding("boxes", OK, lost)


# -- calibration -------------------------------------------------------------------------------------------------------


def check_calibration(subject: Subject) -> Iterator[Finding]:
    """Points lie where boxes say, and cameras stand and look where their records agree that they do."""
    counts = np.concatenate([_recount(frame) for frame in subject.frames])
    judged = counts[counts[:, 0] >= FEW_POINTS]
    filled = judged[:, 1] >= judged[:, 0] / 2
    text = f"{filled.sum()} of {len(judged)} boxes hold at least half of the points that they are annotated with"
    if len(judged) and filled.mean() < MIN_FILLED:
        advice = "boxes and points are not in one frame: axes, units, yaw, or the height of the box's origin"
        yield Finding("calibration", PROBLEM, text, advice)
    elif len(judged):
        yield Finding("calibration", OK, text)
    faults = [f"{frame.token}: {fault}" for frame in subject.frames for fault in _camera_faults(frame)]
    cameras = sum(len(frame.cameras) for frame in subject.frames)
    if faults:
        advice = "compare intrinsic, cam2ego, ego2global and lidar2cam with the data set's records"
        yield Finding("calibration", PROBLEM, f"{len(faults)} faults of {cameras} cameras, first {faults[0]}", advice)
    elif cameras:
        yield Finding("calibration", OK, f"{cameras} cameras see points, and their poses agree with each other")


def _recount(frame: Frame) -> np.ndarray:
    """Return ``[N, 2]``: the points of each box as annotated, and as counted in the key frame."""
    points = torch.from_numpy(read_scan(frame.lidar)[:, :3])
    found = count_points_in_boxes(points, torch.from_numpy(frame.annotations.boxes[:, :7]))
    return np.stack([frame.annotations.num_lidar_points, found.numpy()], axis=1)


def _camera_faults(frame: Frame) -> Iterator[str]:
    if not frame.cameras:
        return
    points = torch.from_numpy(read_scan(frame.lidar)[:, :3])
    sees = frame_cameras(frame).visible(points).any(dim=1).tolist()
    for camera, any_point in zip(frame.cameras, sees, strict=True):
        yield from (f"{camera.name}: {fault}" for fault in _pose_faults(frame, camera))
        if not any_point:
            yield f"{camera.name}: no point of the scan falls into the image"


def _pose_faults(frame: Frame, camera: CameraImage) -> Iterator[str]:
    turn = camera.lidar2cam[:3, :3]
    if not np.allclose(turn @ turn.T, np.eye(3), atol=TURN_TOLERANCE) or np.linalg.det(turn) < 0:
        yield "lidar2cam is no rotation"
        return
    focal, center = np.diag(camera.intrinsic)[:2], camera.intrinsic[:2, 2]
    if not ((focal > 0).all() and (center > 0).all() and (center < (camera.width, camera.height)).all()):
        yield f"the intrinsics {camera.intrinsic.tolist()} do not fit an image of {camera.width} x {camera.height}"
    if np.linalg.norm(camera.lidar2cam[:3, 3]) > FARTHEST_CAMERA:
        yield f"it stands {np.linalg.norm(camera.lidar2cam[:3, 3]):.0f} m from the LiDAR"
    lag = abs(camera.timestamp - frame.lidar.timestamp) * 1e-6
    if lag > LONGEST_LAG:
        yield f"its image was taken {lag:.2f} s from the scan"
    way = np.linalg.inv(camera.ego2global @ camera.cam2ego) @ frame.lidar2global
    gap = np.abs(way - camera.lidar2cam)
    if gap[:3, :3].max() > TURN_TOLERANCE or gap[:3, 3].max() > SHIFT_TOLERANCE:
        yield f"lidar2cam and the way over cam2ego and ego2global are {gap[:3, 3].max():.2f} m apart"
