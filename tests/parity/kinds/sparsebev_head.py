"""SparseBEV: the head, its targets and losses, and the whole detector."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparse3d.checkpoints import sparsebev as names
from sparse3d.decoding.sparsebev import TopKDecoder
from sparse3d.models import GroundTruth, SparseBEVHead
from sparse3d.models.heads.sparsebev_head import SparseBEVOutput
from sparse3d.models.targets.denoising import DenoisingQueries, Noise
from sparse3d.models.targets.sparsebev_targets import SparseBEVTargetAssigner
from sparse3d.registry import MODELS
from sparse3d.structures import Boxes3D, InstanceData, Sample

from ..cases import Case
from ..compare import Comparison, assert_equal, section, tensors
from .sparsebev import cameras_of, features_of, inputs_of, prepare

# -- head ----------------------------------------------------------------------------------------------------------


def check_head_forward(case: Case) -> None:
    head = MODELS.build(_head(case.config["head_config"], case.config["config"]))
    comparison = prepare(case, head, names.HEAD)
    with torch.no_grad():
        output = head(features_of(inputs_of(case))[0])
        _check_output(comparison, head, output)
    comparison.finish()


def _check_output(comparison: Comparison, head: SparseBEVHead, output: SparseBEVOutput) -> None:
    comparison.output("all_cls_scores", output.logits)
    comparison.output("all_bbox_preds", output.codes)
    for number, own in enumerate(head.predict_from_output(output)):
        own.boxes = Boxes3D(own.boxes.to_mmdet3d())
        _check_detections(comparison, f"det/{number}", own)


def check_bbox_coder(case: Case) -> None:
    config, comparison, inputs = case.config["config"], Comparison(case), inputs_of(case)
    decoder = TopKDecoder(config["post_center_range"], config["max_num"], config["score_threshold"])
    found = decoder(inputs["all_cls_scores"][-1], inputs["all_bbox_preds"][-1])
    for number, own in enumerate(found):
        _check_detections(comparison, str(number), InstanceData(**vars(own)))
    comparison.finish()


def _check_detections(comparison: Comparison, name: str, ours: InstanceData) -> None:
    """Scores may tie, so detections are matched by box and class."""
    boxes, labels = comparison.take(f"out/{name}/bboxes"), comparison.take(f"out/{name}/labels")
    assert len(ours.labels) == len(labels), f"{name}: {len(ours.labels)} detections, expected {len(labels)}"
    tables = np.c_[boxes, 1e3 * labels], np.c_[ours.boxes.numpy(), 1e3 * ours.labels.numpy()]
    match = np.abs(tables[0][:, None] - tables[1][None]).max(axis=2).argmin(axis=1)
    assert_equal(f"{name}: rows of ours that theirs are nearest to", np.sort(match), np.arange(len(labels)))
    comparison.close(f"{name}/bboxes", ours.boxes.tensor[match], boxes)
    assert_equal(f"{name}/labels", ours.labels[match], labels)
    comparison.output(f"{name}/scores", ours.scores[match])
    assert bool((ours.scores.diff() <= 0).all()), f"{name}: scores are not in descending order"


def _head(head: dict[str, Any], config: dict[str, Any] | None = None) -> dict[str, Any]:
    """Our config of their head; the number of groups, heads and levels is fixed in their code."""
    transformer, coder = head["transformer"], head["bbox_coder"]
    assert (head["loss_cls"]["gamma"], head["loss_cls"]["alpha"]) == (2.0, 0.25)
    return dict(
        type="SparseBEVHead",
        grid=dict(point_range=transformer["pc_range"], voxel_size=_voxel_size(transformer["pc_range"])),
        class_names=[str(number) for number in range(head["num_classes"])],
        decoder=dict(
            center_range=coder["post_center_range"], top_k=coder["max_num"], score_threshold=coder["score_threshold"]
        ),
        num_queries=head["num_query"],
        num_frames=transformer["num_frames"],
        channels=transformer["embed_dims"],
        num_layers=transformer["num_layers"],
        layer=dict(
            num_points=transformer["num_points"],
            num_levels=transformer["num_levels"],
            num_groups=(config or {}).get("num_groups", 4),
            num_heads=(config or {}).get("num_heads", 8),
        ),
        denoising=dict(num_groups=head["query_denoising_groups"]),
        targets=_costs(head.get("train_cfg")),
        loss_weights={"class": head["loss_cls"]["loss_weight"], "box": head["loss_bbox"]["loss_weight"]},
        code_weights=head["code_weights"],
        unknown_velocity="left_out",
    )


def _costs(config: dict[str, Any] | None) -> dict[str, float]:
    if config is None:
        return {}  # the whole detector is given without what only training needs
    costs = config["assigner"]
    assert costs["iou_cost"]["weight"] == 0
    return dict(class_cost=costs["cls_cost"]["weight"], box_cost=costs["reg_cost"]["weight"])


def _voxel_size(point_range: list[float]) -> list[float]:
    """Their head knows no voxels; one fills the range."""
    return [high - low for low, high in zip(point_range[:3], point_range[3:], strict=True)]


# -- targets and losses --------------------------------------------------------------------------------------------


def check_assigner(case: Case) -> None:
    config, comparison, inputs = case.config["config"], Comparison(case), inputs_of(case)
    assigner = SparseBEVTargetAssigner(
        class_cost=config["cls_weight"],
        box_cost=config["reg_weight"],
        code_weights=inputs["code_weights"].tolist(),
        alpha=config["alpha"],
        gamma=config["gamma"],
    )
    logits, codes = inputs["cls_pred"], inputs["bbox_pred"]
    truth = _truth([(inputs["gt_bboxes"], inputs["gt_labels"])])
    by_class = SparseBEVTargetAssigner(config["cls_weight"], 0.0, alpha=config["alpha"], gamma=config["gamma"])
    known = GroundTruth(Boxes3D(truth.boxes.tensor.nan_to_num()), truth.labels, truth.batch_index, 1)
    comparison.output("cls_cost", by_class.cost(logits, codes, known))
    comparison.output("cost", assigner.cost(logits, codes, truth))
    targets = assigner(logits[None], codes[None], truth)
    assigned = torch.zeros(len(logits), dtype=torch.int64)
    assigned[targets.queries] = targets.objects + 1
    comparison.output("assigned_gt_inds", assigned)
    comparison.output("assigned_labels", targets.labels[0].where(assigned > 0, -1))
    comparison.finish()


def check_denoising(case: Case) -> None:
    config, comparison, inputs = case.config["config"], Comparison(case), inputs_of(case)
    truth = _truth(_objects(inputs))
    state = tensors(section(case, "state"))
    embedding, learned = state["label_enc.weight"], state["init_query_bbox.weight"]
    changes = inputs["noise/label_uniform01"] < config["label_noise_scale"]
    labels = torch.zeros(len(changes), dtype=torch.int64)
    labels[changes] = inputs["noise/label_replacement"]
    noise = Noise(inputs["noise/box_uniform01"][:, :3] * 2 - 1, changes, labels)
    made = DenoisingQueries.make(truth, config["groups"], noise, config["bbox_noise_scale"])
    comparison.output("map_known_indice", made.slots)
    comparison.output("batch_idx", truth.batch_index)
    comparison.output("known_indice", made.objects)
    comparison.output("known_labels", truth.labels[made.objects])
    comparison.output("known_bboxes", truth.boxes.tensor[made.objects])
    comparison.output("pad_size", made.num_slots)
    comparison.output("attn_mask", made.hidden(len(learned)))

    head = SparseBEVHead(
        dict(point_range=POINT_RANGE, voxel_size=_voxel_size(POINT_RANGE)),
        [str(number) for number in range(len(embedding) - 1)],
        dict(center_range=POINT_RANGE),
        num_queries=len(learned),
        channels=embedding.shape[1] + 1,
    )
    head.label_embedding.weight.data, head.query_codes.data = embedding, learned
    codes, queries = head._start(truth.batch_size, made)
    comparison.output("query_bbox", codes)
    comparison.output("query_feat", queries)
    comparison.finish()


POINT_RANGE = [-51.2, -51.2, -5.0, 51.2, 51.2, 3.0]  # of all published configs


def check_head_loss(case: Case) -> None:
    head = MODELS.build(_head(case.config["head_config"], case.config["config"]))
    comparison, inputs = Comparison(case), inputs_of(case)
    assert_equal("code_weights", head.code_weights, case.arrays["in/code_weights"])
    truth = _truth(_objects(inputs))
    denoising = DenoisingQueries(
        boxes=inputs["known_bboxes"],
        labels=inputs["known_labels"],
        samples=inputs["batch_idx"][inputs["known_indice"]],
        slots=inputs["map_known_indice"],
        objects=inputs["known_indice"],
        num_slots=int(inputs["pad_size"]),
        num_groups=head.denoising["num_groups"],
    )
    logits, codes = (inputs[name].requires_grad_() for name in ("all_cls_scores", "all_bbox_preds"))
    losses = head.loss_from_output(SparseBEVOutput(logits, codes), truth, denoising)
    theirs = {"loss_class": "loss_cls", "loss_box": "loss_bbox"}
    for name, value in losses.items():
        for ours, official in theirs.items():
            name = name.replace(ours, official)
        shape = case.arrays[f"out/losses/{name}"].shape
        comparison.output(f"losses/{name}", value.reshape(shape))
    sum(losses.values()).backward()
    comparison.output("grad_cls", logits.grad)
    comparison.output("grad_bbox", codes.grad)
    comparison.finish()


def _objects(inputs: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Boxes and labels of each sample, which the fixture numbers."""
    count = sum(name.startswith("gt/") and name.endswith("/labels") for name in inputs)
    return [(inputs[f"gt/{n}/bboxes_gravity_center"], inputs[f"gt/{n}/labels"]) for n in range(count)]


def _truth(objects: list[tuple[Tensor, Tensor]]) -> GroundTruth:
    samples = [Sample().replace(gt=InstanceData(boxes=Boxes3D(boxes), labels=labels)) for boxes, labels in objects]
    return GroundTruth.gather(samples)


# -- the detector ----------------------------------------------------------------------------------------------------


def check_full_model(case: Case) -> None:
    config = case.config["config"]
    detector = MODELS.build(_detector(config))
    comparison = prepare(case, detector, names.DETECTOR)
    inputs = inputs_of(case)
    samples = [
        Sample().replace(images=images.flip(1), cameras=cameras)
        for images, cameras in zip(inputs["img_uint8"], cameras_of(inputs), strict=True)
    ]
    batch = detector.data_preprocessor(samples)["batch"]
    with torch.no_grad():
        features = detector.extract_features(batch)
        assert_equal("padded_hw", features.image_size, comparison.take("out/padded_hw"))
        for level, maps in enumerate(features.images):
            name = f"feats_frame0/{level}"
            if comparison.has(name):
                comparison.output(name, maps[:, : maps.shape[1] // detector.head.num_frames])
        _check_output(comparison, detector.head, detector.head(features))
    comparison.finish()


def _detector(config: dict[str, Any]) -> dict[str, Any]:
    norm, backbone, neck = config["data_aug"]["img_norm_cfg"], config["img_backbone"], config["img_neck"]
    assert backbone["type"] == "ResNet" and backbone["stem_channels"] == backbone["base_channels"]
    return dict(
        type="Detector3D",
        data_preprocessor=dict(
            type="Preprocessor",
            images=dict(
                mean=norm["mean"],
                std=norm["std"],
                bgr=not norm["to_rgb"],
                size_divisor=config["data_aug"]["img_pad_cfg"]["size_divisor"],
            ),
        ),
        image_branch=dict(
            type="ImageBranch",
            backbone=dict(
                type="ResNet",
                depth=backbone["depth"],
                base_channels=backbone["base_channels"],
                out_stages=backbone["out_indices"],
                frozen_stages=backbone["frozen_stages"],
                norm_eval=backbone["norm_eval"],
            ),
            neck=dict(
                type="FPN",
                in_channels=neck["in_channels"],
                out_channels=neck["out_channels"],
                num_outs=neck["num_outs"],
            ),
        ),
        head=_head(config["pts_bbox_head"]),
    )


KINDS = {
    "sparsebev/head_forward": check_head_forward,
    "sparsebev/bbox_coder": check_bbox_coder,
    "sparsebev/assigner": check_assigner,
    "sparsebev/dn_prepare": check_denoising,
    "sparsebev/head_loss": check_head_loss,
    "sparsebev/full_model": check_full_model,
}
