"""SparseFusion: objects as the cameras see them, before and after augmentation, and depth maps."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from sparse3d.datasets.transforms import move_world
from sparse3d.encoding.camera_geometry import CameraGeometry
from sparse3d.encoding.depth_maps import draw_depth_maps
from sparse3d.models import GroundTruth
from sparse3d.models.targets.camera_truth import CameraTruth
from sparse3d.structures import Cameras, InstanceData, Sample

from ..cases import Case
from ..compare import Comparison
from .sparsefusion import inputs_of
from .sparsefusion_training import from_legacy, to_legacy, to_legacy_camera


def check_view_annotations(case: Case) -> None:
    comparison, inputs = Comparison(case), inputs_of(case)
    height, width = inputs["image_hw"].tolist()
    cameras = _cameras(inputs, (height, width))
    comparison.output("lidar2img", cameras.lidar2img)
    comparison.output("lidar2cam_r", cameras.lidar2cam[:, :3, :3])
    comparison.output("lidar2cam_t", cameras.lidar2cam[:, :3, 3])

    hit = inputs["num_lidar_pts"] > 0
    boxes = inputs["gt_boxes"].clone()
    boxes[:, 2] -= boxes[:, 5] / 2
    boxes = from_legacy(torch.cat([boxes, inputs["gt_velocity"]], dim=1))
    truth = GroundTruth(boxes, inputs["gt_class"], torch.zeros(len(boxes), dtype=torch.int64), 1)
    found = CameraTruth.find(truth, CameraGeometry.of([cameras], (height, width), torch.float64))
    visible = torch.zeros(len(boxes), dtype=torch.int32)
    visible[found.objects] = 1
    comparison.output("gt_visible", visible * hit)
    legacy, lidar, rows = to_legacy(boxes.tensor), gravity(boxes.tensor), _by_view(found, hit)
    comparison.output("ann/gt_bboxes_3d", still(legacy[hit]).float())
    comparison.output("ann/gt_labels_3d", truth.labels[hit])
    comparison.output("ann/gt_visible_3d", visible[hit])

    objects = found.objects[rows]
    in_cameras = to_legacy_camera(found.boxes.tensor[rows])
    corners = found.rectangles[rows]
    sizes = corners[:, 2:] - corners[:, :2]
    comparison.output("gt_bboxes2d_view", torch.cat([corners[:, :2], sizes], dim=1))
    comparison.output("ann/bboxes_cxcywh", torch.cat([corners[:, :2] + sizes / 2, sizes], dim=1))
    comparison.output("gt_viewsIDs", found.views[rows])
    comparison.output("gt_class_view", found.labels[rows])
    comparison.output("ann/labels", torch.stack([found.labels[rows], found.views[rows]], dim=1))
    comparison.output("gt_pts_centers_view", boxes.centers[objects].float())
    comparison.output("gt_img_centers_view", torch.cat([found.pixels[rows], found.boxes.centers[rows, 1:2]], dim=1))
    comparison.output("gt_bboxes_lidar_view", lidar[objects, :7])
    comparison.output("gt_velocity_lidar_view", lidar[objects, 7:])
    comparison.output("ann/bboxes_lidar_view", still(legacy[objects]).float())
    comparison.output("gt_bboxes_cam_view", gravity_camera(in_cameras)[:, :7])
    comparison.output("gt_velocity_cam_view", in_cameras[:, 7:])
    comparison.output("ann/bboxes_cam_view", still(in_cameras).float())
    comparison.finish()


def gravity(boxes: Tensor) -> Tensor:
    """Our boxes as their LiDAR boxes with gravity centres."""
    legacy = to_legacy(boxes)
    return torch.cat([boxes[:, :3], legacy[:, 3:]], dim=1)


def gravity_camera(boxes: Tensor) -> Tensor:
    """Their camera boxes with gravity centres."""
    moved = boxes.clone()
    moved[:, 1] -= boxes[:, 4] / 2
    return moved


def still(boxes: Tensor) -> Tensor:
    """Their annotations take objects of unknown velocity for still."""
    return torch.cat([boxes[:, :7], boxes[:, 7:].where(boxes[:, 7:].isfinite(), 0)], dim=1)


def _by_view(found: CameraTruth, wanted: Tensor) -> Tensor:
    """Rows of wanted objects, view after view."""
    order = torch.from_numpy(np.lexsort((found.objects.numpy(), found.views.numpy())))
    return order[wanted[found.objects[order]]]


def _cameras(inputs: Mapping[str, Tensor], size: tuple[int, int]) -> Cameras:
    intrinsics = inputs["cam_intrinsic"]
    pose = torch.eye(4, dtype=torch.float64).repeat(len(intrinsics), 1, 1)
    pose[:, :3, :3], pose[:, :3, 3] = inputs["sensor2lidar_rotation"], inputs["sensor2lidar_translation"]
    sizes = torch.tensor(size).expand(len(intrinsics), 2)
    return Cameras.create([str(n) for n in range(len(intrinsics))], intrinsics, torch.linalg.inv(pose), sizes)


def check_train_augmentation(case: Case) -> None:
    comparison, inputs = Comparison(case), inputs_of(case)
    height, width = inputs["ori_hw"].tolist()
    pad_height, pad_width, _ = case.arrays["out/pad_shape"].tolist()
    boxes = from_legacy(inputs["ann/gt_bboxes_3d"].double())
    sample = Sample.from_frame(None).replace(
        points=inputs["points"],
        gt=InstanceData(boxes=boxes, labels=inputs["ann/gt_labels_3d"], visible=inputs["ann/gt_visible_3d"]),
        cameras=_recorded_cameras(inputs, (height, width)),
    )
    moved = move_world(sample, _world_move(inputs))
    comparison.output("points", moved.points)

    mirrored = bool(inputs["flip_h"]) != bool(inputs["flip_v"])
    comparison.output("image_flip", np.full(len(moved.cameras), mirrored))
    resized_height, resized_width, _ = comparison.take("out/img_shape").tolist()
    comparison.take("out/pad_shape")
    factors = np.array([resized_width / width, resized_height / height])
    moves, valid = [], []
    for zoom, shift in zip(inputs["img_scale_ratio"].tolist(), inputs["img_translation"].numpy(), strict=True):
        flip = np.array([[-1.0, 0.0, width], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]) if mirrored else np.eye(3)
        zoomed = np.array([[zoom, 0.0, shift[0]], [0.0, zoom, shift[1]], [0.0, 0.0, 1.0]])
        moves.append(np.diag([*factors, 1.0]) @ zoomed @ flip)
        valid.append(min(1.0, zoom) * np.array([width, height]) * factors)
    cameras = moved.cameras
    aug = torch.eye(4, dtype=torch.float64).repeat(len(cameras), 1, 1)
    aug[:, :3, :3] = torch.from_numpy(np.stack(moves))
    cameras = replace(cameras, image_aug=aug, image_sizes=torch.from_numpy(np.stack(valid))[:, [1, 0]])
    geometry = CameraGeometry.of([cameras], (pad_height, pad_width), torch.float64)
    comparison.output("valid_shape", geometry.sizes[0].flip(-1))
    comparison.output("lidar2cam_r", geometry.rotations[0])
    comparison.output("lidar2cam_t", geometry.shifts[0])
    comparison.output("cam_intrinsic", geometry.intrinsics[0])
    now = moved.points[:, 4] == 0
    points = moved.points[now, :3].double()
    depth = draw_depth_maps(
        points, torch.zeros(len(points), dtype=torch.int64), geometry, _number(case, r"sparse depth stride (\d+)")
    )
    comparison.output("sparse_depth", depth[0][:, None].float())

    gt = moved.gt
    kept = (gt.boxes.centers[:, :2].abs() < _number(case, r"range filter \+-(\d+) m")).all(dim=1)
    _compare_boxes(comparison, "gt_bboxes_3d", to_legacy(gt.boxes.tensor[kept]))
    comparison.output("gt_labels_3d", gt.labels[kept])
    comparison.output("gt_visible_3d", gt.visible[kept])
    truth = GroundTruth(gt.boxes, gt.labels, torch.zeros(len(gt.labels), dtype=torch.int64), 1)
    found = CameraTruth.find(truth, geometry)
    rows = _by_view(found, kept)
    corners = found.rectangles[rows]
    sizes = corners[:, 2:] - corners[:, :2]
    comparison.output("gt_labels", torch.stack([found.labels[rows], found.views[rows]], dim=1))
    comparison.output("gt_bboxes", torch.cat([corners[:, :2] + sizes / 2, sizes], dim=1))
    comparison.output("gt_img_centers_view", torch.cat([found.pixels[rows], found.boxes.centers[rows, 1:2]], dim=1))
    comparison.output("gt_pts_centers_view", gt.boxes.centers[found.objects[rows]])
    _compare_boxes(comparison, "gt_bboxes_cam_view", to_legacy_camera(found.boxes.tensor[rows]))
    _compare_boxes(comparison, "gt_bboxes_lidar_view", to_legacy(gt.boxes.tensor[found.objects[rows]]))
    comparison.finish()


def _number(case: Case, pattern: str) -> int:
    """A number that the fixture's description of its steps holds."""
    return int(re.search(pattern, case.config["config"]["order"])[1])


def _compare_boxes(comparison: Comparison, name: str, ours: Tensor) -> None:
    """Compare boxes whose headings may differ by whole turns."""
    turns = (torch.from_numpy(comparison.case.arrays[f"out/{name}"])[:, 6] - ours[:, 6]) / (2 * torch.pi)
    comparison.output(
        name, torch.cat([ours[:, :6], ours[:, 6:7] + 2 * torch.pi * turns.round()[:, None], ours[:, 7:]], 1)
    )


def _recorded_cameras(inputs: Mapping[str, Tensor], size: tuple[int, int]) -> Cameras:
    intrinsics = inputs["cam_intrinsic"]
    lidar2cam = torch.eye(4, dtype=torch.float64).repeat(len(intrinsics), 1, 1)
    lidar2cam[:, :3, :3], lidar2cam[:, :3, 3] = inputs["lidar2cam_r"], inputs["lidar2cam_t"]
    sizes = torch.tensor(size).expand(len(intrinsics), 2)
    return Cameras.create([str(n) for n in range(len(intrinsics))], intrinsics, lidar2cam, sizes)


def _world_move(inputs: Mapping[str, Tensor]) -> np.ndarray:
    """Rotation, which theirs has clockwise, scaling, shift, then mirroring of y and of x."""
    angle = -float(inputs["rotation"])
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    turn[:3] *= float(inputs["scale"])
    turn[:3, 3] = inputs["translation"].numpy()
    return np.diag([-1.0 if inputs["flip_v"] else 1.0, -1.0 if inputs["flip_h"] else 1.0, 1.0, 1.0]) @ turn


KINDS = {
    "sparsefusion/train_augmentation": check_train_augmentation,
    "sparsefusion/view_annotations": check_view_annotations,
}
