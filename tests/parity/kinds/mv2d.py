"""MV2D: regions and their cameras, queries, positions, correlation, decoder, denoising, losses, both heads."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sparse3d.checkpoints import mv2d as names
from sparse3d.checkpoints.convert import Rules
from sparse3d.decoding.image_boxes import ImageDetections
from sparse3d.encoding.related_rois import related_rois
from sparse3d.encoding.roi_looks import touched_cells
from sparse3d.encoding.rois import RoIs, Views
from sparse3d.models.heads.mv2d_decoder import MV2DDecoderLayer
from sparse3d.models.heads.mv2d_head import MV2DHead, MV2DOutput
from sparse3d.models.heads.mv2d_memory import Memory
from sparse3d.models.heads.mv2d_position import PositionEncoding
from sparse3d.models.heads.mv2d_queries import QueryGenerator, lift
from sparse3d.models.targets.ground_truth import GroundTruth
from sparse3d.structures import Boxes3D, Cameras
from sparse3d_ops import roi_align

from ..cases import Case
from ..compare import Comparison, assert_equal, load_state, section, tensors

CLASSES = [str(number) for number in range(10)]
POINT_RANGE = [-51.2, -51.2, -5.0, 51.2, 51.2, 3.0]  # of all published configs
CENTER_RANGE = [-61.2, -61.2, -10.0, 61.2, 61.2, 10.0]


def inputs_of(case: Case) -> dict[str, Tensor]:
    return tensors(section(case, "in"))


def prepare(case: Case, module: nn.Module, rules: Rules) -> Comparison:
    load_state(case, module, rules)
    module.eval()
    return Comparison(case, rules)


def cameras_of(inputs: dict[str, Tensor]) -> Cameras:
    """Their calibration is of the network's input; their extrinsics are transposed, their times backward."""
    count = len(inputs["intrinsics"])
    return Cameras.create(
        [str(number) for number in range(count)],
        inputs["intrinsics"][:, :3, :3],
        inputs["extrinsics"].mT,
        inputs["pad_hw"].expand(count, 2),
        -inputs["timestamp"],
    )


def views_of(inputs: dict[str, Tensor]) -> Views:
    return Views.of([cameras_of(inputs)], tuple(inputs["pad_hw"].tolist()), torch.device("cpu"))


def detections_of(inputs: dict[str, Tensor]) -> ImageDetections:
    count = len(inputs["intrinsics"])
    found = [inputs[f"proposals/{number}"] for number in range(count)]
    images = torch.arange(count).repeat_interleave(torch.tensor([len(each) for each in found]))
    table = torch.cat(found)
    return ImageDetections(table[:, :4], table[:, 5].long(), images, count, table[:, 4])


def rois_of(inputs: dict[str, Tensor]) -> RoIs:
    return RoIs.gather(detections_of(inputs), views_of(inputs).seeing)


# -- geometry ------------------------------------------------------------------------------------------------------


def check_roi_align(case: Case) -> None:
    comparison, inputs = Comparison(case), inputs_of(case)
    rois = inputs["rois"]
    comparison.output("y", roi_align(inputs["x"], rois[:, 1:], rois[:, 0].long(), 7, 1 / 16))
    comparison.finish()


def check_box_params(case: Case) -> None:
    comparison, inputs = Comparison(case), inputs_of(case)
    rois, views = rois_of(inputs), views_of(inputs)
    comparison.output("rois", torch.cat([rois.views[0, :, None], rois.boxes[0]], dim=1))
    cameras = rois.cameras(views, 7)
    comparison.output("box_intrinsics", cameras[0])
    comparison.output("box_extrinsics", rois.pick(views.lidar2cam)[0].mT)
    comparison.output("intrinsic_feature", rois.camera_features(cameras)[0])
    comparison.finish()


def check_correlation(case: Case) -> None:
    comparison, inputs = Comparison(case), inputs_of(case)
    rois, views = rois_of(inputs), views_of(inputs)
    for prefix in sorted({name.split("/")[1] for name in case.arrays if name.startswith("out/")}):
        mode, margin = prefix.split("_expand")
        top_k = None if mode == "all_matched" else int(mode.split("_")[2])
        related = related_rois(rois, views, top_k)
        ids, shown = (comparison.take(f"out/{prefix}/{name}") for name in ("corr", "mask"))
        theirs = np.zeros((len(ids), len(ids)), dtype=bool)
        row, column = np.nonzero(shown)
        theirs[row, ids[row, column]] = True
        assert_equal(f"{prefix}: related regions", related[0], theirs)
        cells = touched_cells(
            rois, len(views.seeing[0]), inputs["feat_hw"].tolist(), int(inputs["stride"]), int(margin)
        )
        seen = (related[0].float() @ cells[0].flatten(1).float() > 0).view_as(cells[0])
        comparison.output(f"{prefix}/feat_mask", seen)
    comparison.finish()


# -- parts of the head -----------------------------------------------------------------------------------------------


def check_query_generator(case: Case) -> None:
    config, inputs = case.config["config"], inputs_of(case)
    generator = _query_generator(config)
    comparison = prepare(case, generator, names.QUERIES)
    encoded = []
    generator.encoder.register_forward_hook(lambda module, given, output: encoded.append(output))
    features = inputs["roi_feats"].requires_grad_()
    centers = generator(features, inputs["intrinsic_feature"])
    points = lift(centers, torch.linalg.inv(inputs["box_intrinsics"] @ inputs["box_extrinsics"].mT).float())
    comparison.output("encoded", encoded[0])
    comparison.output("center_pred", centers)
    comparison.output("reference_points_lidar", points)
    (points * inputs["loss_weight"]).sum().backward()
    comparison.output("grad_roi_feats", features.grad)
    comparison.gradients(generator)
    comparison.finish()


def _query_generator(config: dict[str, Any]) -> QueryGenerator:
    assert config["with_avg_pool"] and config["num_shared_convs"] == config["num_shared_fcs"] == 1
    assert config["in_channels"] == config["conv_out_channels"]
    hidden = tuple(config["extra_encoding"]["feat_channels"])
    return QueryGenerator(config["in_channels"], config["fc_out_channels"], hidden)


def check_position_encoding(case: Case) -> None:
    config, inputs = case.config["config"], inputs_of(case)
    encoding = _position_encoding(config)
    comparison = prepare(case, encoding, names.POSITIONS)
    with torch.no_grad():
        comparison.output("pe", encoding(inputs["feat"][None], views_of(inputs))[0])
    head = MV2DHead(_grid(), CLASSES, dict(center_range=CENTER_RANGE), channels=config["embed_dims"], num_layers=1)
    comparison.output("pos2posemb3d", head.embed(inputs["points01"]))
    comparison.finish()


def _position_encoding(config: dict[str, Any]) -> PositionEncoding:
    sine = config["positional_encoding"]
    assert config["with_fpe"] and sine["normalize"] and sine["num_feats"] == config["embed_dims"] // 2
    return PositionEncoding(config["embed_dims"], config["position_range"], *config["strides"], config["depth_num"])


def check_decoder_layer(case: Case) -> None:
    config, inputs = case.config["config"], inputs_of(case)
    layer = MV2DDecoderLayer(config["embed_dims"], config["num_heads"], config["ffn"], 0.0)
    comparison = prepare(case, layer, names.LAYER)
    queries, keys = (inputs[name].requires_grad_() for name in ("query", "key"))
    hidden = inputs["cross_attn_mask"][None] | inputs["key_padding_mask"][:, None]
    memory = Memory(keys.transpose(0, 1), inputs["key_pos"].transpose(0, 1), hidden)
    output = layer(queries.transpose(0, 1), inputs["query_pos"].transpose(0, 1), memory).transpose(0, 1)
    comparison.output("y", output)
    (output * inputs["loss_weight"]).sum().backward()
    comparison.output("grad_query", queries.grad)
    comparison.output("grad_key", keys.grad)
    comparison.gradients(layer)
    comparison.finish()


# -- training ------------------------------------------------------------------------------------------------------


def check_denoising(case: Case) -> None:
    config, comparison, inputs = case.config["config"], Comparison(case), inputs_of(case)
    head = _plain_head(config["groups"], config["noise_scale"], config["split"])
    truth = _truth(inputs)
    made = head.noisy_from(truth, inputs["noise/uniform01"] * 2 - 1)
    references = inputs["reference_points"][None]
    count = references.shape[1]
    memory = Memory(torch.zeros(1, 1, 32), torch.zeros(1, 1, 32), torch.zeros(1, count, 1, dtype=torch.bool))
    padded, _, hidden = head._prepend(made, references, memory, torch.ones(1, count, dtype=torch.bool))
    comparison.output("pad_size", made.num_slots)
    comparison.output("padded_reference_points", padded)
    comparison.output("attn_mask", hidden[0])
    comparison.output("known_labels", made.labels)
    comparison.output("known_bboxes", truth.boxes.tensor[made.objects])
    comparison.finish()


def check_head_loss(case: Case) -> None:
    comparison, inputs = Comparison(case), inputs_of(case)
    truth, labels = _truth(inputs), inputs["dn_known_labels"]
    names_of = ("cls_scores", "bbox_preds", "dn_cls", "dn_bbox")
    for suffix, with_background in (("", True), ("_noneg", False)):
        head = _plain_head(len(labels) // len(truth.labels), 1.25, 0.6, background_boxes=with_background)
        assert_equal("code_weights", head.code_weights, case.arrays["in/code_weights"])
        made = head.noisy_from(truth, torch.zeros(len(labels), 3))
        made = type(made)(**{**vars(made), "labels": labels})
        leaves = {name: inputs[name].clone().requires_grad_() for name in names_of}
        logits, codes = (
            torch.cat([leaves[f"dn_{kind}"], leaves[own]])[None, None]
            for kind, own in (("cls", "cls_scores"), ("bbox", "bbox_preds"))
        )
        valid = torch.ones(1, len(leaves["cls_scores"]), dtype=torch.bool)
        losses = head.loss_from_output(MV2DOutput(logits, codes, valid), truth, made)
        losses = {name: 10 * value for name, value in losses.items()}  # before the weight of a layer
        comparison.output(f"dn_loss_cls{suffix}", losses["loss_class_dn"])
        comparison.output(f"dn_loss_bbox{suffix}", losses["loss_box_dn"])
        if with_background:
            comparison.output("loss_cls", losses["loss_class"])
            comparison.output("loss_bbox", losses["loss_box"])
            sum(losses.values()).backward()
            for name, theirs in zip(names_of, ("cls", "bbox", "dn_cls", "dn_bbox"), strict=True):
                comparison.output(f"grad_{theirs}", leaves[name].grad)
    comparison.finish()


def _plain_head(groups: int, noise: float, split: float, *, background_boxes: bool = True) -> MV2DHead:
    denoising = dict(num_groups=groups, center_noise=noise, farthest=split, background_boxes=background_boxes)
    return MV2DHead(
        _grid(),
        CLASSES,
        dict(center_range=CENTER_RANGE),
        keys="cells",
        channels=32,
        num_layers=1,
        denoising=denoising,
    )


def _truth(inputs: dict[str, Tensor]) -> GroundTruth:
    labels = inputs["gt_labels"]
    return GroundTruth(Boxes3D(inputs["gt_bboxes_gravity_center"]), labels, torch.zeros_like(labels), 1)


def _grid() -> dict[str, Any]:
    """Their head knows no voxels; one fills the range."""
    sides = [high - low for low, high in zip(POINT_RANGE[:3], POINT_RANGE[3:], strict=True)]
    return dict(point_range=POINT_RANGE, voxel_size=sides)


# -- heads -----------------------------------------------------------------------------------------------------------


def head_of(config: dict[str, Any]) -> MV2DHead:
    """Our config of their head; denoising is not a part of inference."""
    box_head, positions, generator = config["bbox_head"], config["pe"], config["query_generator"]
    decoder, coder = box_head["transformer"]["decoder"], box_head["bbox_coder"]
    layer, channels = decoder["transformerlayers"], box_head["embed_dims"]
    mode = config["box_correlation"]["correlation_mode"].split(":")
    assert mode[0] == "topk_matched" and mode[2:] == ["0.0", "0.0"]
    assert config["pc_range"] == POINT_RANGE and config["train_cfg"]["stage_loss_weights"][0] == 0.1
    by_cells = config["type"] == "MV2DTHead"
    return MV2DHead(
        _grid(),
        CLASSES,
        dict(center_range=coder["post_center_range"], top_k=coder["max_num"], score_threshold=0.0),
        position_range=positions["position_range"],
        keys="cells" if by_cells else "regions",
        top_k=int(mode[1]),
        margin=config["box_correlation"]["expand_stride"],
        num_frames=2 if by_cells else 1,
        in_channels=channels,
        channels=channels,
        num_layers=decoder["num_layers"],
        layer=dict(
            num_heads=layer["attn_cfgs"][0]["num_heads"],
            ffn_channels=layer["feedforward_channels"],
            dropout=layer["ffn_dropout"],
        ),
        queries=dict(
            fc_channels=generator["fc_out_channels"],
            hidden_channels=generator["extra_encoding"]["feat_channels"],
        ),
        num_depths=positions["depth_num"],
        code_weights=box_head["code_weights"],
    )


def _prepare_head(case: Case, state: Case) -> tuple[MV2DHead, Comparison]:
    """The fixtures have heads without the neck."""
    head = head_of(case.config["head_config"])
    neck, head.neck = head.neck, nn.Identity()
    load_state(state, head, names.HEAD)
    head.neck = neck
    return head.eval(), Comparison(case)


def check_single_frame(case: Case) -> None:
    head, comparison = _prepare_head(case, case)
    inputs = inputs_of(case)
    output, parts = _run(head, inputs)
    comparison.output("reference_points", parts["references"].transpose(0, 1))
    keys, hidden = parts["memory"].keys, parts["memory"].hidden
    theirs, blocked = (comparison.take(f"out/{name}") for name in ("kv", "kv_mask"))
    count = theirs.shape[1]
    hidden = hidden[:, 0].unflatten(1, (count, 7, 7)).numpy()
    assert_equal("kv_mask", hidden, blocked)
    keys = keys[: len(theirs)].unflatten(1, (count, 7, 7)).movedim(-1, 2)
    seen = torch.from_numpy(~blocked[: len(theirs), :, None])
    comparison.close("kv", keys.where(seen, 0), np.where(seen, theirs, 0))  # what fills up differs
    comparison.output("all_cls_scores", output.logits.transpose(1, 2))
    comparison.output("all_bbox_preds", output.codes.transpose(1, 2))
    check_detections(comparison, head, output)
    comparison.finish()


def check_two_frames(case: Case) -> None:
    state = Case(
        "mv2d/single_frame_head", case.json_path.with_name(f"single_frame_head{case.json_path.stem[-2:]}.json")
    )
    head, comparison = _prepare_head(case, state)
    inputs = inputs_of(case)
    output, parts = _run(head, inputs)
    comparison.output("reference_points", parts["references"])
    comparison.output("num_kv", parts["memory"].keys.shape[1])
    comparison.output("cross_attn_mask", parts["memory"].hidden[0])
    comparison.output("all_cls_scores", output.logits)
    comparison.output("bbox_preds_with_time", output.codes[:, 0])
    head.num_frames = 1
    raw = _run(head, inputs)[0]
    comparison.output("all_bbox_preds_raw", raw.codes)
    check_detections(comparison, head, output)
    comparison.finish()


@torch.no_grad()
def _run(head: MV2DHead, inputs: dict[str, Tensor]) -> tuple[MV2DOutput, dict[str, Any]]:
    views, rois, x = views_of(inputs), rois_of(inputs), inputs["feat"][None]
    maps = torch.cat([x, head.position_encoding(x, views)], dim=2)
    regions = head._pool(maps, rois)
    parts = {
        "references": head.place(regions, *rois.describe(views, 7)),
        "memory": head.look_up(maps, regions, head.looks(views, rois, x.shape[3:])),
    }
    return head.decode(x, views, rois, [cameras_of(inputs)]), parts


def check_detections(comparison: Comparison, head: MV2DHead, output: MV2DOutput) -> None:
    """Scores may tie, so detections are matched by box and class."""
    [found] = head.predict_from_output(output)
    theirs = comparison.take("out/det/bboxes")
    labels = comparison.take("out/det/labels")
    boxes = found.boxes.to_mmdet3d()
    assert len(boxes) == len(theirs), f"det: {len(boxes)} detections, expected {len(theirs)}"
    tables = np.c_[theirs, 1e3 * labels], np.c_[boxes.numpy(), 1e3 * found.labels.numpy()]
    match = np.abs(tables[0][:, None] - tables[1][None]).max(axis=2).argmin(axis=1)
    assert_equal("det: rows of ours that theirs are nearest to", np.sort(match), np.arange(len(labels)))
    comparison.close("det/bboxes", boxes[match], theirs)
    assert_equal("det/labels", found.labels[match], labels)
    comparison.output("det/scores", found.scores[match])


KINDS = {
    "mv2d/roi_align": check_roi_align,
    "mv2d/box_params": check_box_params,
    "mv2d/box_correlation": check_correlation,
    "mv2d/query_generator": check_query_generator,
    "mv2d/position_encoding": check_position_encoding,
    "mv2d/decoder_layer": check_decoder_layer,
    "mv2d/dn_prepare": check_denoising,
    "mv2d/head_loss": check_head_loss,
    "mv2d/single_frame_head": check_single_frame,
    "mv2d/two_frame_head": check_two_frames,
}
