"""Sparse R-CNN: dynamic convolution, a stage, the cascade, matching and losses."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sparse3d.checkpoints import sparse_rcnn as names
from sparse3d.checkpoints.convert import Rules
from sparse3d.decoding.image_boxes import ImageBoxes
from sparse3d.encoding.box_levels import POOLED_CELLS, box_levels
from sparse3d.models.images.box_pooling import pool_boxes
from sparse3d.models.images.sparse_rcnn import SAMPLES, DynamicConv, SparseRCNN, Stage
from sparse3d.models.images.sparse_rcnn_loss import SparseRCNNLoss

from ..cases import Case
from ..compare import Comparison, load_state, section, tensors


def _prepare(case: Case, module: nn.Module, rules: Rules) -> tuple[Comparison, dict[str, Tensor]]:
    load_state(case, module, rules)
    module.eval()
    return Comparison(case, rules), tensors(section(case, "in"))


def _stage_options(config: dict[str, Any]) -> dict[str, Any]:
    assert config["POOLER_RESOLUTION"] == POOLED_CELLS and config["POOLER_SAMPLING_RATIO"] == SAMPLES
    return dict(
        num_heads=config["NHEADS"],
        ffn_channels=config["DIM_FEEDFORWARD"],
        dynamic_channels=config["DIM_DYNAMIC"],
        class_layers=config["NUM_CLS"],
        box_layers=config["NUM_REG"],
    )


def _backward(comparison: Comparison, inputs: dict[str, Tensor], outputs: dict[str, Tensor]) -> None:
    """Compare the outputs and the loss that the fixture makes of them, and take its gradients."""
    for name, output in outputs.items():
        comparison.output(name, output)
    loss = sum((output * inputs[f"loss_weight/{name}"]).sum() for name, output in outputs.items())
    comparison.output("loss", loss)
    loss.backward()


def check_dynamic_conv(case: Case) -> None:
    config = case.config["config"]
    module = DynamicConv(config["HIDDEN_DIM"], config["DIM_DYNAMIC"])
    comparison, inputs = _prepare(case, module, names.DYNAMIC)
    cells, features = (inputs[name].requires_grad_() for name in ("roi_features", "pro_features"))
    _backward(comparison, inputs, {"out": module(cells.transpose(0, 1), features[0])})
    comparison.gradients(module, roi_features=cells, pro_features=features)
    comparison.finish()


def check_stage(case: Case) -> None:
    config = case.config["config"]
    stage = Stage(config["NUM_CLASSES"], config["HIDDEN_DIM"], **_stage_options(config))
    comparison, inputs = _prepare(case, stage, names.STAGE)
    maps, boxes = _maps(inputs), inputs["boxes"]
    leaves = [*maps, boxes, inputs["pro_features"]]
    for leaf in leaves:
        leaf.requires_grad_()
    images = torch.arange(len(boxes)).repeat_interleave(boxes.shape[1])
    flat = boxes.detach().flatten(0, 1)
    comparison.output("roi_levels", box_levels(flat, len(maps)))
    comparison.output("roi_features", pool_boxes(maps, flat, images, POOLED_CELLS, SAMPLES))
    logits, changed, features = stage(maps, boxes, inputs["pro_features"].view(*boxes.shape[:2], -1))
    features = features.reshape(inputs["pro_features"].shape)
    _backward(comparison, inputs, {"class_logits": logits, "pred_bboxes": changed, "obj_features": features})
    given = {f"feat_{number}": level for number, level in enumerate(maps)}
    comparison.gradients(stage, boxes=boxes, pro_features=inputs["pro_features"], **given)
    comparison.finish()


def check_cascade(case: Case) -> None:
    config = case.config["config"]
    detector = SparseRCNN(
        [str(number) for number in range(config["NUM_CLASSES"])],
        num_proposals=case.arrays["in/pro_features"].shape[0],
        num_stages=config["NUM_HEADS"],
        channels=config["HIDDEN_DIM"],
        stage=_stage_options(config),
    )
    comparison, inputs = _prepare_cascade(case, detector)
    # A later stage pools where an earlier one put its boxes, rounding errors included: each begins with their boxes.
    their_logits, their_boxes = (comparison.take(f"out/{name}") for name in ("logits", "boxes"))
    maps, boxes = _maps(inputs), inputs["boxes"]
    features = inputs["pro_features"].expand(len(boxes), -1, -1)
    with torch.no_grad():
        together = detector.refine(maps, boxes, inputs["pro_features"])[0]
        for number, stage in enumerate(detector.stages):
            logits, changed, features = stage(maps, boxes, features)
            comparison.close(f"logits of stage {number}", logits, their_logits[number])
            comparison.close(f"boxes of stage {number}", changed, their_boxes[number])
            boxes = torch.from_numpy(their_boxes[number])
    assert float((together[-1] - logits).abs().max()) < 1e-3
    comparison.finish()


def _prepare_cascade(case: Case, detector: SparseRCNN) -> tuple[Comparison, dict[str, Tensor]]:
    """The fixture has the stages alone."""
    learned = nn.ParameterDict(detector.named_parameters(recurse=False))
    for name in learned:
        delattr(detector, name)
    return _prepare(case, detector, names.HEAD)


def _maps(inputs: dict[str, Tensor]) -> list[Tensor]:
    return [inputs[name] for name in sorted(inputs) if name.startswith("feat_")]


def check_criterion(case: Case) -> None:
    config, inputs = case.config["config"], tensors(section(case, "in"))
    comparison = Comparison(case)
    loss = SparseRCNNLoss(
        scoring="sigmoid" if config["use_focal"] else "softmax",
        class_weight=config["class_weight"],
        l1_weight=config["l1_weight"],
        giou_weight=config["giou_weight"],
        background_weight=config["no_object_weight"],
    )
    assert (config["alpha"], config["gamma"]) == (0.25, 2.0)
    logits, boxes = (inputs[f"pred_{name}"].requires_grad_() for name in ("logits", "boxes"))
    count = len(boxes)
    labels = [inputs[f"target{number}/labels"] for number in range(count)]
    objects = ImageBoxes(
        torch.cat([inputs[f"target{number}/boxes_xyxy"] for number in range(count)]),
        torch.cat(labels),
        torch.arange(count).repeat_interleave(torch.tensor([len(each) for each in labels])),
        count,
    )
    extents = torch.stack([inputs[f"target{number}/image_size_xyxy"] for number in range(count)])

    queries, rows = loss.match(logits, boxes, extents, objects)
    first = np.cumsum([0, *map(len, labels)])
    for number in range(count):
        own = queries // boxes.shape[1] == number
        comparison.output(f"match_src_{number}", queries[own] % boxes.shape[1])
        comparison.output(f"match_tgt_{number}", rows[own] - first[number])
    losses = loss(logits[None], boxes[None], extents[:, [1, 0]], objects)
    weights = {"class": loss.class_weight, "l1": loss.l1_weight, "giou": loss.giou_weight}
    for ours, theirs in (("class", "ce"), ("giou", "giou"), ("l1", "bbox")):
        comparison.output(f"loss_{theirs}", losses[f"loss_{ours}"] / weights[ours])
    total = sum(losses.values())
    comparison.output("loss_total", total)
    total.backward()
    comparison.gradients(nn.Module(), pred_logits=logits, pred_boxes=boxes)
    comparison.finish()


KINDS = {
    "sparse_rcnn/dynamic_conv": check_dynamic_conv,
    "sparse_rcnn/rcnn_head": check_stage,
    "sparse_rcnn/dynamic_head": check_cascade,
    "sparse_rcnn/criterion_focal": check_criterion,
    "sparse_rcnn/criterion_softmax": check_criterion,
}
