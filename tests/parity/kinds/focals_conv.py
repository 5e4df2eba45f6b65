"""Focals Conv: its block in both flavours, with and without images, and its encoder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

import torch
import torch.nn.functional as F
from torch import Tensor

from sparse3d.checkpoints import focals_conv as names
from sparse3d.encoding.image_sampling import PixelRule, sample_images
from sparse3d.encoding.voxel_positions import voxel_positions
from sparse3d.models import FocalConv, FocalEncoder, GroundTruth
from sparse3d.models.points.focal_layers import importance_loss, inside_objects
from sparse3d.structures import Boxes3D, Grid
from sparse3d_ops.sparse import Sites, SparseTensor

from ..cases import Case
from ..compare import Comparison, match_rows
from .dsvt import _inputs, _prepare, _weighted

KITTI_RANGE = [-3, -40, 0, 1, 40, 70.4]  # (z, y, x), what the released block assumes where it is told nothing
KITTI_VOXELS = [0.1, 0.05, 0.05]


# -- the block -----------------------------------------------------------------------------------------------------


def check_block(case: Case) -> None:
    """OpenPCDet's flavour."""
    config, inputs = case.config["config"], _inputs(case)
    images = inputs.get("image_feat")
    block = FocalConv(
        config["inplanes"],
        config["threshold"],
        config["topk"],
        scale_by_importance=config.get("mask_multi", False),
        weigh_foreground=not config.get("skip_mask_kernel", False),
        enlarge_channels=config.get("enlarge_voxel_channels"),
        image_fusion=None if images is None else "concat",
    )
    lower = config.get("point_cloud_range", KITTI_RANGE)
    grid = Grid([*lower[2::-1], *lower[:2:-1]], config.get("voxel_size", KITTI_VOXELS)[::-1])
    if images is None:
        return _check_block(case, block, grid, "rotated")
    lidar2img = F.pad(inputs["lidar_to_img"], (0, 0, 0, 1)).double() @ _undo_augmentation(inputs)
    size = tuple(inputs["image_hw"].tolist())
    views = _View(images[:, None], lidar2img[:, None], size, grid, PixelRule())
    return _check_block(case, block, grid, "rotated", views)


def _undo_augmentation(inputs: dict[str, Tensor]) -> Tensor:
    """``[B, 4, 4]``: positions as the network sees them -> as recorded."""
    angle = -inputs["noise_rot"].double()
    matrix = torch.eye(4, dtype=torch.float64).repeat(len(angle), 1, 1)
    cos, sin = angle.cos(), angle.sin()
    matrix[:, :2, :2] = torch.stack([torch.stack([cos, -sin], dim=1), torch.stack([sin, cos], dim=1)], dim=1)
    matrix[:, 1] *= torch.where(inputs["flip_x"], -1.0, 1.0)[:, None]
    matrix[:, :, :3] /= inputs["noise_scale"].double()[:, None, None]
    return matrix


def check_centerpoint_block(case: Case) -> None:
    """CenterPoint's flavour."""
    config, inputs = case.config["config"], _inputs(case)
    images = inputs.get("image_feat")
    block = FocalConv(
        config["inplanes"],
        config["threshold"],
        config["topk"],
        scale_by_importance=config["mask_multi"],
        weigh_foreground=False,
        image_fusion=None if images is None else "sum",
    )
    grid = Grid(config["point_cloud_range"], config["voxel_size"])
    if images is None:
        return _check_block(case, block, grid, "doubled")
    intrinsics = torch.eye(4).repeat(*inputs["cam_intrinsic"].shape[:2], 1, 1)
    intrinsics[..., :3, :3] = inputs["cam_intrinsic"]
    lidar2img = (intrinsics.double() @ inputs["lidar2cam"].double()).transpose(0, 1)
    depths = {camera: float(config["depth_thres"][camera]) for camera in config["cameras"]}
    rule = PixelRule(scale=float(Fraction(config["image_scale"])), min_depths=depths, skip_first=True)
    size = tuple(inputs["image_hw"].tolist())
    views = _View(images.transpose(0, 1), lidar2img, size, grid, rule, tuple(config["cameras"]))
    return _check_block(case, block, grid, "doubled", views)


@dataclass(frozen=True)
class _View:
    """The images of a case; called, what the voxels of sites see in them. The block's stride is 1."""

    maps: Tensor  # [B, cameras, C, h, w]
    lidar2img: Tensor  # [B, cameras, 4, 4]
    size: tuple[int, int]
    grid: Grid
    rule: PixelRule
    names: tuple[str, ...] = ("image",)

    def __call__(self, sites: Sites) -> Tensor:
        positions = voxel_positions(sites, self.grid, 1)
        rig = self.lidar2img, [self.names] * len(self.maps)
        return sample_images(self.maps, *rig, self.size, positions, sites.indices[:, 0], self.rule)


def _check_block(case: Case, block: FocalConv, grid: Grid, rule: str, view: _View | None = None) -> None:
    comparison = _prepare(case, block, names.FOCAL)
    inputs, config = _inputs(case), case.config["config"]
    truth = _truth(inputs["gt_boxes"])
    leaves = {"features": inputs["features"].requires_grad_()}
    if "grad/in.image_feat" in case.arrays:
        leaves["image_feat"] = inputs["image_feat"].requires_grad_()
        view = replace(view, maps=leaves["image_feat"][:, None])
    x = SparseTensor.coalesce(leaves["features"], inputs["indices"], config["spatial_shape_zyx"], truth.batch_size)

    described = block.describe(x, view)
    rows = match_rows(x.indices.numpy(), case.arrays["in/indices"])
    if view is not None:
        comparison.output("fused_input_features", described.features[rows])
    comparison.output("importance", block.predictor(described).features[rows])
    out, importance = block(x, view)
    _compare_tensor(comparison, "", out)
    _weighted(case, out.features).backward(retain_graph=True)
    comparison.gradients(block, **leaves)

    if comparison.has("focal_loss"):
        block.zero_grad()
        for leaf in leaves.values():
            leaf.grad = None
        inside = inside_objects(voxel_positions(x.sites, grid, config["voxel_stride"]), x.indices[:, 0], truth, rule)
        loss = importance_loss(importance, inside)
        comparison.output("focal_loss", loss)
        loss.backward()
        comparison.gradients(block, of="focal_loss", **leaves)
    comparison.finish()


def _truth(gt_boxes: Tensor) -> GroundTruth:
    """Their padded rows (box, class) as objects; rows of zeros are padding."""
    batch_index, row = (gt_boxes[..., :7] != 0).any(dim=-1).nonzero(as_tuple=True)
    boxes = gt_boxes[batch_index, row]
    return GroundTruth(Boxes3D(boxes[:, :7]), boxes[:, 7].long() - 1, batch_index, len(gt_boxes))


def _compare_tensor(comparison: Comparison, prefix: str, x: SparseTensor) -> None:
    """Compare indices, and the channels that are stored; rows of fixtures are in our order."""
    comparison.output(f"{prefix}indices", x.indices)
    channels = comparison.case.arrays[f"out/{prefix}features"].shape[1]
    comparison.output(f"{prefix}features", x.features[:, :channels])


# -- the encoder ---------------------------------------------------------------------------------------------------


def check_encoder(case: Case) -> None:
    """OpenPCDet's plain encoder, LiDAR only."""
    config, inputs = case.config["config"], _inputs(case)
    model = config["model_cfg"]
    encoder = FocalEncoder(
        Grid((0, 0, 0, *config["grid_size_xyz"]), (1, 1, 1), stride=8),
        config["input_channels"],
        channels=[16, 32, 64, 64],
        num_blocks=[1, 2, 2, 2],
        block="plain",
        focal_stages=model.get("USE_STAGES", [1, 2, 3]),
        focal=dict(
            threshold=model.get("THRESHOLD", 0.5),
            top_k=model.get("TOPK", True),
            scale_by_importance=model.get("MASK_MULTI", False),
            weigh_foreground=not model.get("SKIP_MASK_KERNEL", False),
            enlarge_channels=_enlarged(model.get("ENLARGE_VOXEL_CHANNELS", -1)),
        ),
    )
    assert list(encoder.spatial_shape) == config["sparse_shape_zyx"]
    comparison = _prepare(case, encoder, names.OPENPCDET_ENCODER)
    features = inputs["voxel_features"].requires_grad_()
    batch_size = int(inputs["voxel_coords"][:, 0].max()) + 1
    x = SparseTensor.coalesce(features, inputs["voxel_coords"], encoder.spatial_shape, batch_size)

    stages = _stage_outputs(encoder)
    out, losses = encoder(x)
    assert not losses
    for number, stage in stages.items():
        _compare_tensor(comparison, f"x_conv{number}/", stage)
    _compare_tensor(comparison, "out/", out)
    comparison.output("out/spatial_shape", out.spatial_shape)
    assert encoder.out_shape == out.spatial_shape
    _weighted(case, out.features).backward()
    comparison.gradients(encoder, voxel_features=features)
    comparison.finish()


def _enlarged(channels: int) -> int | None:
    return channels if channels > 0 else None


def _stage_outputs(encoder: FocalEncoder) -> dict[int, SparseTensor]:
    """What each stage hands on, filled by the next forward pass."""
    outputs: dict[int, SparseTensor] = {}
    for number, stage in enumerate(encoder.stages, start=1):
        stage.register_forward_hook(lambda _, __, out, number=number: outputs.update({number: out}))
        if str(number) in encoder.focals:
            encoder.focals[str(number)].register_forward_hook(
                lambda _, __, out, number=number: outputs.update({number: out[0]})
            )
    return outputs


KINDS = {
    "focals_conv/focal_block_fusion": check_block,
    "focals_conv/focal_block_lidar": check_block,
    "focals_conv/focal_block_lidar_plain": check_block,
    "focals_conv/focal_block_centerpoint": check_centerpoint_block,
    "focals_conv/focal_block_centerpoint_fusion": check_centerpoint_block,
    "focals_conv/focal_backbone": check_encoder,
}
