"""MatrixVT: matrices, prime extraction, depth network and supervision, the whole way of images to a map, head."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sparse3d.checkpoints import convert_names, load_converted
from sparse3d.checkpoints import matrixvt as names
from sparse3d.checkpoints.backbones import RESNET
from sparse3d.checkpoints.convert import Rules, prefixed
from sparse3d.encoding import calibration_codes
from sparse3d.encoding.ring_ray import RingRay, cell_coordinates, column_pixels
from sparse3d.models import ImageBEVBranch, MatrixVT
from sparse3d.models.images.depth_supervision import NO_TARGET, depth_loss, depth_targets
from sparse3d.models.layers.deform_conv import DeformConv2d
from sparse3d.structures import Batch, Cameras, Grid

from ..cases import Case
from ..compare import Comparison, load_state, section, tensors

BORDER = 1e-3  # share of matrix entries that may differ: points on the border of two cells
PRIME_CHANNELS = 32  # of the fixtures; 512 in the published model
BRANCH_RULES: Rules = [
    *prefixed("img_backbone", "backbone", RESNET),
    *prefixed("img_neck", "neck", names.SECOND_FPN),
    *((theirs, None if ours is None else f"view_transform.{ours}") for theirs, ours in names.VIEW_TRANSFORM),
]


def inputs_of(case: Case) -> dict[str, Tensor]:
    return tensors(section(case, "in"))


def prepare(case: Case, module: nn.Module, rules: Rules) -> Comparison:
    load_state(case, module, rules)
    module.eval()
    return Comparison(case, rules)


# -- what the fixtures say in other words ------------------------------------------------------------------------------


def grid_of(config: dict[str, Any]) -> Grid:
    bounds = [config[f"{axis}_bound"] for axis in "xyz"]
    low, high, step = zip(*bounds, strict=True)
    return Grid((*low, *high), step)


def rigs_of(inputs: dict[str, Tensor], image_size: tuple[int, int]) -> tuple[Cameras, ...]:
    """The cameras of their matrices; they hold the frame of the vehicle, whose points are augmented by `bda_mat`."""
    rigs = []
    for sample, move in enumerate(inputs["bda_mat"].double()):
        sensor2ego, intrinsics, ida = (
            inputs[name][sample, 0].double() for name in ("sensor2ego_mats", "intrin_mats", "ida_mats")
        )
        lidar2cam, sizes = torch.linalg.inv(sensor2ego), torch.tensor([image_size] * len(ida))
        rig = Cameras.create([str(n) for n in range(len(ida))], intrinsics[:, :3, :3], lidar2cam, sizes)
        image_aug = ida.clone()
        image_aug[:, :3, 2], image_aug[:, :3, 3] = ida[:, :3, 3], 0  # their shift stands in the last column
        image_aug[:, 2, 2] = 1
        rigs.append(Cameras(**{**vars(rig), "image_aug": image_aug}).move_lidar(move))
    return tuple(rigs)


def transform_of(config: dict[str, Any]) -> MatrixVT:
    depth_net = config["depth_net_conf"]
    return MatrixVT(
        grid_of(config),
        config["d_bound"],
        in_channels=depth_net["in_channels"],
        mid_channels=depth_net["mid_channels"],
        channels=config["output_channels"],
        prime_channels=PRIME_CHANNELS,
    )


def sizes_of(config: dict[str, Any]) -> tuple[tuple[int, int], tuple[int, int]]:
    height, width = config["final_dim"]
    stride = config["downsample_factor"]
    return (height, width), (height // stride, width // stride)


# -- geometry ----------------------------------------------------------------------------------------------------------


def check_ring_ray(case: Case) -> None:
    comparison, config, inputs = Comparison(case), case.config["config"], inputs_of(case)
    image_size, feature_size = sizes_of(config)
    grid, depths = grid_of(config), torch.arange(*config["d_bound"])
    theirs = {name: comparison.take(f"out/{name}") for name in ("geometry_points", "mean_cell_coords", "ring", "ray")}
    step = round(len(depths) / theirs["geometry_points"].shape[2])
    for number, rig in enumerate(rigs_of(inputs, image_size)):
        everywhere = rig.unproject(_all_pixels(image_size, feature_size), depths[::step])
        everywhere = everywhere.unflatten(1, feature_size).movedim(3, 1)  # [N, D / 3, h, w, 3]
        _close(everywhere, theirs["geometry_points"][number], 1e-3)
        points = rig.unproject(column_pixels(image_size, feature_size[1]), depths)
        _close(cell_coordinates(points, grid), theirs["mean_cell_coords"][number], 1e-3)
        built = RingRay.build(rig, image_size, feature_size[1], depths, grid)
        for name in ("ring", "ray"):
            differ = getattr(built, name).numpy() != theirs[name][number]
            assert differ.mean() <= BORDER, f"{name}: {differ.sum()} of {differ.size} entries differ"
            assert theirs[name][number].any(axis=1).mean() > 0.5
    comparison.finish()


def _all_pixels(image_size: tuple[int, int], feature_size: tuple[int, int]) -> Tensor:
    """`[h w, 2]`, where each pixel of the features looks."""
    rows = torch.linspace(0, image_size[0] - 1, feature_size[0], dtype=torch.float64)
    columns = column_pixels(image_size, feature_size[1])[:, 0]
    return torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1).flatten(0, 1)


def _close(ours: Tensor, theirs: np.ndarray, tolerance: float) -> None:
    np.testing.assert_allclose(ours.numpy(), theirs, atol=tolerance, rtol=0)


# -- view transform ----------------------------------------------------------------------------------------------------


def check_view_transform(case: Case) -> None:
    config, inputs = case.config["config"], inputs_of(case)
    transform = transform_of(config)
    transform.depth_net = nn.Identity()  # the case begins behind it
    comparison = prepare(case, transform, names.VIEW_TRANSFORM)
    feature, logits = (inputs[name].requires_grad_() for name in ("feature", "depth_logits"))
    image_size, (_, num_columns) = sizes_of(config)
    rigs = [transform.matrices(rig, image_size, num_columns) for rig in rigs_of(inputs, image_size)]
    ring, ray = (torch.stack([getattr(rig, name) for rig in rigs]) for name in ("ring", "ray"))
    bev, probabilities = transform.project(logits, feature, ring, ray)
    comparison.output("bev", bev)
    comparison.output("reduced_depth", transform.depth_reducer(feature, probabilities))
    comparison.output("prime_feature", transform.horiconv(feature))
    (bev * inputs["loss_weight"]).sum().backward()
    comparison.output("grad_feature", feature.grad)
    comparison.output("grad_depth_logits", logits.grad)
    comparison.gradients(transform)
    comparison.finish()


def check_depth_net(case: Case) -> None:
    config, inputs = case.config["config"], inputs_of(case)
    network = transform_of(config).depth_net
    comparison = prepare(case, network, names.DEPTH_NET)
    codes = calibration_codes(rigs_of(inputs, sizes_of(config)[0])).flatten(0, 1)
    with torch.no_grad():
        comparison.output("y", torch.cat(network(inputs["x"], codes), dim=1))
    comparison.finish()


def check_deform_conv(case: Case) -> None:
    inputs = inputs_of(case)
    channels = inputs["x"].shape[1]
    layer = DeformConv2d(channels, channels, 3, padding=1, groups=4)
    comparison = prepare(case, layer, names.DEFORMABLE)
    with torch.no_grad():
        comparison.output("offset", layer.offsets(inputs["x"]))
        comparison.output("y", layer(inputs["x"]))
    comparison.finish()


def check_depth_loss(case: Case) -> None:
    config, inputs, comparison = case.config["config"], inputs_of(case), Comparison(case)
    logits = inputs["depth_logits"].requires_grad_()
    targets = depth_targets(inputs["gt_depth"].flatten(0, 1), tuple(logits.shape[-2:]), config["d_bound"])
    rows = nn.functional.one_hot(targets.flatten() + 1, logits.shape[1] + 1)[:, 1:]
    assert NO_TARGET == -1
    comparison.output("targets", rows.float())
    loss = config["weight"] * depth_loss(logits.softmax(dim=1), targets)
    comparison.output("loss", loss)
    loss.backward()
    comparison.output("grad_logits", logits.grad)
    comparison.finish()


def check_full_backbone(case: Case) -> None:
    config, inputs = case.config["config"], inputs_of(case)
    branch = _branch_of(config)
    load_converted(branch, convert_names(tensors(section(case, "state")), BRANCH_RULES))
    branch.eval()
    comparison = Comparison(case)
    image_size, _ = sizes_of(config)
    images, rigs = inputs["imgs"][:, 0], rigs_of(inputs, image_size)
    with torch.no_grad():
        [features] = branch.extract(images)
        bev, probabilities = branch.view_transform(features, rigs, image_size)
        comparison.output("bev", bev)
        comparison.output("depth", probabilities)
        whole = branch(Batch(len(images), images=images, cameras=rigs))
        comparison.close("branch", whole.bev, comparison.take("out/bev"))
    comparison.finish()


def _branch_of(config: dict[str, Any]) -> ImageBEVBranch:
    backbone, neck, depth_net = (config[f"{name}_conf"] for name in ("img_backbone", "img_neck", "depth_net"))
    branch = ImageBEVBranch(
        backbone=dict(
            type="ResNet",
            depth=backbone["depth"],
            base_channels=backbone["base_channels"],
            out_stages=backbone["out_indices"],
            frozen_stages=backbone["frozen_stages"],
            norm_eval=backbone["norm_eval"],
        ),
        neck=dict(
            type="SECONDFPN",
            in_channels=neck["in_channels"],
            up_strides=neck["upsample_strides"],
            up_channels=neck["out_channels"],
        ),
        view_transform=dict(
            type="MatrixVT",
            grid=grid_of(config),
            depth_bins=config["d_bound"],
            in_channels=depth_net["in_channels"],
            mid_channels=depth_net["mid_channels"],
            channels=config["output_channels"],
            prime_channels=PRIME_CHANNELS,
        ),
        bev_backbone=dict(type="ResNetBEVBackbone", in_channels=config["output_channels"], channels=[8, 8, 8]),
    )
    branch.bev_backbone = nn.Identity()  # the case ends before it
    return branch


KINDS = {
    "matrixvt/ring_ray": check_ring_ray,
    "matrixvt/view_transform": check_view_transform,
    "matrixvt/depth_net": check_depth_net,
    "matrixvt/deform_conv_v1": check_deform_conv,
    "matrixvt/depth_loss": check_depth_loss,
    "matrixvt/full_backbone": check_full_backbone,
}
