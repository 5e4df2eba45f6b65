"""SparseFusion: the parts of its head, its trunk, and the whole forward pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sparse3d.checkpoints import sparsefusion as names
from sparse3d.checkpoints.convert import Rules
from sparse3d.encoding.camera_geometry import LEVEL, CameraGeometry
from sparse3d.encoding.cell_heights import CellHeights, cell_heights
from sparse3d.models import SECONDBEVBackbone, SparseEncoder, stack_layers
from sparse3d.models.heads.sparsefusion_camera import (
    CameraDecoder,
    CameraPredictions,
    ImageHeatmaps,
    image_peaks,
    select_image_queries,
)
from sparse3d.models.heads.sparsefusion_fusion import CandidateFusion
from sparse3d.models.heads.sparsefusion_head import SparseFusionHead
from sparse3d.models.heads.sparsefusion_lidar import LidarDecoder
from sparse3d.models.heads.sparsefusion_output import SparseFusionOutput
from sparse3d.models.heads.sparsefusion_semantic import SemanticTransfer
from sparse3d.models.heads.sparsefusion_view import ViewTransformer, camera_numbers, lift
from sparse3d.models.heads.transfusion_queries import find_peaks, select_queries
from sparse3d.models.images.geometric_transfer import DepthEncoder
from sparse3d.models.layers.deformable import ImageMemory
from sparse3d.structures import Grid, Voxels
from sparse3d_ops.sparse import SparseTensor

from ..cases import Case
from ..compare import Comparison, load_state, section, tensors

EVERY_CELL = (8, 9)  # pedestrian and traffic cone
EXTENT = (204, 204)  # of the view transformer's positions, whatever the map: that of the published one


def inputs_of(case: Case) -> dict[str, Tensor]:
    return tensors(section(case, "in"))


def prepare(case: Case, part: str, module: nn.Module, rules: Rules) -> Comparison:
    """Load a part of the detector, `part` being its name in there."""
    whole: nn.Module = module
    for name in reversed(part.split(".")):
        whole = nn.ModuleDict({name: whole})
    rules = [(theirs, None if ours is None else f"{part}.{ours}") for theirs, ours in rules]
    load_state(case, whole, rules, names.to_our_boxes)
    whole.eval()
    comparison = Comparison(case, rules, names.to_our_boxes)
    comparison.whole = whole
    return comparison


def grid_of(config: dict[str, Any]) -> Grid:
    test = config.get("test_cfg") or {}
    return Grid(test["pc_range"], test["voxel_size"], test["out_size_factor"])


def layer_of(config: dict[str, Any]) -> dict[str, Any]:
    return dict(
        channels=config["hidden_channel"],
        num_classes=config["num_classes"],
        num_heads=config["num_heads"],
        ffn_channels=config["ffn_channel"],
        dropout=config["dropout"],
    )


def maps_of(inputs: Mapping[str, Tensor], batch_size: int, name: str = "img_feat") -> tuple[Tensor, ...]:
    """Image maps ``[B, N, C, H, W]``."""
    count = sum(key.startswith(f"{name}_") for key in inputs)
    return tuple(inputs[f"{name}_{level}"].unflatten(0, (batch_size, -1)) for level in range(count))


def hidden_of(mask: Tensor, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Their padding mask ``[B, N, pixels]`` level by level."""
    parts = mask.bool().split([level.shape[-2] * level.shape[-1] for level in maps], dim=2)
    return tuple(part.unflatten(2, level.shape[-2:]) for part, level in zip(parts, maps, strict=True))


def cameras_of(inputs: Mapping[str, Tensor]) -> CameraGeometry:
    height, width = inputs["input_shape"][0].tolist()
    return CameraGeometry(
        inputs["lidar2cam_r"],
        inputs["lidar2cam_t"],
        inputs["cam_intrinsic"],
        inputs["valid_shape"].float().flip(-1),
        (height, width),
    )


# -- their boxes -----------------------------------------------------------------------------------------------------


def their_rot(rot: Tensor) -> Tensor:
    """``(sin, cos)`` of our heading -> of theirs, last axis; its own inverse."""
    return -rot.flip(-1)


def their_dim(dim: Tensor) -> Tensor:
    """``(l, w, h)`` -> ``(w, l, h)``; its own inverse."""
    return dim[..., [1, 0, 2]]


def their_codes(codes: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {**codes, "rot": their_rot(codes["rot"]), "dim": their_dim(codes["dim"])}


def their_camera_codes(found: CameraPredictions) -> dict[str, Tensor]:
    """Their names and order: sizes ``(l, h, w)``, heading about y, places in the usual camera frame."""
    codes = found.codes
    sin, cos = codes["rot"].split(1, dim=-1)
    return {
        "center_2d": codes["center"],
        "depth_2d": codes["depth"],
        "dim_2d": codes["dim"][..., [0, 2, 1]],
        "rot_2d": torch.cat([-sin, cos], dim=-1),
        "vel_2d": codes["vel"],
        "loc_cam_3d": found.places @ found.places.new_tensor(LEVEL),
        "cls": found.logits,
    }


def weighted(case: Case, outputs: Mapping[str, Tensor]) -> Tensor:
    """Their loss: the sum of outputs ``[B, Q, D]``, or of whatever else, times the weights of their shape."""
    return sum((outputs[name] * weight).sum() for name, weight in tensors(section(case, "in/loss_weight")).items())


def check_predictions(comparison: Comparison, outputs: Mapping[str, Tensor]) -> None:
    for name, value in outputs.items():
        comparison.output(name, value)


def finish(comparison: Comparison, outputs: Mapping[str, Tensor], **inputs: Tensor) -> None:
    """Compare outputs by their names, their loss and all gradients."""
    check_predictions(comparison, {name: value for name, value in outputs.items() if comparison.has(name)})
    loss = weighted(comparison.case, outputs)
    comparison.output("loss", loss)
    loss.backward()
    comparison.gradients(comparison.whole, **inputs)
    comparison.finish()


def in_front(outputs: Mapping[str, Tensor], prefix: str = "pred/") -> dict[str, Tensor]:
    """Predictions ``[B, Q, D]`` as theirs ``[B, D, Q]``."""
    return {f"{prefix}{name}": value.transpose(1, 2) for name, value in outputs.items()}


# -- parts -----------------------------------------------------------------------------------------------------------


def check_voxel_heights(case: Case) -> None:
    comparison, inputs, config = Comparison(case), inputs_of(case), case.config["config"]
    x, y, z = config["grid_size"]
    slots = torch.arange(inputs["voxels"].shape[1]) < inputs["num_points"][:, None]
    slots &= inputs["voxels"][..., 2] != 0  # theirs takes points at a height of exactly 0 for padding
    voxels = Voxels(
        inputs["coors"], inputs["voxels"][slots], slots.nonzero()[:, 0], int(inputs["coors"][:, 0].max()) + 1
    )
    grid = Grid((0, 0, 0, x, y, z), (1, 1, 1), config["out_size_factor"])
    low, high = cell_heights(voxels, grid)
    comparison.output("min_height", low.where(low <= high, 100))
    comparison.output("max_height", high.where(low <= high, -200))
    comparison.finish()


def check_geometric_transfer(case: Case) -> None:
    config, inputs = case.config["config"], inputs_of(case)
    encoder = DepthEncoder(inputs["img_feat_0"].shape[1], case.arrays["state/fuse_layers.0.bias"].shape[0])
    assert config["depth_layers"] == [1] * len(encoder.blocks)
    comparison = prepare(case, "image_branch.depth", encoder, names.DEPTH)
    fused = encoder(inputs["sparse_depth"], [inputs[f"img_feat_{level}"] for level in range(4)])
    for level, value in enumerate(fused):
        comparison.output(f"img_out_{level}", value)
    comparison.finish()


def check_lidar_decoder(case: Case) -> None:
    config, inputs = case.config["config"], inputs_of(case)
    decoder = LidarDecoder(**layer_of(config))
    comparison = prepare(case, "head.lidar", decoder, names.LIDAR_DECODER)
    queries, flat = (inputs[name].requires_grad_() for name in ("pts_query_feat", "lidar_feat_flatten"))
    side = int(flat.shape[2] ** 0.5)
    refined, found = decoder(queries.transpose(1, 2), inputs["pts_query_pos"], flat.unflatten(2, (side, side)))
    outputs = {
        "pts_query_feat": refined.transpose(1, 2),
        "pts_query_pos": found.codes["center"],
        **in_front({**their_codes(found.codes), "heatmap": found.logits}),
    }
    finish(comparison, outputs, pts_query_feat=queries, lidar_feat_flatten=flat)


def check_camera_decoder(case: Case) -> None:
    config, inputs = case.config["config"], inputs_of(case)
    decoder = CameraDecoder(**layer_of(config), num_levels=config["level_num"])
    comparison = prepare(case, "head.camera", decoder, names.CAMERA_DECODER)
    queries = inputs["img_query_feat"].requires_grad_()
    leaves = {name: value.requires_grad_() for name, value in inputs.items() if name.startswith("img_feat_")}
    maps, views = maps_of(leaves, len(queries)), inputs["img_query_view"]
    cameras = _cameras_by_query(inputs, config["num_views"])
    memory = ImageMemory(maps, hidden_of(inputs["input_padding_mask"], maps))
    positions = inputs["normal_img_query_pos"]
    refined, moved, found = decoder(queries.transpose(1, 2), positions, views, memory, cameras)
    lifted = their_codes(lift(found, cameras, grid_of(case.config)))
    outputs = {
        "img_query_feat": refined.transpose(1, 2),
        "normal_img_query_pos": moved,
        "bev_box_code": torch.cat([lifted[name] for name in ("center", "height", "rot", "vel", "dim")], dim=-1),
        "camera_info": camera_numbers(cameras, views).transpose(1, 2),
        **in_front(their_camera_codes(found)),
    }
    finish(comparison, outputs, img_query_feat=queries, **leaves)


def _cameras_by_query(inputs: Mapping[str, Tensor], num_views: int) -> CameraGeometry:
    """The cameras, of which the fixture has one for each query; one that has no query stays zero."""
    views = inputs["img_query_view"]
    height, width = inputs["input_shape"].tolist()

    def table(values: Tensor) -> Tensor:
        found = torch.eye(4).expand(len(views), num_views, 4, 4).clone()
        found[torch.arange(len(views))[:, None], views] = values
        return found

    lidar2cam, intrinsics = table(inputs["lidar2cam_rt"]), table(inputs["cam_intrinsic"])
    sizes = torch.tensor([height, width]).float().expand(len(views), num_views, 2)
    return CameraGeometry(
        lidar2cam[..., :3, :3], lidar2cam[..., :3, 3], intrinsics[..., :3, :3], sizes, (height, width)
    )


def check_view_transformer(case: Case) -> None:
    config, inputs = case.config["config"], inputs_of(case)
    transformer = ViewTransformer(grid_of(case.config), **layer_of(config))
    transformer.extent = EXTENT
    comparison = prepare(case, "head.view", transformer, names.VIEW)
    queries, code = inputs["img_query_feat"].requires_grad_(), inputs["bev_box_code"]
    parts = dict(zip(("center", "height", "rot", "vel", "dim"), code.split([2, 1, 2, 2, 3], dim=-1), strict=True))
    numbers = inputs["camera_info"].transpose(1, 2)
    refined, found = transformer(queries.transpose(1, 2), their_codes(parts), inputs["normal_img_query_pos"], numbers)
    said = {f"{name}_view": value for name, value in {**their_codes(found.codes), "heatmap": found.logits}.items()}
    outputs = {
        "img_query_feat": refined.transpose(1, 2),
        "img_query_pos_bev": found.codes["center"],
        **in_front(said),
        **in_front({f"{name}_mono": value for name, value in parts.items()}),
    }
    finish(comparison, outputs, img_query_feat=queries)


def check_fusion_transformer(case: Case) -> None:
    fusion, inputs = CandidateFusion(**layer_of(case.config["config"])), inputs_of(case)
    comparison = prepare(case, "head.fusion", fusion, names.FUSION)
    lidar, camera = (inputs[f"{name}_query_feat"].requires_grad_() for name in ("pts", "img"))
    positions = torch.cat([inputs["pts_query_pos"], inputs["img_query_pos"]], dim=1)
    refined, found = fusion(lidar.transpose(1, 2), camera.transpose(1, 2), positions)
    outputs = {
        "all_query_feat": refined.transpose(1, 2),
        "all_query_pos": found.codes["center"],
        **in_front({**their_codes(found.codes), "heatmap": found.logits}),
    }
    finish(comparison, outputs, pts_query_feat=lidar, img_query_feat=camera)


def check_image_queries(case: Case) -> None:
    config, inputs = case.config["config"], inputs_of(case)
    heatmaps = ImageHeatmaps(config["hidden_channel"], config["num_classes"], config["level_num"])
    comparison = prepare(case, "head.image_heatmaps", heatmaps, names.IMAGE_HEATMAPS)
    maps = maps_of(inputs, len(inputs["img_feat_0"]) // config["num_views"])
    logits = heatmaps(maps)
    peaks = image_peaks(logits, config["img_nms_kernel_size"])
    comparison.output("dense_logits", dense_images(logits))
    comparison.output("nms_heatmap", peaks.flatten(2))
    found = select_image_queries(peaks, config["num_img_proposals"])
    comparison.output("top_class", found.labels)
    comparison.output("top_view", found.views)
    comparison.output("top_pos", found.pixels)
    comparison.output("top_index", found.views * peaks.shape[3] + found.pixels)
    comparison.finish()


def dense_images(logits: list[Tensor]) -> Tensor:
    """``[B, N, K, H, W]`` a level as their ``[B, K, N, pixels]``."""
    return torch.cat([level.flatten(3) for level in logits], dim=3).transpose(1, 2)


def check_semantic_transfer(case: Case) -> None:
    config, inputs = case.config["config"], inputs_of(case)
    shared = inputs["shared_lidar_feat"]
    transfer = SemanticTransfer(grid_of(case.config), **layer_of(config), num_levels=config["level_num"])
    rules = [*names.SEMANTIC, (r"heatmap_head\..+", None)]
    comparison = prepare(case, "head.semantic", transfer, rules)
    maps = maps_of(inputs, len(shared))
    memory = ImageMemory(maps, hidden_of(inputs["input_padding_mask"], maps))
    with torch.no_grad():
        heights = CellHeights.between(inputs["min_voxel_height"], inputs["max_voxel_height"])  # empty: 100 and -200
        logits = transfer(shared, transfer.see(heights, cameras_of(inputs)), memory)
    comparison.output("cross_heatmap_logits", logits)
    peaks = find_peaks(logits.sigmoid(), config["nms_kernel_size"], EVERY_CELL)
    comparison.output("nms_heatmap", peaks.flatten(2))
    found = select_queries(peaks, config["num_proposals"])
    comparison.output("top_class", found.labels)
    comparison.output("top_index", found.cells)
    comparison.finish()


def check_lidar_trunk(case: Case) -> None:
    config, inputs = case.config["config"], inputs_of(case)
    layers, height, width = config["sparse_shape"]
    stages = config["encoder_channels"]
    encoder = SparseEncoder(
        Grid((0, 0, 0, width, height, layers - 1), (1, 1, 1), 8),
        config["in_channels"],
        channels=[stage[0] for stage in stages],
        num_blocks=[2, 2, 2, 2],
        block="residual",
        out_channels=config["output_channels"],
        residual_bias=False,
    )
    bev_backbone = SECONDBEVBackbone(
        encoder.bev_channels,
        num_blocks=config["layer_nums"],
        strides=config["layer_strides"],
        channels=config["second_out"],
        up_strides=[1, 2],
        up_channels=config["fpn_out"],
    )
    branch = nn.ModuleDict(dict(backbone=encoder, bev_backbone=bev_backbone))
    rules = [(theirs, ours.removeprefix("point_branch.")) for theirs, ours in names.TRUNK]
    comparison = prepare(case, "point_branch", branch, rules)
    with torch.no_grad():
        batch_size = int(inputs["coors"][:, 0].max()) + 1
        x, _ = encoder(SparseTensor(inputs["voxel_features"], inputs["coors"], encoder.spatial_shape, batch_size))
        bev = stack_layers(x)
        comparison.output("bev", bev)
        for number, level in enumerate(bev_backbone.levels):
            x = level(bev if number == 0 else x)
            comparison.output(f"stage{number}", x)
        comparison.output("neck", bev_backbone(bev))
    comparison.finish()


# -- the head --------------------------------------------------------------------------------------------------------


def head_of(case: Case) -> SparseFusionHead:
    config = case.config["config"]
    classes = [str(number) for number in range(config["num_classes"])]
    layer = layer_of(config)
    layer.pop("num_classes")
    return SparseFusionHead(
        grid_of(case.config),
        classes,
        config["in_channels"],
        decoder=dict(center_range=config["bbox_coder"]["post_center_range"]),
        num_queries=config["num_proposals"],
        num_camera_queries=config["num_img_proposals"],
        num_levels=config["level_num"],
        peak_size=config["nms_kernel_size"],
        every_cell=[classes[label] for label in EVERY_CELL],
        **layer,
    )


def check_head_forward(case: Case) -> None:
    config, inputs = case.config["config"], inputs_of(case)
    head = head_of(case)
    head.view.extent = EXTENT
    depth = DepthEncoder(config["in_channels_img"], config["hidden_channel"])
    rules = [
        *((rf"depth_resnet\.{theirs}", f"image_branch.depth.{ours}") for theirs, ours in names.DEPTH),
        *((theirs, None if ours is None else f"head.{ours}") for theirs, ours in names.HEAD),
    ]
    whole = nn.ModuleDict(dict(head=head, image_branch=nn.ModuleDict(dict(depth=depth))))
    load_state(case, whole, rules, names.to_our_boxes)
    whole.eval()
    comparison = Comparison(case, rules, names.to_our_boxes)
    leaves = {name: inputs[name].requires_grad_() for name in inputs if name.startswith(("img_feat_", "pts_feat"))}
    batch_size = len(leaves["pts_feat"])
    maps = [leaves[f"img_feat_{level}"] for level in range(config["level_num"])]
    fused = depth(inputs["sparse_depth"][:, :, 0].flatten(0, 1), maps)
    bev, cameras = leaves["pts_feat"][:, :-2], cameras_of(inputs)
    seen = head.semantic.see(CellHeights.between(*leaves["pts_feat"][:, -2:].detach().unbind(1)), cameras)
    output = head.from_maps(bev, seen, [level.unflatten(0, (batch_size, -1)) for level in fused], cameras)
    outputs = their_outputs(output)
    comparison.output("query_labels", output.lidar_queries.labels)
    comparison.output("img_query_label", output.camera_queries.labels)
    comparison.output("img_query_view", output.camera_queries.views)
    comparison.output("view", output.camera.views)
    comparison.output("query_heatmap_score", _heat_of_all_classes(head, output))
    comparison.output("img_query_heatmap_score", _image_heat_of_all_classes(head, output))
    lifted = their_codes(lift(output.camera, output.cameras, head.grid))
    check_predictions(comparison, in_front({f"{name}_mono": value for name, value in lifted.items()}, ""))
    check_predictions(comparison, outputs)
    loss = weighted(case, outputs)
    comparison.output("loss", loss)
    loss.backward()
    comparison.gradients(whole, **leaves)
    comparison.finish()


def their_outputs(output: SparseFusionOutput) -> dict[str, Tensor]:
    """The differentiable outputs by their names."""
    lidar, fusion, view = (
        {**their_codes(each.codes), "heatmap": each.logits} for each in (output.lidar, output.fusion, output.view)
    )
    stacked = {name: torch.cat([lidar[name], fusion[name]], dim=1) for name in lidar}
    return {
        **in_front(stacked, ""),
        **in_front({f"{name}_view": value for name, value in view.items()}, ""),
        **in_front(their_camera_codes(output.camera), ""),
        "dense_heatmap": output.heatmap,
        "img_dense_heatmap": dense_images(output.image_heatmaps),
    }


def _heat_of_all_classes(head: SparseFusionHead, output: SparseFusionOutput) -> Tensor:
    peaks = find_peaks(output.heatmap.detach().sigmoid(), head.peak_size, head.every_cell).flatten(2)
    return peaks.gather(2, output.lidar_queries.cells[:, None].expand(-1, head.num_classes, -1))


def _image_heat_of_all_classes(head: SparseFusionHead, output: SparseFusionOutput) -> Tensor:
    peaks = image_peaks(output.image_heatmaps, head.peak_size)
    flat = output.camera_queries.views * peaks.shape[3] + output.camera_queries.pixels
    return peaks.flatten(2).gather(2, flat[:, None].expand(-1, head.num_classes, -1))


KINDS = {
    "sparsefusion/voxel_heights": check_voxel_heights,
    "sparsefusion/geometric_transfer": check_geometric_transfer,
    "sparsefusion/lidar_trunk": check_lidar_trunk,
    "sparsefusion/lidar_decoder": check_lidar_decoder,
    "sparsefusion/camera_decoder": check_camera_decoder,
    "sparsefusion/camera_decoder_single_query_view": check_camera_decoder,
    "sparsefusion/view_transformer": check_view_transformer,
    "sparsefusion/fusion_transformer": check_fusion_transformer,
    "sparsefusion/img_query_init": check_image_queries,
    "sparsefusion/semantic_transfer_heatmap": check_semantic_transfer,
    "sparsefusion/head_forward": check_head_forward,
}
