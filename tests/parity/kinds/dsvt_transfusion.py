"""DSVT's TransFusion head: queries, matching, losses, gradients, detections."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparse3d.checkpoints import dsvt as names
from sparse3d.decoding.transfusion import decode_boxes
from sparse3d.models import Features, GroundTruth, TransFusionHead
from sparse3d.models.heads.transfusion_head import TransFusionOutput
from sparse3d.structures import Grid, Sample

from ..cases import Case
from ..compare import Comparison
from .dsvt import _check_detections, _inputs, _prepare, _sample

# The published code names the classes by position, and what it does with them by data set.
CROWDED = {"nuScenes": ([8, 9], [8, 9], 0.175), "Waymo": ([1, 2], [0, 1, 2], 0.7)}


def check_transfusion_head(case: Case) -> None:
    head = _head(case.config["config"])
    comparison = _prepare(case, head, names.TRANSFUSION_HEAD)
    inputs = _inputs(case)
    bev = inputs["spatial_features_2d"].requires_grad_()
    samples = [_sample(boxes) for boxes in inputs["gt_boxes"]]

    output = head(Features(bev=bev))
    _check_output(comparison, head, output)
    _check_targets(comparison, head, output, samples)
    _check_losses(comparison, head.loss_from_output(output, samples))
    comparison.gradients(head, spatial_features_2d=bev)

    head.eval()
    with torch.no_grad():
        _check_detections(comparison, head.predict_from_output(head(Features(bev=bev))))
    comparison.finish()


def _head(config: dict[str, Any]) -> TransFusionHead:
    model, classes = config["model_cfg"], config["class_names"]
    branches = model["SEPARATE_HEAD_CFG"]["HEAD_DICT"]
    (num_layers,) = {branch["num_conv"] for branch in branches.values()}
    assigner, weights = model["TARGET_ASSIGNER_CONFIG"], model["LOSS_CONFIG"]["LOSS_WEIGHTS"]
    costs, focal = assigner["HUNGARIAN_ASSIGNER"], model["LOSS_CONFIG"]["LOSS_CLS"]
    assert focal["use_sigmoid"] and (focal["alpha"], focal["gamma"]) == (0.25, 2.0)
    every_cell, _, _ = CROWDED[assigner["DATASET"]]
    columns = sum(branches[name]["out_channels"] for name in model["SEPARATE_HEAD_CFG"]["HEAD_ORDER"])
    return TransFusionHead(
        Grid(config["point_cloud_range"], config["voxel_size"], assigner["FEATURE_MAP_STRIDE"]),
        class_names=classes,
        in_channels=config["input_channels"],
        channels=model["HIDDEN_CHANNEL"],
        num_queries=model["NUM_PROPOSALS"],
        num_heads=model["NUM_HEADS"],
        ffn_channels=model["FFN_CHANNEL"],
        activation=model["ACTIVATION"],
        dropout=model["DROPOUT"],
        peak_size=model["NMS_KERNEL_SIZE"],
        every_cell=[classes[label] for label in every_cell],
        extra_branches=[name for name in ("vel", "iou") if name in branches],
        num_layers=num_layers,
        num_class_layers=model["NUM_HM_CONV"],
        targets=dict(
            overlap=assigner["GAUSSIAN_OVERLAP"],
            min_radius=assigner["MIN_RADIUS"],
            class_cost=costs["cls_cost"]["weight"],
            center_cost=costs["reg_cost"]["weight"],
            iou_cost=costs["iou_cost"]["weight"],
            alpha=costs["cls_cost"]["alpha"],
            gamma=costs["cls_cost"]["gamma"],
        ),
        loss_weights={
            "heatmap": weights["hm_weight"],
            "class": weights["cls_weight"],
            "box": weights["bbox_weight"],
            "iou": weights["loss_iou_rescore_weight"],
        },
        code_weights=weights["code_weights"][:columns],
        decoder=_decoder(model["POST_PROCESSING"], classes, assigner["DATASET"]),
    )


def _decoder(config: dict[str, Any], classes: list[str], data_set: str) -> dict[str, Any]:
    exponents = config["IOU_RECTIFIER"] if config.get("USE_IOU_TO_RECTIFY_SCORE", False) else None
    if exponents is not None and len(exponents) == 1:
        (exponents,) = exponents
    _, suppressed, threshold = CROWDED[data_set]
    return dict(
        center_range=config["POST_CENTER_RANGE"],
        score_threshold=config["SCORE_THRESH"],
        iou_exponents=exponents,
        nms_thresholds={classes[label]: threshold for label in suppressed},
        nms_pre=config["NMS_CONFIG"]["NMS_PRE_MAXSIZE"],
        nms_post=config["NMS_CONFIG"]["NMS_POST_MAXSIZE"],
    )


def _check_output(comparison: Comparison, head: TransFusionHead, output: TransFusionOutput) -> None:
    comparison.output("pred/dense_heatmap", output.heatmap)
    comparison.output("pred/query_labels", output.queries.labels)
    heat = head.peaks(output.heatmap).flatten(2)
    cells = output.queries.cells[:, None].expand(-1, head.num_classes, -1)
    comparison.output("pred/query_heatmap_score", heat.gather(2, cells))
    comparison.output("pred/heatmap", output.logits.transpose(1, 2))
    for name, code in output.codes.items():
        comparison.output(f"pred/{name}", code.transpose(1, 2))


def _check_targets(
    comparison: Comparison, head: TransFusionHead, output: TransFusionOutput, samples: list[Sample]
) -> None:
    boxes = decode_boxes(output.codes, head.grid).detach()
    targets = head.assigner(output.logits, boxes, GroundTruth.gather(samples, head.num_classes))
    comparison.output("target/heatmap", targets.heatmap)
    comparison.output("target/labels", targets.labels)
    comparison.output("target/label_weights", torch.ones_like(targets.labels))
    comparison.output("target/num_pos", len(targets.queries))
    codes = torch.cat([targets.codes[name] for name in head.coded], dim=1)
    comparison.output("target/bbox_targets", _at_queries(codes, targets.queries, targets.labels))
    comparison.output("target/bbox_weights", _at_queries(torch.ones_like(codes), targets.queries, targets.labels))


def _at_queries(values: Tensor, queries: Tensor, labels: Tensor) -> Tensor:
    """Their table: a row a query, zeros where it has no object."""
    table = values.new_zeros(labels.numel(), values.shape[1])
    table[queries] = values
    return table.view(*labels.shape, -1)


def _check_losses(comparison: Comparison, losses: dict[str, Tensor]) -> None:
    theirs = {"loss_heatmap": "loss_heatmap", "loss_class": "loss_cls", "loss_box": "loss_bbox", "loss_iou": "loss_iou"}
    for name, value in losses.items():
        if name == "matched_iou":
            comparison.output("target/matched_ious", value)
            comparison.output("loss/matched_ious", value)
        else:
            comparison.output(f"loss/{theirs[name]}", value)
    total = sum(value for name, value in losses.items() if name.startswith("loss"))
    comparison.output("loss/loss_trans", total)
    total.backward()


KINDS = {"dsvt/transfusion_head": check_transfusion_head}
