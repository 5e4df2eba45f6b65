"""Small MV2D detectors, and samples for them: cameras that look around, images of noise, random objects."""

from __future__ import annotations

from typing import Any

from sparse3d.models import Detector3D
from sparse3d.registry import MODELS

from .build import CENTER_RANGE, CLASS_NAMES, GRID

CHANNELS = 16
FASTER_RCNN = dict(
    type="FasterRCNN",
    class_names=CLASS_NAMES,
    channels=CHANNELS,
    hidden_channels=24,
    proposals=dict(per_level=(60, 30), max_proposals=20),
    detections=dict(max_boxes=5, min_side=2.0),
)
SPARSE_RCNN = dict(
    type="SparseRCNN",
    class_names=CLASS_NAMES,
    num_proposals=6,
    num_stages=2,
    channels=CHANNELS,
    stage=dict(num_heads=2, ffn_channels=24, dynamic_channels=4),
    detections=dict(max_boxes=5, min_side=2.0),
)


def head_config(**changes: Any) -> dict[str, Any]:
    return dict(
        type="MV2DHead",
        grid=GRID,
        class_names=CLASS_NAMES,
        decoder=dict(center_range=CENTER_RANGE, top_k=20, score_threshold=0.0),
        in_channels=CHANNELS,
        channels=CHANNELS,
        level=1,
        stride=8,
        num_layers=2,
        layer=dict(num_heads=2, ffn_channels=24, dropout=0.0),
        queries=dict(fc_channels=24, hidden_channels=(16, 16)),
        num_depths=8,
        **changes,
    )


TWO_FRAMES = dict(keys="cells", top_k=20, margin=1, num_frames=2, denoising=dict(num_groups=2))


def detector(detector_2d: dict[str, Any] = FASTER_RCNN, **changes: Any) -> Detector3D:
    return MODELS.build(
        dict(
            type="Detector3D",
            data_preprocessor=dict(type="Preprocessor", images=dict(size_divisor=32)),
            image_branch=dict(
                type="DetectorBranch",
                backbone=dict(type="ResNet", depth=18, base_channels=8),
                neck=dict(type="FPN", in_channels=[8, 16, 32, 64], out_channels=CHANNELS, num_outs=5),
                detector=detector_2d,
                num_frames=changes.get("num_frames", 1),
            ),
            head=head_config(**changes),
        )
    )
