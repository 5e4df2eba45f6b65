"""DSVT: voxel encoders, transformer, bird's-eye backbone, centre head."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sparse3d.checkpoints import dsvt as names
from sparse3d.decoding import Candidates
from sparse3d.models import (
    DSVT,
    CenterHead,
    DynamicVoxelEncoder,
    Features,
    Preprocessor,
    ResidualBEVBackbone,
    scatter_to_bev,
)
from sparse3d.structures import Boxes3D, Grid, InstanceData, Sample
from sparse3d_ops import LayoutIndex, StageIndex, WindowLayout, index_layout

from ..cases import Case
from ..compare import Comparison, assert_equal, batch_norm_trains, load_state, match_rows, tensors

POOLINGS = {"attention": "attention", "linear": "linear", "maxpool": "max"}


def _prepare(case: Case, module: nn.Module, rules: Any) -> Comparison:
    load_state(case, module, rules)
    module.train(batch_norm_trains(case.config["mode"]))
    return Comparison(case, rules)


def _inputs(case: Case) -> dict[str, Tensor]:
    return tensors({name[3:]: value for name, value in case.arrays.items() if name.startswith("in/")})


def _weighted(case: Case, output: Tensor) -> Tensor:
    return (output * torch.from_numpy(case.arrays["in/loss_weight"])).sum()


# -- voxel encoders ------------------------------------------------------------------------------------------------


def check_pillar_encoder(case: Case) -> None:
    _check_encoder(case, keep_outside_z=True)


def check_voxel_encoder(case: Case) -> None:
    _check_encoder(case, keep_outside_z=False)


def _check_encoder(case: Case, *, keep_outside_z: bool) -> None:
    config = case.config["config"]
    grid = Grid(config["point_cloud_range"], config["voxel_size"])
    assert list(grid.shape[::-1]) == list(config["grid_size"])
    encoder = DynamicVoxelEncoder(
        grid,
        config["num_point_features"],
        config["model_cfg"]["NUM_FILTERS"],
        with_distance=config["model_cfg"]["WITH_DISTANCE"],
    )
    comparison = _prepare(case, encoder, names.ENCODER)

    points = torch.from_numpy(case.arrays["in/points"])
    batch_size = int(points[:, 0].max()) + 1
    samples = [Sample() for _ in range(batch_size)]
    for number, sample in enumerate(samples):
        sample.points = points[points[:, 0] == number, 1:]
    preprocessor = Preprocessor(grid, config["num_point_features"], keep_outside_z=keep_outside_z)
    voxels = preprocessor(samples)["batch"].voxels

    features = encoder(voxels)
    rows = torch.from_numpy(match_rows(voxels.coords.numpy(), case.arrays["out/voxel_coords"]))
    comparison.output("voxel_coords", voxels.coords[rows])
    comparison.output("voxel_features", features[rows])
    _weighted(case, features[rows]).backward()
    comparison.gradients(encoder)
    comparison.finish()


# -- transformer ---------------------------------------------------------------------------------------------------


def check_transformer(case: Case) -> None:
    config = case.config["config"]
    backbone = _transformer(config)
    comparison = _prepare(case, backbone, names.BACKBONE)
    inputs = _inputs(case)
    features, coords = inputs["voxel_features"].requires_grad_(), inputs["voxel_coords"]
    batch_size = int(coords[:, 0].max()) + 1

    output, output_coords = backbone(features, coords, batch_size)
    rows = _match(output_coords, case.arrays["out/voxel_coords"])
    comparison.output("voxel_coords", output_coords[rows])
    comparison.output("voxel_features", output[rows])
    indices = _index_everything(backbone, coords, batch_size)
    _check_stages(comparison, backbone, indices)
    _check_positions(comparison, backbone, indices[0])
    _weighted(case, output[rows]).backward()
    comparison.gradients(backbone, voxel_features=features)
    comparison.finish()


def _transformer(config: dict[str, Any]) -> DSVT:
    layer = config["INPUT_LAYER"]
    strides = [[1, 1, 1], *layer["downsample_stride"]]
    stages = [
        dict(
            channels=layer["d_model"][s],
            num_heads=config["nhead"][s],
            ffn_channels=config["dim_feedforward"][s],
            num_blocks=layer["set_info"][s][1],
            set_size=layer["set_info"][s][0],
            window_shape=_zyx(layer["window_shape"][s]),
            shifts=tuple(_zyx(shift) for shift in layer["shifts_list"][s]),
            hybrid_factor=_zyx(layer["hybrid_factor"]),
            stride=_zyx(strides[s]),
        )
        for s in range(len(layer["d_model"]))
    ]
    return DSVT(
        Grid((0, 0, 0, *layer["sparse_shape"]), (1, 1, 1)),
        stages,
        activation=config["activation"],
        pooling=POOLINGS[config.get("reduction_type", "attention")],
        normalize_positions=layer["normalize_pos"],
    )


def _index_everything(backbone: DSVT, coords: Tensor, batch_size: int) -> list[StageIndex]:
    """The index work with sets in both layouts, also where no block uses one."""
    return [
        replace(
            index,
            layouts=tuple(
                index_layout(index.coords, shape, layout, spec.set_size, batch_size, with_sets=True)
                for layout in spec.layouts
            ),
        )
        for index, shape, spec in zip(backbone.index(coords, batch_size), backbone.shapes, backbone.specs, strict=True)
    ]


def _check_stages(comparison: Comparison, backbone: DSVT, indices: list[StageIndex]) -> None:
    """Compare the index work of every stage; ``theirs`` lists our row for each of their rows of the stage before."""
    theirs = torch.arange(len(indices[0].coords))
    for stage, (spec, index) in enumerate(zip(backbone.specs, indices, strict=True)):
        if index.pooling is not None:
            rows = _match(index.coords, comparison.case.arrays[f"out/voxel_coors_stage{stage}"])
            comparison.output(f"pooling_index_in_pool_stage{stage}", index.pooling.slot[theirs])
            comparison.output(f"pooling_mapping_index_stage{stage}", _inverse(rows)[index.pooling.parent[theirs]])
            theirs = rows
        comparison.output(f"voxel_coors_stage{stage}", index.coords[theirs])
        for number, each in enumerate(index.layouts):
            _check_layout(comparison, f"stage{stage}_shift{number}", each, spec.layouts[number], theirs)


def _check_layout(comparison: Comparison, tag: str, ours: LayoutIndex, layout: WindowLayout, rows: Tensor) -> None:
    in_window = layout.positions()[ours.cells].flip(1) + torch.tensor(layout.shape) / 2
    comparison.output(f"coors_in_win_{tag}", in_window[rows])
    to_theirs = _inverse(rows)
    comparison.output(f"set_voxel_inds_{tag}", torch.stack([to_theirs[each.index] for each in ours.sets]))
    comparison.output(f"set_voxel_mask_{tag}", torch.stack([each.mask for each in ours.sets]))


def _check_positions(comparison: Comparison, backbone: DSVT, index: StageIndex) -> None:
    """Compare the embeddings of the first voxels of the first stage, whose rows are in their order."""
    for block, module in enumerate(backbone.stages[0]):
        for layer, own in enumerate(module.layers):
            name = f"pos_embed_stage0_block{block}_shift{layer}"
            if comparison.has(name):
                count = len(comparison.case.arrays[f"out/{name}"])
                positions, cells = backbone.get_buffer(f"cells_0_{layer}"), index.layouts[layer].cells
                comparison.output(name, own.embed(positions, cells)[:count])


# -- bird's-eye backbone -------------------------------------------------------------------------------------------


def check_bev_backbone(case: Case) -> None:
    config = case.config["config"]
    model = config["model_cfg"]
    backbone = ResidualBEVBackbone(
        config["input_channels"],
        num_blocks=model["LAYER_NUMS"],
        strides=model["LAYER_STRIDES"],
        channels=model["NUM_FILTERS"],
        up_strides=model["UPSAMPLE_STRIDES"],
        up_channels=model["NUM_UPSAMPLE_FILTERS"],
    )
    comparison = _prepare(case, backbone, names.BEV)
    inputs = _inputs(case)
    width, height, _ = config["input_shape_xyz"]
    features = inputs["pillar_features"].requires_grad_()
    batch_size = len(inputs["loss_weight"])
    bev = scatter_to_bev(features, inputs["voxel_coords"], batch_size, (height, width))
    if comparison.has("spatial_features"):
        comparison.output("spatial_features", bev)
    output = backbone(bev)
    comparison.output("spatial_features_2d", output)
    _weighted(case, output).backward()
    comparison.gradients(backbone, pillar_features=features)
    comparison.finish()


# -- centre head ---------------------------------------------------------------------------------------------------


def check_center_head(case: Case) -> None:
    head = _center_head(case.config["config"])
    comparison = _prepare(case, head, names.CENTER_HEAD)
    inputs = _inputs(case)
    bev = inputs["spatial_features_2d"].requires_grad_()
    samples = [_sample(boxes) for boxes in inputs["gt_boxes"]]

    maps = head(Features(bev=bev))
    for task, own in enumerate(maps):
        for name, each in own.items():
            comparison.output(f"head{task}/{name}", each)
    _check_targets(comparison, head, samples)
    _check_losses(comparison, head, maps, samples)
    comparison.gradients(head, spatial_features_2d=bev)

    head.eval()
    with torch.no_grad():
        maps = head(Features(bev=bev))
        _check_candidates(comparison, head.candidates(maps), len(maps), len(samples))
        _check_detections(comparison, head.predict_from_maps(maps))
    comparison.finish()


def _center_head(config: dict[str, Any]) -> CenterHead:
    model = config["model_cfg"]
    branches = model["SEPARATE_HEAD_CFG"]["HEAD_DICT"]
    (num_convs,) = {branch["num_conv"] for branch in branches.values()}
    assigner, weights = model["TARGET_ASSIGNER_CONFIG"], model["LOSS_CONFIG"]["LOSS_WEIGHTS"]
    columns = sum(branches[name]["out_channels"] for name in model["SEPARATE_HEAD_CFG"]["HEAD_ORDER"])
    return CenterHead(
        Grid(config["point_cloud_range"], config["voxel_size"], assigner["FEATURE_MAP_STRIDE"]),
        class_names=config["class_names"],
        tasks=model["CLASS_NAMES_EACH_HEAD"],
        in_channels=config["input_channels"],
        shared_channels=model["SHARED_CONV_CHANNEL"],
        extra_branches=[name for name in ("vel", "iou") if name in branches],
        num_convs=num_convs,
        num_heatmap_convs=model["NUM_HM_CONV"],
        bias_before_norm=model.get("USE_BIAS_BEFORE_NORM", False),
        norm=dict(eps=model.get("BN_EPS", 1e-5), momentum=model.get("BN_MOM", 0.1)),
        targets=dict(
            overlap=assigner["GAUSSIAN_OVERLAP"],
            min_radius=assigner["MIN_RADIUS"],
            max_objects=assigner["NUM_MAX_OBJS"],
        ),
        loss_weights=dict(
            heatmap=weights["cls_weight"],
            box=weights["loc_weight"],
            diou=weights["loc_weight"] if model.get("IOU_REG_LOSS", False) else 0.0,
        ),
        code_weights=weights["code_weights"][:columns],
        decoder=_decoder(model["POST_PROCESSING"], len(config["class_names"])),
    )


def _decoder(config: dict[str, Any], num_classes: int) -> dict[str, Any]:
    nms = config["NMS_CONFIG"]
    by_class = nms["NMS_TYPE"] == "multi_class_nms"
    exponents = config.get("IOU_RECTIFIER") if config.get("USE_IOU_TO_RECTIFY_SCORE", False) else None
    if isinstance(exponents, float):
        exponents = [exponents] * num_classes
    return dict(
        center_range=config["POST_CENTER_LIMIT_RANGE"],
        top_k=config["MAX_OBJ_PER_SAMPLE"],
        score_threshold=config["SCORE_THRESH"],
        iou_exponents=exponents,
        nms_scope="class" if by_class else "task",
        nms_threshold=nms["NMS_THRESH"],
        nms_pre=nms["NMS_PRE_MAXSIZE"],
        nms_post=nms["NMS_POST_MAXSIZE"],
        nms_quarter_turn=by_class,
        max_per_sample=num_classes * config["MAX_OBJ_PER_SAMPLE"],
    )


def _sample(gt_boxes: Tensor) -> Sample:
    """A sample of their padded rows (box, 1-based class)."""
    rows = gt_boxes[gt_boxes[:, -1] > 0]
    sample = Sample()
    sample.gt = InstanceData(boxes=Boxes3D(rows[:, :-1]), labels=rows[:, -1].long() - 1)
    return sample


def _check_targets(comparison: Comparison, head: CenterHead, samples: list[Sample]) -> None:
    height, width = head.grid.out_shape
    for task, ours in enumerate(head.assign(samples)):
        name = f"target{task}"
        comparison.output(f"{name}/heatmaps", ours.heatmap)
        used = comparison.take(f"out/{name}/masks") != 0
        assert_equal(f"{name}/masks", used, _used_slots(head, task, samples, used.shape[1]))
        place = comparison.take(f"out/{name}/inds")[used] + np.nonzero(used)[0] * height * width
        assert_equal(f"{name}/inds", ours.cells, place)
        codes = torch.cat([ours.codes[branch] for branch in head.coded], dim=1)
        comparison.close(f"{name}/target_boxes", codes, comparison.take(f"out/{name}/target_boxes")[used])
        source = comparison.take(f"out/{name}/target_boxes_src")[used]
        comparison.close(f"{name}/target_boxes_src", ours.boxes, source[:, :7])


def _used_slots(head: CenterHead, task: int, samples: list[Sample], slots: int) -> np.ndarray:
    """Which of their slots must hold an object: each of the task group has one; bad boxes leave theirs empty."""
    used = np.zeros((len(samples), slots), dtype=bool)
    for row, sample in zip(used, samples, strict=True):
        own = torch.isin(sample.gt.labels, torch.tensor(head.class_indices[task]))
        good = (sample.gt.boxes.sizes[own, :2] > 0).all(dim=1).numpy()
        row[: len(good)] = good[:slots]
    return used


def _check_losses(comparison: Comparison, head: CenterHead, maps: Any, samples: list[Sample]) -> None:
    total = torch.zeros(())
    theirs = {"heatmap": "hm_loss", "box": "loc_loss", "iou": "iou_loss", "diou": "iou_reg_loss"}
    for task, (own, targets) in enumerate(zip(maps, head.assign(samples), strict=True)):
        for name, value in head.task_losses(own, targets).items():
            total = total + value
            comparison.output(f"loss/{theirs[name]}_head_{task}", value)
    for name in ("loss/rpn_loss", "loss/total"):
        if comparison.has(name):
            comparison.output(name, total)
    comparison.close("sum of loss()", sum(head.loss_from_maps(maps, samples).values()), total.detach().numpy())
    total.backward()


def _check_candidates(comparison: Comparison, ours: Candidates, num_tasks: int, num_samples: int) -> None:
    for task in range(num_tasks):
        for number in range(num_samples):
            name = f"pre_nms/{task * num_samples + number}"
            if not comparison.has(f"{name}/box_scores"):
                continue
            own = ours[(ours.tasks == task) & (ours.batch_index == number)]
            comparison.output(f"{name}/box_scores", own.scores)
            comparison.output(f"{name}/box_preds", own.boxes)
            comparison.output(f"{name}/box_labels", own.labels)


def _check_detections(comparison: Comparison, ours: list[InstanceData]) -> None:
    """Theirs are grouped by class and count classes from 1; scores may tie, so boxes are matched, not ranked."""
    for number, own in enumerate(ours):
        name = f"det{number}"
        boxes = comparison.take(f"out/{name}/pred_boxes")
        assert own.boxes.tensor.shape == boxes.shape, f"{name}: {len(own.boxes)} boxes, expected {len(boxes)}"
        match = _nearest(boxes, own.boxes.tensor.numpy())
        assert_equal(f"{name}: rows of ours that theirs are nearest to", np.sort(match), np.arange(len(boxes)))
        comparison.close(f"{name}/pred_boxes", own.boxes.tensor[match], boxes)
        comparison.output(f"{name}/pred_scores", own.scores[match])
        comparison.output(f"{name}/pred_labels", own.labels[match] + 1)
        assert bool((own.scores.diff() <= 0).all()), f"{name}: scores are not in descending order"


def _nearest(rows: np.ndarray, table: np.ndarray) -> np.ndarray:
    if len(rows) == 0:
        return np.zeros(0, dtype=np.int64)
    return np.abs(rows[:, None] - table[None]).max(axis=2).argmin(axis=1)


def _zyx(xyz: Any) -> tuple[int, int, int]:
    x, y, z = xyz
    return z, y, x


def _match(ours: Tensor, theirs: np.ndarray) -> Tensor:
    return torch.from_numpy(match_rows(ours.numpy(), theirs))


def _inverse(rows: Tensor) -> Tensor:
    inverse = torch.empty_like(rows)
    inverse[rows] = torch.arange(len(rows))
    return inverse


KINDS = {
    "dsvt/vfe_pillar": check_pillar_encoder,
    "dsvt/vfe_voxel3d": check_voxel_encoder,
    "dsvt/dsvt_pillar": check_transformer,
    "dsvt/dsvt_voxel3d": check_transformer,
    "dsvt/dsvt_reduction": check_transformer,
    "dsvt/bev_res_backbone": check_bev_backbone,
    "dsvt/center_head": check_center_head,
}
