"""Voxelization, segments, boxes and windows: random inputs of realistic size and shape, the same in every run."""

from __future__ import annotations

import importlib.util
import math
from argparse import Namespace
from collections.abc import Callable, Iterator

import torch

import sparse3d_ops as ops
from ops_suites.timing import Case, Function
from sparse3d_ops import boxes as box_ops
from sparse3d_ops import windows as window_ops
from sparse3d_ops.segment import (
    segment_gather_reference,
    segment_max_reference,
    segment_mean_reference,
    segment_sum_reference,
)
from sparse3d_ops.voxelize import voxelize_hard_reference, voxelize_reference

POINT_RANGE = (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0)
VOXEL_SIZES = {"0.075 m voxels": (0.075, 0.075, 0.2), "0.3 m pillars": (0.3, 0.3, 8.0)}
MAX_POINTS, MAX_VOXELS = 10, 120_000


def lidar_points(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return points ``[P, 5]`` in the order of ten revolutions of a LiDAR, and their batch index of zeros."""
    generator = torch.Generator().manual_seed(0)
    azimuth = torch.linspace(0, 20 * math.pi, count)
    distance = 2 + 50 * torch.rand(count, generator=generator) ** 2
    height = torch.randn(count, generator=generator) * 0.5 - 1
    columns = [distance * azimuth.cos(), distance * azimuth.sin(), height, distance / 60, azimuth / 100]
    return torch.stack(columns, dim=1), torch.zeros(count, dtype=torch.int64)


def random_boxes(count: int, seed: int) -> torch.Tensor:
    """Return boxes ``[N, 7]`` of the sizes of road users in a square of 100 m."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.tensor([100, 100, 2, 4.5, 1.5, 1.5, 2 * math.pi])
    least = torch.tensor([-50, -50, -2, 0.5, 0.5, 1.0, -math.pi])
    return least + spread * torch.rand(count, 7, generator=generator)


def voxelize_suite(_: Namespace) -> Iterator[Case]:
    """Dynamic and hard voxelization of ten sweeps."""
    points, batch_index = lidar_points(300_000)
    for name, size in VOXEL_SIZES.items():
        dynamic = (points, batch_index, POINT_RANGE, size, 1)
        yield Case(
            f"dynamic, 300k points, {name}",
            lambda dynamic=dynamic: ops.voxelize(*dynamic),
            {"reference": lambda dynamic=dynamic: voxelize_reference(*dynamic)},
        )
        hard = (*dynamic, MAX_POINTS, MAX_VOXELS)
        yield Case(
            f"hard, 300k points, {name}",
            lambda hard=hard: ops.voxelize_hard(*hard),
            {
                "reference": lambda hard=hard: voxelize_hard_reference(*hard),
                **spconv_voxelizer(points, size),
            },
        )


def spconv_voxelizer(points: torch.Tensor, size: tuple[float, ...]) -> dict[str, Function]:
    """Return spconv's hard voxelization where spconv is installed."""
    if importlib.util.find_spec("spconv") is None:
        return {}
    from spconv.pytorch.utils import PointToVoxel

    voxelizer = PointToVoxel(list(size), list(POINT_RANGE), points.shape[1], MAX_VOXELS, MAX_POINTS)
    return {"spconv": lambda: voxelizer(points)}


def segment_suite(_: Namespace) -> Iterator[Case]:
    """Forward and backward of the segment operations of a dynamic voxel encoder."""
    points, batch_index = lidar_points(200_000)
    voxels = ops.voxelize(points, batch_index, POINT_RANGE, (0.6, 0.6, 8.0), 1)
    index, num_voxels = voxels.point_to_voxel, len(voxels.coords)
    size = f"{len(index) // 1000}k points, {num_voxels / 1000:.1f}k voxels"
    yield Case(
        f"grouping, {size}",
        lambda: ops.Segments.from_index(index, num_voxels),
        {"reference": lambda: ops.Segments.from_index_reference(index, num_voxels)},
    )
    segments = ops.Segments.from_index(index, num_voxels)
    pairs = {
        "sum": (ops.segment_sum, segment_sum_reference, len(index)),
        "mean": (ops.segment_mean, segment_mean_reference, len(index)),
        "max": (ops.segment_max, segment_max_reference, len(index)),
        "gather": (ops.segment_gather, segment_gather_reference, num_voxels),
    }
    for channels in (16, 64, 128):
        for name, (fast, reference, rows) in pairs.items():
            values = torch.randn(rows, channels, generator=torch.Generator().manual_seed(0)).requires_grad_()
            yield Case(
                f"{name}, forward + backward, {size}, {channels} channels",
                forward_backward(fast, values, segments),
                {"reference": forward_backward(reference, values, segments)},
            )


def forward_backward(operation: Callable[..., torch.Tensor], values: torch.Tensor, segments: ops.Segments) -> Function:
    """Return a function that runs an operation and its gradient."""
    gradient = torch.randn_like(operation(values, segments))
    return lambda: torch.autograd.grad(operation(values, segments), values, gradient)


def boxes_suite(_: Namespace) -> Iterator[Case]:
    """IoU, suppression, points in boxes."""
    a, b, many = random_boxes(500, 0), random_boxes(500, 1), random_boxes(4096, 2)
    scores = torch.rand(4096, generator=torch.Generator().manual_seed(3))
    points, objects = lidar_points(300_000)[0][:, :3].contiguous(), random_boxes(100, 4)
    yield Case("3D IoU, 500 x 500", lambda: ops.iou_3d(a, b), {"reference": lambda: box_ops.iou_3d_reference(a, b)})
    yield Case(
        "NMS from above, 4096 boxes",
        lambda: ops.nms_bev(many, scores, 0.2),
        {"reference": lambda: box_ops.nms_bev_reference(many, scores, 0.2)},
    )
    yield Case(
        "box of each point, 300k points, 100 boxes",
        lambda: ops.points_in_boxes(points, objects),
        {"reference": lambda: box_ops.points_in_boxes_reference(points, objects)},
    )
    yield Case(
        "points in each box, 300k points, 100 boxes",
        lambda: ops.count_points_in_boxes(points, objects),
        {
            "reference": lambda: box_ops.count_points_in_boxes_reference(points, objects),
            **devkit_counter(points, objects),
        },
    )


def devkit_counter(points: torch.Tensor, boxes: torch.Tensor) -> dict[str, Function]:
    """Return the development kit's count of points in boxes where it is installed."""
    if importlib.util.find_spec("nuscenes") is None:
        return {}
    from nuscenes.utils.data_classes import Box
    from nuscenes.utils.geometry_utils import points_in_box
    from pyquaternion import Quaternion

    turned = [
        Box(row[:3], [row[4], row[3], row[5]], Quaternion(axis=(0, 0, 1), radians=row[6])) for row in boxes.tolist()
    ]
    columns = points.double().T.numpy()
    return {"nuscenes-devkit": lambda: [points_in_box(box, columns).sum() for box in turned]}


def windows_suite(_: Namespace) -> Iterator[Case]:
    """DSVT's partition of 20,000 voxels; plain torch throughout, so it has no reference to be compared with."""
    cells = torch.randperm(360 * 360, generator=torch.Generator().manual_seed(0))[:20_000]
    zeros = torch.zeros_like(cells)
    coords = torch.stack([zeros, zeros, cells // 360, cells % 360], dim=1)
    grid = (coords, (1, 360, 360), (1, 30, 30), (0, 15, 15), 1)
    windows = window_ops.partition_windows(*grid)
    yield Case("windows, 20k voxels", lambda: window_ops.partition_windows(*grid))
    yield Case("sets of 90, 20k voxels", lambda: window_ops.partition_sets(windows, 90))
