"""VoxelKP: selective kernels, box attention, a hybrid stage and the backbone; its head is in `voxelkp_head.py`."""

from __future__ import annotations

from torch import Tensor, nn

from sparse3d.checkpoints import voxelkp as names
from sparse3d.models.points.box_attention import BoxAttentionBlock, BoxWindows, StageIndex
from sparse3d.models.points.selective_kernel import SelectiveKernelBlock
from sparse3d.models.points.voxelkp import HybridStage, VoxelKPEncoder
from sparse3d.structures import Grid
from sparse3d_ops import Segments
from sparse3d_ops.sparse import SparseTensor

from ..cases import Case
from ..compare import Comparison
from .dsvt import _inputs, _prepare, _weighted


def _rows(case: Case, shape: list[int]) -> tuple[Tensor, SparseTensor]:
    """The input of a block: its features as a leaf, and the tensor made of them."""
    inputs = _inputs(case)
    features = inputs["features"].requires_grad_()
    batch_size = int(inputs["indices"][:, 0].max()) + 1
    return features, SparseTensor.coalesce(features, inputs["indices"], shape, batch_size)


def _check_block(case: Case, block: nn.Module, rules: names.Rules, window_size: int | None = None) -> None:
    """A block that takes a tensor and, unless it is a whole stage, the index of its sites."""
    comparison = _prepare(case, block, rules)
    features, x = _rows(case, case.config["config"]["spatial_shape_zyx"])
    if isinstance(block, HybridStage):
        out = block(x)
    else:
        samples = Segments.from_index(x.indices[:, 0].long(), x.batch_size)
        windows = None if window_size is None else BoxWindows.partition(x.sites, window_size)
        out = block(x, StageIndex(samples, windows))
    comparison.output("indices", out.indices)
    comparison.output("features", out.features)
    _weighted(case, out.features).backward()
    comparison.gradients(block, features=features)
    comparison.finish()


def check_selective_kernel(case: Case) -> None:
    config = case.config["config"]
    assert config["inplanes"] == config["planes"] and (config["ratio"], config["kernels"]) == (8, [3, 5])
    _check_block(case, SelectiveKernelBlock(config["planes"]), names.SELECTIVE_KERNEL)


def check_box_attention(case: Case) -> None:
    config = case.config["config"]
    assert not config["shift_win"]
    block = BoxAttentionBlock(config["channels"], config["num_heads"])
    _check_block(case, block, names.BOX_ATTENTION, config["window_size"])


def check_hybrid_stage(case: Case) -> None:
    config = case.config["config"]
    block = HybridStage(config["planes"], config["num_heads"], config["window_size"])
    _check_block(case, block, names.HYBRID)


def check_backbone(case: Case) -> None:
    config, inputs = case.config["config"], _inputs(case)
    model, shape = config["model_cfg"], config["grid_size_xyz"]
    encoder = VoxelKPEncoder(
        Grid((0, 0, 0, *shape), (1, 1, 1), stride=8),
        config["input_channels"],
        channels=[*model["CHANNELS"], model["CHANNELS"][-1]],
        kernel_sizes=[*model["SPCONV_KERNEL_SIZES"], 3],
        out_channels=model["OUT_CHANNEL"],
    )
    comparison = _prepare(case, encoder, names.ENCODER)
    batch_size = int(inputs["voxel_coords"][:, 0].max()) + 1
    x = SparseTensor.coalesce(inputs["voxel_features"], inputs["voxel_coords"], encoder.spatial_shape, batch_size)
    stages: dict[int, SparseTensor] = {}
    for number, stage in enumerate(encoder.stages, start=1):
        stage.register_forward_hook(lambda _, __, out, number=number: stages.update({number: out}))
    out, losses = encoder(x)
    assert not losses
    for number in (3, 4, 5, 6):
        _compare_tensor(comparison, f"conv{number}/", stages[number])
    _compare_tensor(comparison, "bev/", encoder.fuse([stages[4], stages[5], stages[6]]))
    _compare_tensor(comparison, "", out)
    _weighted(case, out.features).backward()
    comparison.gradients(encoder)
    comparison.finish()


def _compare_tensor(comparison: Comparison, prefix: str, x: SparseTensor) -> None:
    """Compare sites, and the channels that are stored; rows of fixtures are in our order."""
    shape = comparison.take(f"out/{prefix}spatial_shape").tolist()
    assert list(x.spatial_shape)[: len(shape)] == shape
    comparison.output(f"{prefix}indices", x.indices)
    channels = comparison.case.arrays[f"out/{prefix}features"].shape[1]
    comparison.output(f"{prefix}features", x.features[:, :channels])


KINDS = {
    "voxelkp/sk_block": check_selective_kernel,
    "voxelkp/box_attention": check_box_attention,
    "voxelkp/hybrid_stage": check_hybrid_stage,
    "voxelkp/backbone": check_backbone,
}
