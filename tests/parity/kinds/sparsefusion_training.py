"""SparseFusion: targets, losses and boxes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sparse3d.decoding.sparsefusion import CandidateHeat, SparseFusionDecoder, decode_boxes
from sparse3d.decoding.transfusion import Queries
from sparse3d.encoding.camera_geometry import LEVEL
from sparse3d.models import GroundTruth
from sparse3d.models.heads.sparsefusion_camera import CameraPredictions, ImageQueries
from sparse3d.models.heads.sparsefusion_layers import Predictions
from sparse3d.models.heads.sparsefusion_losses import SparseFusionLoss, decode_camera_boxes
from sparse3d.models.heads.sparsefusion_output import SparseFusionOutput
from sparse3d.models.losses import gaussian_focal_loss
from sparse3d.models.targets.camera_truth import CameraTruth
from sparse3d.models.targets.sparsefusion_targets import Matches, encode_boxes, encode_camera_boxes
from sparse3d.structures import Boxes3D
from sparse3d_ops import iou_3d

from ..cases import Case
from ..compare import Comparison, match_rows
from .sparsefusion import cameras_of, dense_images, grid_of, head_of, inputs_of, their_codes

BRANCHES = ("center", "height", "dim", "rot", "vel")
CAMERA_BRANCHES = ("center", "depth", "dim", "rot", "vel")
SAME = 1e-6
CIRCLES = {0: 0.35, 1: 0.35, 2: 0.35, 3: 0.35, 4: 0.35, 5: 0.175, 6: 0.1, 8: 0.1, 9: 0.1}  # in their code, by label


# -- boxes -----------------------------------------------------------------------------------------------------------


def from_legacy(boxes: Tensor) -> Boxes3D:
    """``(x, y, bottom z, w, l, h, r, vx, vy)`` with r clockwise -> our boxes."""
    x, y, z, width, length, height, r = boxes[:, :7].unbind(1)
    return Boxes3D(
        torch.cat(
            [torch.stack([x, y, z + height / 2, length, width, height, -r - torch.pi / 2], dim=1), boxes[:, 7:]], dim=1
        )
    )


def to_legacy(boxes: Tensor) -> Tensor:
    """``from_legacy`` the other way round, headings in [-pi, pi)."""
    x, y, z, length, width, height, yaw = boxes[:, :7].unbind(1)
    r = torch.remainder(-yaw - torch.pi / 2 + torch.pi, 2 * torch.pi) - torch.pi
    return torch.cat([torch.stack([x, y, z - height / 2, width, length, height, r], dim=1), boxes[:, 7:]], dim=1)


def from_legacy_camera(boxes: Tensor) -> Boxes3D:
    """``(x, bottom y, z, l, h, w, psi, vx, vz)`` of a camera frame -> our boxes in its level frame."""
    x, y, z, length, height, width, psi = boxes[:, :7].unbind(1)
    return Boxes3D(
        torch.cat([torch.stack([x, z, height / 2 - y, length, width, height, -psi], dim=1), boxes[:, 7:]], dim=1)
    )


def to_legacy_camera(boxes: Tensor) -> Tensor:
    """``from_legacy_camera`` the other way round, headings in [-pi, pi)."""
    x, ahead, z, length, width, height, yaw = boxes[:, :7].unbind(1)
    psi = torch.remainder(-yaw + torch.pi, 2 * torch.pi) - torch.pi
    return torch.cat([torch.stack([x, height / 2 - z, ahead, length, height, width, psi], dim=1), boxes[:, 7:]], dim=1)


def predictions_of(pred: Mapping[str, Tensor], suffix: str = "", rows: slice = slice(None)) -> Predictions:
    """Their predictions ``[B, D, Q]`` as ours."""
    codes = their_codes({name: pred[f"{name}{suffix}"].transpose(1, 2)[:, rows] for name in BRANCHES})
    return Predictions(codes, pred[f"heatmap{suffix}"].transpose(1, 2)[:, rows])


def camera_predictions_of(pred: Mapping[str, Tensor]) -> CameraPredictions:
    codes = {name: pred[f"{name}_2d"].transpose(1, 2) for name in CAMERA_BRANCHES}
    codes["dim"] = codes["dim"][..., [0, 2, 1]]
    codes["rot"] = codes["rot"] * codes["rot"].new_tensor([-1.0, 1.0])
    places = pred["loc_cam_3d"].transpose(1, 2)
    return CameraPredictions(codes, pred["cls"].transpose(1, 2), places @ places.new_tensor(LEVEL).T, pred["view"])


# -- training --------------------------------------------------------------------------------------------------------


def check_targets_and_loss(case: Case) -> None:
    comparison, inputs = Comparison(case), inputs_of(case)
    head = head_of(case)
    pred = {name.removeprefix("pred/"): value for name, value in inputs.items() if name.startswith("pred/")}
    leaves = {name: value.requires_grad_() for name, value in pred.items() if value.is_floating_point()}
    truth, visible = _truth(inputs)
    seen = truth[visible]
    by_camera = _camera_truth(inputs)
    output = _output(pred, inputs, head.num_queries)
    loss = head.criterion

    matches = {
        "lidar": loss.match(output.lidar, truth),
        "fusion": loss.match(output.fusion, truth),
        "view": loss.match(output.view, seen),
        "camera": loss.match_cameras(output.camera, by_camera),
    }
    tables = {"": _check_lidar_targets(comparison, loss, matches["lidar"], matches["fusion"], truth)}
    tables["_view"] = _check_targets(comparison, "_view", matches["view"], _codes_of(loss, seen), BRANCHES)
    own = _own_view(output.camera, matches["camera"], by_camera)
    camera_codes = encode_camera_boxes(by_camera, output.cameras.image_size)
    camera_codes["dim"] = camera_codes["dim"][:, [0, 2, 1]]
    camera_codes["rot"] = camera_codes["rot"] * camera_codes["rot"].new_tensor([-1.0, 1.0])
    tables["_2d"] = _check_targets(comparison, "_2d", matches["camera"], camera_codes, CAMERA_BRANCHES, own)
    shapes = [tuple(level.shape[-2:]) for level in output.image_heatmaps]
    drawn = loss.assigner.draw_images(by_camera, head.num_classes, shapes, *output.cameras.sizes.shape[:2])
    comparison.output("target/heatmap_2d", dense_images(drawn))
    comparison.output("target/heatmap", loss.assigner.draw(truth, head.num_classes))
    _check_boxes(comparison, loss, output, truth, by_camera)
    _check_assignment(comparison, "lidar", matches["lidar"], truth.batch_index)
    _check_assignment(comparison, "camera", matches["camera"], by_camera.batch_index)
    _check_losses(comparison, loss, output, matches, truth, seen, by_camera)
    _check_gradients(comparison, leaves, tables)
    comparison.finish()


def _truth(inputs: Mapping[str, Tensor]) -> tuple[GroundTruth, Tensor]:
    boxes = _of_samples(inputs, "gt_bboxes_3d")
    labels, visible = (torch.cat(_of_samples(inputs, name)) for name in ("gt_labels_3d", "gt_visible"))
    owners = torch.repeat_interleave(torch.tensor([len(each) for each in boxes]))
    return GroundTruth(from_legacy(torch.cat(boxes)), labels, owners, len(boxes)), visible == 1


def _of_samples(inputs: Mapping[str, Tensor], name: str) -> list[Tensor]:
    """What the fixture has of each sample's truth."""
    count = sum(key.endswith("/gt_labels_3d") for key in inputs)
    return [inputs[f"gt{n}/{name}"] for n in range(count)]


def _camera_truth(inputs: Mapping[str, Tensor]) -> CameraTruth:
    def both(name: str) -> Tensor:
        return torch.cat(_of_samples(inputs, name))

    labels = both("gt_labels")
    return CameraTruth(
        objects=torch.arange(len(labels)),
        views=labels[:, 1],
        boxes=from_legacy_camera(both("gt_bboxes_cam_view")),
        pixels=both("gt_img_centers_view")[:, :2],
        rectangles=torch.nn.functional.pad(both("gt_bboxes")[:, 2:], (2, 0)),
        labels=labels[:, 0],
        batch_index=torch.repeat_interleave(torch.tensor([len(each) for each in _of_samples(inputs, "gt_labels")])),
    )


def _output(pred: Mapping[str, Tensor], inputs: Mapping[str, Tensor], num_queries: int) -> SparseFusionOutput:
    cameras = cameras_of(inputs)
    height, width = cameras.image_size
    heatmaps = pred["img_dense_heatmap"].transpose(1, 2)
    shapes = [(height // stride, width // stride) for stride in (4, 8, 16, 32)]
    levels = heatmaps.split([h * w for h, w in shapes], dim=3)
    return SparseFusionOutput(
        heatmap=pred["dense_heatmap"],
        image_heatmaps=[level.unflatten(3, shape) for level, shape in zip(levels, shapes, strict=True)],
        lidar_queries=Queries(*(torch.empty(0),) * 3),
        camera_queries=ImageQueries(*(torch.empty(0),) * 4),
        lidar=predictions_of(pred, rows=slice(num_queries)),
        camera=camera_predictions_of(pred),
        view=predictions_of(pred, "_view"),
        fusion=predictions_of(pred, rows=slice(num_queries, None)),
        cameras=cameras,
    )


def _codes_of(loss: SparseFusionLoss, truth: GroundTruth) -> dict[str, Tensor]:
    return their_codes(encode_boxes(truth.boxes, loss.grid))


def _own_view(camera: CameraPredictions, matches: Matches, truth: CameraTruth) -> Tensor:
    return camera.views.flatten()[matches.queries] == truth.views[matches.objects]


def _table(matches: Matches, codes: Mapping[str, Tensor], names: tuple[str, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Their tables of targets, of matched rows and of IoUs, a row a query."""
    wanted = torch.cat([codes[name] for name in names], dim=1)[matches.objects]
    table, matched = wanted.new_zeros(matches.labels.numel(), 10), torch.zeros(matches.labels.numel(), dtype=torch.bool)
    ious = wanted.new_full((matches.labels.numel(),), -1.0)
    table[matches.queries], matched[matches.queries], ious[matches.queries] = wanted, True, matches.ious
    shape = matches.labels.shape
    return table.view(*shape, 10), matched.view(shape), ious.view(shape)


def _check_targets(
    comparison: Comparison,
    suffix: str,
    matches: Matches,
    codes: Mapping[str, Tensor],
    names: tuple[str, ...],
    counted: Tensor | None = None,
) -> Tensor:
    table, matched, ious = _table(matches, codes, names)
    used = matched.clone()
    label_weights = torch.ones_like(matches.labels)
    if counted is not None:
        used.view(-1)[matches.queries] = counted
        label_weights.view(-1)[matches.queries] = counted.long()
    comparison.output(f"target/labels{suffix}", matches.labels)
    comparison.output(f"target/label_weights{suffix}", label_weights)
    comparison.output(f"target/bbox_targets{suffix}", table)
    comparison.output(f"target/bbox_weights{suffix}", used[..., None].expand(-1, -1, 10).float())
    comparison.output(f"target/num_pos_layer{suffix}", matched.sum(dim=1)[:, None])
    comparison.output(f"target/matched_ious{suffix}", ious)
    comparison.output(f"target/ious{suffix}", ious.clamp(min=0))
    return table


def _check_lidar_targets(
    comparison: Comparison, loss: SparseFusionLoss, lidar: Matches, fusion: Matches, truth: GroundTruth
) -> Tensor:
    codes = _codes_of(loss, truth)
    tables = [_table(each, codes, BRANCHES) for each in (lidar, fusion)]
    table, matched, ious = (torch.cat(parts, dim=1) for parts in zip(*tables, strict=True))
    comparison.output("target/labels", torch.cat([lidar.labels, fusion.labels], dim=1))
    comparison.output("target/label_weights", torch.ones(matched.shape, dtype=torch.int64))
    comparison.output("target/bbox_targets", table)
    comparison.output("target/bbox_weights", matched[..., None].expand(-1, -1, 10).float())
    comparison.output("target/matched_ious", ious)
    comparison.output("target/ious", ious.clamp(min=0))
    comparison.output("target/num_pos_layer", torch.stack([each[1].sum(dim=1) for each in tables], dim=1))
    return table


def _check_boxes(
    comparison: Comparison,
    loss: SparseFusionLoss,
    output: SparseFusionOutput,
    truth: GroundTruth,
    by_camera: CameraTruth,
) -> None:
    """Decoded and encoded boxes and overlaps, sample by sample."""
    decoded = torch.cat([decode_boxes(each.codes, loss.grid) for each in (output.lidar, output.fusion)], dim=1).detach()
    in_cameras = decode_camera_boxes(output.camera)
    codes, camera_codes = _codes_of(loss, truth), _legacy_camera_codes(by_camera)
    for n in range(truth.batch_size):
        comparison.output(f"decoded_lidar_{n}", to_legacy(decoded[n]))
        comparison.output(f"decoded_camera_{n}", to_legacy_camera(in_cameras[n]))
        own, seen = truth.batch_index == n, by_camera.batch_index == n
        comparison.output(f"encoded_lidar_gt_{n}", torch.cat([codes[name][own] for name in BRANCHES], dim=1))
        comparison.output(f"encoded_camera_gt_{n}", camera_codes[seen])
        comparison.output(f"iou_lidar_{n}", iou_3d(decoded[n, :, :7], truth.boxes.tensor[own, :7]))
        comparison.output(f"iou_camera_{n}", iou_3d(in_cameras[n, :, :7], by_camera.boxes.tensor[seen, :7]))


def _legacy_camera_codes(truth: CameraTruth) -> Tensor:
    """Centres ``(x, y, z)`` of the usual camera frames, log sizes, ``(sin, cos)`` and velocities ``[M, 10]``."""
    x, y, z, length, height, width, psi = to_legacy_camera(truth.boxes.tensor)[:, :7].unbind(1)
    codes = [x, y - height / 2, z, length.log(), height.log(), width.log(), psi.sin(), psi.cos()]
    return torch.cat([torch.stack(codes, dim=1), truth.boxes.velocities], dim=1)


def _check_assignment(comparison: Comparison, kind: str, matches: Matches, batch_index: Tensor) -> None:
    """The number of each query's object in its sample from 1, and their overlap."""
    numbers, overlaps = (torch.zeros(matches.labels.numel(), dtype=dtype) for dtype in (torch.int64, torch.float32))
    first = torch.searchsorted(batch_index, batch_index[matches.objects])
    numbers[matches.queries], overlaps[matches.queries] = matches.objects - first + 1, matches.ious
    for n, (own, overlap) in enumerate(
        zip(numbers.view_as(matches.labels), overlaps.view_as(matches.labels), strict=True)
    ):
        comparison.output(f"assign_{kind}/gt_inds_{n}", own)
        comparison.output(f"assign_{kind}/max_overlaps_{n}", overlap)


def _mean_iou(matches: Matches, eps: float = 0.0) -> Tensor:
    """The mean over samples of the mean IoU of their matches."""
    samples = matches.queries // matches.labels.shape[1]
    total = torch.zeros(len(matches.labels)).index_add(0, samples, matches.ious)
    return (total / (samples.bincount(minlength=len(total)) + eps)).mean()


def _check_losses(
    comparison: Comparison,
    loss: SparseFusionLoss,
    output: SparseFusionOutput,
    matches: Mapping[str, Matches],
    truth: GroundTruth,
    seen: GroundTruth,
    by_camera: CameraTruth,
) -> None:
    losses = {
        "loss_heatmap": ("heatmap", gaussian_focal_loss(output.heatmap, loss.assigner.draw(truth, 10))),
        "loss_heatmap_2d": ("image_heatmap", loss.of_image_heatmaps(output, by_camera)),
    }
    for part, theirs, objects in (
        ("lidar", "layer_pts_0", truth),
        ("fusion", "layer_fusion_0", truth),
        ("view", "view", seen),
    ):
        classes, boxes = loss.of_boxes(getattr(output, part), matches[part], objects)
        comparison.output(f"loss/{theirs}_matched_ious", _mean_iou(matches[part]))
        losses[f"{theirs}_loss_cls"], losses[f"{theirs}_loss_bbox"] = (f"{part}_class", classes), (f"{part}_box", boxes)
    for name, value in loss.of_camera(output.camera, by_camera, output.cameras.image_size).items():
        theirs = name.replace("camera_", "").replace("class", "cls")
        losses[f"layer_img_0_loss_{theirs}_2d"] = (name, value)
    weighted = {theirs: loss.weights[ours] * value for theirs, (ours, value) in losses.items()}
    for theirs, value in weighted.items():
        comparison.output(f"loss/{theirs}", value)
    boxes_2d = [value for name, value in weighted.items() if name.endswith("_2d") and name.startswith("layer")]
    comparison.output("loss/layer_img_0_reg_bbox_2d", sum(boxes_2d) - weighted["layer_img_0_loss_cls_2d"])
    comparison.output("loss/layer_img_0_matched_ious_2d", _mean_iou(matches["camera"], eps=0.01))
    comparison.output("loss_total", sum(weighted.values()))
    sum(weighted.values()).backward()


def _check_gradients(comparison: Comparison, leaves: Mapping[str, Tensor], tables: Mapping[str, Tensor]) -> None:
    """Compare the gradients of predictions.

    Where a prediction equals its target, rounding decides which way an L1 loss pulls: there theirs is taken.
    """
    targets = {}
    for suffix, table in tables.items():
        names = CAMERA_BRANCHES if suffix == "_2d" else BRANCHES
        sizes = [leaves[f"{name}{suffix}"].shape[1] for name in names]
        parts = table.transpose(1, 2).split(sizes, dim=1)
        targets.update({f"{name}{suffix}": part for name, part in zip(names, parts, strict=True)})
    for name, leaf in leaves.items():
        place = f"grad/@pred/{name}"
        if place in comparison.left:
            ours = leaf.grad
            if name in targets:
                met = (leaf.detach() - targets[name]).abs() < SAME
                ours = ours.where(~met, torch.from_numpy(comparison.case.arrays[place]))
            comparison.gradient(place, ours)


# -- boxes of a detector ---------------------------------------------------------------------------------------------


def check_post_process(case: Case) -> None:
    comparison, inputs, config = Comparison(case), inputs_of(case), case.config["config"]
    pred = {name.removeprefix("pred/"): value for name, value in inputs.items() if name.startswith("pred/")}
    fusion = predictions_of(pred, rows=slice(-config["num_proposals"] - config["num_img_proposals"], None))
    classes = [str(number) for number in range(config["num_classes"])]
    labels, camera_labels = inputs["query_labels"], inputs["img_query_label"]

    def heat_of(name: str, labels: Tensor) -> Tensor:
        return pred[name].gather(1, labels[:, None])[:, 0]

    heat = CandidateHeat.join(
        labels,
        heat_of("query_heatmap_score", labels),
        camera_labels,
        heat_of("img_query_heatmap_score", camera_labels),
        pred["cls"].transpose(1, 2),
    )
    decoder = SparseFusionDecoder(
        classes,
        config["bbox_coder"]["post_center_range"],
        {classes[label]: threshold for label, threshold in CIRCLES.items()},
    )
    (found,) = decoder.decode(fusion.codes, fusion.logits, heat, grid_of(case.config))
    ours = to_legacy(found.boxes.tensor)
    rows = match_rows(found.scores[:, None].numpy().round(6), case.arrays["out/scores"][:, None].round(6))
    comparison.output("bboxes", ours[rows])
    comparison.output("scores", found.scores[rows])
    comparison.output("labels", found.labels[rows])
    comparison.finish()


KINDS = {
    "sparsefusion/targets_and_loss": check_targets_and_loss,
    "sparsefusion/post_process": check_post_process,
}
