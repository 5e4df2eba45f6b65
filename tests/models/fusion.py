"""Small SparseFusion detectors and samples with points and images for the tests of this room."""

from __future__ import annotations

import math
from typing import Any

import torch

from sparse3d.models import Detector3D
from sparse3d.registry import MODELS
from sparse3d.structures import Cameras, Grid, Sample

from .build import CENTER_RANGE, CLASS_NAMES, random_objects

SIZE = (64, 96)  # height and width of the images
GRID = Grid((-12.8, -9.6, -3, 12.8, 9.6, 3), (0.4, 0.4, 0.5), stride=2)
NUM_CAMERAS = 3


def rig(num_cameras: int = NUM_CAMERAS, missing: tuple[int, ...] = ()) -> Cameras:
    """Cameras that look around in equal steps; missing ones are blind, as ``LoadCameras`` has them."""
    turns = torch.arange(num_cameras) * 2 * math.pi / num_cameras
    cos, sin, zero, one = turns.cos(), turns.sin(), torch.zeros(num_cameras), torch.ones(num_cameras)
    rows = [[sin, -cos, zero, zero], [zero, zero, -one, one], [cos, sin, zero, zero], [zero, zero, zero, one]]
    lidar2cam = torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
    lidar2cam[list(missing)] = 0
    intrinsic = torch.tensor([[40.0, 0, SIZE[1] / 2], [0, 40, SIZE[0] / 2], [0, 0, 1]])
    return Cameras.create(
        [f"camera {n}" for n in range(num_cameras)],
        intrinsic.repeat(num_cameras, 1, 1),
        lidar2cam,
        torch.tensor([SIZE] * num_cameras),
    )


def sample_with(num_boxes: int = 4, num_points: int = 500, missing: tuple[int, ...] = (), seed: int = 0) -> Sample:
    generator = torch.Generator().manual_seed(seed)
    spread = torch.tensor([24.0, 18.0, 4.0, 1.0, 0.0])
    points = torch.rand(num_points, 5, generator=generator) * spread - torch.tensor([12.0, 9.0, 2.0, 0.0, 0.0])
    images = torch.randint(256, (NUM_CAMERAS, 3, *SIZE), generator=generator, dtype=torch.uint8)
    images[list(missing)] = 0
    return Sample().replace(
        points=points, images=images, cameras=rig(missing=missing), gt=random_objects(num_boxes, generator)
    )


def head_config(**changes: Any) -> dict[str, Any]:
    decoder = dict(center_range=CENTER_RANGE, nms_thresholds=dict(car=0.35))
    return dict(
        type="SparseFusionHead",
        grid=GRID,
        class_names=CLASS_NAMES,
        in_channels=12,
        channels=16,
        num_queries=6,
        num_camera_queries=8,
        num_levels=2,
        num_heads=2,
        ffn_channels=24,
        dropout=0.0,
        every_cell=changes.pop("every_cell", ["pedestrian"]),
        decoder={**decoder, **changes.pop("decoder", {})},
        targets={"level_extents": [24.0], **changes.pop("targets", {})},
        **changes,
    )


def detector(frozen: str | None = None, **changes: Any) -> Detector3D:
    return MODELS.build(
        dict(
            type="Detector3D",
            data_preprocessor=dict(type="Preprocessor", grid=GRID, num_features=5, images=dict(size_divisor=32)),
            image_branch=dict(
                type="DepthAwareImageBranch",
                backbone=dict(type="ResNet", base_channels=4, out_stages=(0, 1)),
                neck=dict(type="FPN", in_channels=[16, 32], out_channels=8, num_outs=2),
                depth=dict(in_channels=8, channels=16, num_levels=2),
            ),
            point_branch=dict(
                type="HeightAwareBranch",
                grid=GRID,
                voxel_encoder=dict(type="MeanVoxelEncoder", num_features=5),
                backbone=dict(
                    type="SparseEncoder",
                    grid=GRID,
                    in_channels=5,
                    channels=[4, 8],
                    num_blocks=[1, 1],
                    out_channels=8,
                    residual_bias=False,
                ),
                bev_backbone=dict(
                    type="SECONDBEVBackbone",
                    in_channels=16,
                    num_blocks=[1],
                    strides=[1],
                    channels=[12],
                    up_strides=[1],
                    up_channels=[12],
                ),
                frozen=frozen,
            ),
            head=head_config(frozen=frozen, **changes),
        )
    )
