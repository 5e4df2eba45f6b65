"""Small models and random samples for the tests of this room."""

from __future__ import annotations

import math
from typing import Any

import torch

from sparse3d.structures import Boxes3D, Grid, InstanceData, Sample

CLASS_NAMES = ["car", "truck", "bus", "pedestrian"]
TASKS = [["car"], ["truck", "bus"], ["pedestrian"]]
GRID = Grid((-12.8, -9.6, -3, 12.8, 9.6, 3), (0.4, 0.4, 6), stride=2)
CENTER_RANGE = (-20, -20, -10, 20, 20, 10)


def random_sample(num_points: int = 600, num_boxes: int = 6, seed: int = 0) -> Sample:
    generator = torch.Generator().manual_seed(seed)
    spread = torch.tensor([30.0, 24.0, 5.0, 1.0, 0.5])
    shift = torch.tensor([15.0, 12.0, 2.5, 0.0, 0.0])
    sample = Sample()
    sample.points = torch.rand(num_points, 5, generator=generator) * spread - shift
    sample.gt = random_objects(num_boxes, generator)
    return sample


def random_objects(count: int, generator: torch.Generator) -> InstanceData:
    x, y, z, length, width, height, yaw = torch.rand(7, count, generator=generator)
    box = [24 * x - 12, 18 * y - 9, 2 * z - 1, 4 * length + 0.5, 2 * width + 0.5, height + 1, 6 * yaw - math.pi]
    velocity = torch.randn(2, count, generator=generator)
    labels = torch.randint(len(CLASS_NAMES), (count,), generator=generator)
    return InstanceData(boxes=Boxes3D(torch.stack([*box, *velocity], dim=1)), labels=labels)


def head_config(**changes: Any) -> dict[str, Any]:
    decoder = {"center_range": CENTER_RANGE, "nms_threshold": 0.2, **changes.pop("decoder", {})}
    return {
        "type": "CenterHead",
        "grid": GRID,
        "class_names": CLASS_NAMES,
        "tasks": TASKS,
        "in_channels": 24,
        "shared_channels": 16,
        "extra_branches": ["vel", "iou"],
        "loss_weights": {"diou": 2.0},
        "decoder": decoder,
        **changes,
    }


def stage(**changes: Any) -> dict[str, Any]:
    return {
        "channels": 16,
        "num_heads": 4,
        "ffn_channels": 24,
        "num_blocks": 2,
        "set_size": 9,
        "window_shape": (1, 12, 12),
        "shifts": ((0, 0, 0), (0, 6, 6)),
        "hybrid_factor": (1, 2, 2),
        **changes,
    }


def detector_config() -> dict[str, Any]:
    return dict(
        type="Detector3D",
        data_preprocessor=dict(type="Preprocessor", grid=GRID, num_features=5),
        point_branch=dict(
            type="PointBranch",
            grid=GRID,
            voxel_encoder=dict(type="DynamicVoxelEncoder", grid=GRID, num_features=5, channels=[16, 16]),
            backbone=dict(type="DSVT", grid=GRID, stages=[stage()]),
            bev_backbone=dict(
                type="ResidualBEVBackbone",
                in_channels=16,
                num_blocks=[1, 1],
                strides=[2, 2],
                channels=[16, 24],
                up_strides=[1, 2],
                up_channels=[12, 12],
            ),
        ),
        head=head_config(),
    )


def transfusion_config() -> dict[str, Any]:
    head = dict(
        type="TransFusionHead",
        grid=GRID,
        class_names=CLASS_NAMES,
        in_channels=24,
        channels=16,
        num_queries=12,
        num_heads=4,
        ffn_channels=24,
        window_radius=3,
        every_cell=["pedestrian"],
        decoder=dict(center_range=CENTER_RANGE, iou_exponents=0.5, nms_thresholds=dict(pedestrian=0.2)),
    )
    return {**detector_config(), "head": head}
