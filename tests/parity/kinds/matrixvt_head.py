"""MatrixVT: bird's-eye backbone and head, from the transported map to losses and boxes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sparse3d.checkpoints import convert_names, load_converted
from sparse3d.checkpoints import matrixvt as names
from sparse3d.checkpoints.convert import Rules
from sparse3d.models import CenterHead, Features, ResNetBEVBackbone
from sparse3d.structures import Boxes3D, Grid, InstanceData, Sample

from ..cases import Case
from ..compare import Comparison, assert_equal, section, tensors

RULES: Rules = [
    *((theirs, f"bev_backbone.{ours}") for theirs, ours in names.BEV_BACKBONE),
    *((theirs, f"head.{ours}") for theirs, ours in names.HEAD),
]
CODES = [0, 1, 2, 3, 4, 5, 7, 6, 8, 9]  # their columns in our order: sine and cosine change places


def check_bev_head(case: Case) -> None:
    config = {**case.config["head_config"], "class_names": case.config["class_names"]}
    whole = nn.ModuleDict({"bev_backbone": _backbone(config), "head": _head(config)}).eval()
    state = convert_names(tensors(section(case, "state")), RULES)
    load_converted(whole, names.to_our_headings(state))
    comparison, inputs = Comparison(case), tensors(section(case, "in"))
    samples = [_sample(inputs, number) for number in range(len(inputs["x"]))]

    maps = whole["head"](Features(bev=whole["bev_backbone"](inputs["x"])))
    for own in maps:
        own["hm"].retain_grad()
    _check_maps(comparison, maps)
    _check_targets(comparison, whole["head"], samples)
    loss = sum(whole["head"].loss_from_maps(maps, samples).values())
    comparison.output("loss", loss)
    loss.backward()
    for task, own in enumerate(maps):
        heat = own["hm"].detach().sigmoid()  # theirs is the gradient of the heat, ours of its logit
        comparison.output(f"grad_heatmap/{task}", own["hm"].grad / (heat * (1 - heat)))
    with torch.no_grad():
        for number, found in enumerate(whole["head"].predict_from_maps(maps)):
            _check_detections(comparison, f"det/{number}", found)
    comparison.finish()


def _backbone(config: dict[str, Any]) -> ResNetBEVBackbone:
    trunk, neck = config["bev_backbone_conf"], config["bev_neck_conf"]
    assert trunk["depth"] == 18
    backbone = ResNetBEVBackbone(
        trunk["in_channels"],
        num_blocks=[2] * trunk["num_stages"],
        strides=trunk["strides"],
        channels=neck["in_channels"][1:],
        up_channels=neck["out_channels"],
    )
    assert [each[0].stride[0] for each in backbone.neck.necks] == neck["upsample_strides"]
    return backbone


def _head(config: dict[str, Any]) -> CenterHead:
    training, testing = config["train_cfg"], config["test_cfg"]
    assert testing["nms_type"] == "circle"
    return CenterHead(
        Grid(training["point_cloud_range"], training["voxel_size"], training["out_size_factor"]),
        class_names=config["class_names"],
        tasks=[task["class_names"] for task in config["tasks"]],
        in_channels=config["in_channels"],
        extra_branches=["vel"],
        norm=dict(eps=1e-5, momentum=0.1),
        targets=dict(
            overlap=training["gaussian_overlap"], min_radius=training["min_radius"], max_objects=training["max_objs"]
        ),
        loss_weights=dict(box=config["loss_bbox"]["loss_weight"]),
        code_weights=training["code_weights"],
        decoder=dict(
            center_range=testing["post_center_limit_range"],
            top_k=config["bbox_coder"]["max_num"],
            score_threshold=testing["score_threshold"],
            nms_scope="task",
            nms_measure="squared_distance",
            nms_threshold=testing["min_radius"],
            nms_post=testing["post_max_size"],
        ),
    )


def _sample(inputs: dict[str, Tensor], number: int) -> Sample:
    boxes, labels = (inputs[f"gt/{number}/{name}"] for name in ("boxes", "labels"))
    return Sample().replace(gt=InstanceData(boxes=Boxes3D(boxes), labels=labels))


def _check_maps(comparison: Comparison, maps: list[dict[str, Tensor]]) -> None:
    for task, own in enumerate(maps):
        for theirs, ours in names.BRANCHES.items():
            comparison.output(f"preds/{task}/{theirs}", own[ours].flip(1) if ours == "rot" else own[ours])


def _check_targets(comparison: Comparison, head: CenterHead, samples: list[Sample]) -> None:
    """Theirs stand in slots class by class, ours in the order of the objects: compared in the order of the cells."""
    area = head.grid.out_shape[0] * head.grid.out_shape[1]
    for task, ours in enumerate(head.assign(samples)):
        comparison.output(f"heatmaps/{task}", ours.heatmap)
        used = comparison.take(f"out/masks/{task}") != 0
        cells = comparison.take(f"out/inds/{task}")[used] + np.nonzero(used)[0] * area
        order, their_order = ours.cells.argsort(), np.argsort(cells)
        assert_equal(f"inds/{task}", ours.cells[order], cells[their_order])
        codes = torch.cat([ours.codes[branch] for branch in head.coded], dim=1)[order]
        wanted = comparison.take(f"out/anno_boxes/{task}")[used][their_order][:, CODES]
        comparison.close(f"anno_boxes/{task}", codes, wanted)


def _check_detections(comparison: Comparison, name: str, found: InstanceData) -> None:
    """Theirs are grouped by task; boxes are matched by place."""
    boxes = comparison.take(f"out/{name}/bboxes")
    assert found.boxes.tensor.shape == boxes.shape, f"{name}: {len(found.boxes)} boxes, expected {len(boxes)}"
    distance = torch.cdist(torch.from_numpy(boxes[:, :6]), found.boxes.tensor[:, :6])
    match = distance.argmin(dim=1)
    assert_equal(f"{name}: rows of ours that theirs are nearest to", match.sort().values, np.arange(len(boxes)))
    comparison.close(f"{name}/bboxes", found.boxes.tensor[match], boxes)
    comparison.output(f"{name}/scores", found.scores[match])
    comparison.output(f"{name}/labels", found.labels[match])


KINDS = {"matrixvt/bev_head": check_bev_head}
