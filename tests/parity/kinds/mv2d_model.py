"""MV2D: the whole single-frame detector, from images over proposals and boxes in images to boxes in space."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparse3d.checkpoints import mv2d as names
from sparse3d.decoding.image_boxes import ImageDetections
from sparse3d.decoding.proposals import Proposals
from sparse3d.models import Detector3D
from sparse3d.models.images.faster_rcnn import FasterRCNN
from sparse3d.models.targets.hungarian import match
from sparse3d.registry import MODELS
from sparse3d.structures import Batch
from sparse3d_ops import iou_2d

from ..cases import Case
from ..compare import Comparison
from .mv2d import CLASSES, cameras_of, check_detections, head_of, inputs_of, prepare

SAME_IOU = 0.99


def check_full_model(case: Case) -> None:
    detector = _detector(case.config)
    comparison, inputs = prepare(case, detector, names.DETECTOR), inputs_of(case)
    images, rig = inputs["img"][None], cameras_of(inputs)
    with torch.no_grad():
        features = detector.image_branch(Batch(batch_size=1, images=images, cameras=(rig,)))
        maps = [level.flatten(0, 1) for level in features.images]
        _check_detector(comparison, detector.image_branch.detector, maps, rig.image_sizes)
        found = features.detections
        _check_boxes_in_images(comparison, found)
        comparison.output("feat16", detector.head.neck([maps[2]])[0])
        check_detections(comparison, detector.head, detector.head(features))
    comparison.finish()


def _check_detector(comparison: Comparison, detector: FasterRCNN, maps: list[Tensor], sizes: Tensor) -> None:
    logits, deltas = detector.proposals(maps)
    for kind, levels in (("rpn_cls", logits), ("rpn_reg", deltas)):
        for number, level in enumerate(levels):
            if comparison.has(f"{kind}/{number}"):
                comparison.output(f"{kind}/{number}", level)
    proposals = detector.proposals.propose(logits, deltas, sizes, training=False)
    theirs = [torch.from_numpy(comparison.take(f"out/proposals/{number}")) for number in range(len(sizes))]
    for number, expected in enumerate(theirs):
        own = proposals.images == number
        _check_same(comparison, f"proposals/{number}", proposals.boxes[own], proposals.scores[own], expected)
    first = Proposals(theirs[0][:, :4], torch.zeros(len(theirs[0]), dtype=torch.int64), theirs[0][:, 4])
    classes, changes = detector.box_head(maps, first.boxes, first.images)
    comparison.output("rcnn_cls", classes)
    comparison.output("rcnn_reg", changes.flatten(1))


def _check_boxes_in_images(comparison: Comparison, found: ImageDetections) -> None:
    for number in range(found.num_images):
        own = found.of_image(number)
        theirs = torch.from_numpy(comparison.take(f"out/detections/{number}"))
        order = _check_same(comparison, f"detections/{number}", found.boxes[own], found.scores[own], theirs)
        assert np.array_equal(found.labels[own][order].numpy(), theirs[:, 5].long().numpy())


def _check_same(comparison: Comparison, name: str, boxes: Tensor, scores: Tensor, theirs: Tensor) -> Tensor:
    """Compare boxes and scores as sets (scores tie); return the row of ours for each of theirs."""
    assert len(boxes) == len(theirs), f"{name}: {len(boxes)} boxes, expected {len(theirs)}"
    ious = iou_2d(theirs[:, :4], boxes)
    _, order = match((theirs[:, 4:5] - scores).abs() - ious)
    least = float(ious[torch.arange(len(order)), order].min())
    assert least > SAME_IOU, f"{name}: IoU {least:.3f}"
    comparison.close(f"{name}: scores", scores[order], theirs[:, 4].numpy())
    return order


def _detector(config: dict[str, Any]) -> Detector3D:
    base, limits = config["config_2d"], config["detection_proposal"]
    backbone, neck, roi_head, tests = base["backbone"], base["neck"], base["roi_head"], base["test_cfg"]
    assert backbone["type"] == "ResNet" and backbone["stem_channels"] == backbone["base_channels"]
    stages = [number for number, deformable in enumerate(backbone["stage_with_dcn"]) if deformable]
    branch = dict(
        type="DetectorBranch",
        backbone=dict(
            type="ResNet",
            depth=backbone["depth"],
            base_channels=backbone["base_channels"],
            frozen_stages=backbone["frozen_stages"],
            norm_eval=backbone["norm_eval"],
            deformable_stages=stages,
        ),
        neck=dict(
            type="FPN",
            in_channels=neck["in_channels"],
            out_channels=neck["out_channels"],
            num_outs=neck["num_outs"],
        ),
        detector=dict(
            type="FasterRCNN",
            class_names=CLASSES,
            channels=neck["out_channels"],
            hidden_channels=roi_head["bbox_head"]["fc_out_channels"],
            proposals=dict(
                per_level=(base["train_cfg"]["rpn_proposal"]["nms_pre"], tests["rpn"]["nms_pre"]),
                max_proposals=tests["rpn"]["max_per_img"],
                nms_threshold=tests["rpn"]["nms"]["iou_threshold"],
            ),
            detections=dict(
                score_threshold=limits["score_thr"],
                nms_threshold=limits["nms"]["iou_threshold"],
                max_boxes=limits["max_per_img"],
                min_side=limits["min_bbox_size"],
            ),
        ),
    )
    detector = MODELS.build(
        dict(
            type="Detector3D",
            data_preprocessor=dict(type="Preprocessor", images=dict(size_divisor=32)),
            image_branch=branch,
            head=dict(
                type="MV2DHead",
                grid=dict(point_range=[-1, -1, -1, 1, 1, 1], voxel_size=[2, 2, 2]),
                class_names=CLASSES,
                decoder=dict(center_range=[0] * 6),
            ),
        )
    )
    detector.head = head_of(config["head_config"])
    return detector


KINDS = {"mv2d/full_model": check_full_model}
