"""VoxelKP's backbone: what its parts compute, and what they do at the edges."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS
from torch import Tensor, nn

from sparse3d.checkpoints import load_official_state, voxelkp
from sparse3d.checkpoints.convert import convert_names
from sparse3d.config import load_config
from sparse3d.models import VoxelKPEncoder
from sparse3d.models.points.box_attention import BoxAttention, BoxWindows
from sparse3d.models.points.selective_kernel import SelectiveUnit
from sparse3d.models.points.voxelkp import SCALE_FACTORS, HybridStage
from sparse3d.registry import MODELS
from sparse3d.structures import Grid
from sparse3d_ops import Segments
from sparse3d_ops.sparse import Sites, SparseTensor
from tests.conftest import REPOSITORY

from .people import GRID, detector_config, encoder_config, people, sample_of

SHAPE = (4, 20, 24)


def sites(counts: list[int], shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> Sites:
    """So many voxels in each sample."""
    generator = torch.Generator().manual_seed(seed)
    cells = [
        torch.randperm(int(np.prod(shape)), generator=generator)[:count] + sample * int(np.prod(shape))
        for sample, count in enumerate(counts)
    ]
    return Sites.from_keys(torch.cat(cells).sort().values, shape, len(counts))


def by_sample(where: Sites) -> Segments:
    return Segments.from_index(where.indices[:, 0].long(), where.batch_size)


# -- selective kernels -----------------------------------------------------------------------------------------------


def test_each_sample_chooses_its_kernels_by_itself() -> None:
    where = sites([40, 0, 60])
    unit = SelectiveUnit(16).eval()
    x = SparseTensor.on(where, torch.randn(len(where), 16))
    together = unit(x, by_sample(where)).features
    for sample, count in ((0, 40), (2, 60)):
        rows = where.indices[:, 0] == sample
        indices = where.indices[rows].clone()
        indices[:, 0] = 0
        alone = SparseTensor(x.features[rows], indices, SHAPE, 1)
        torch.testing.assert_close(unit(alone, by_sample(alone.sites)).features, together[rows])
        assert int(rows.sum()) == count


def test_selected_weights_add_up_to_one_on_every_channel() -> None:
    where = sites([30, 20])
    unit = SelectiveUnit(16, kernel_sizes=(3, 5, 7)).eval()
    weights = unit.select(torch.randn(len(where), 16), by_sample(where))
    assert len(weights) == 3
    torch.testing.assert_close(sum(weights), torch.ones(len(where), 16))


@pytest.mark.parametrize("counts", [[0], [1], [25], [0, 12]])
def test_selective_units_train_on_any_batch(counts: list[int]) -> None:
    """One sample leaves one squeezed row, which has no variance; an empty one must not make NaN."""
    where = sites(counts)
    unit = SelectiveUnit(16)
    features = torch.randn(len(where), 16, requires_grad=True)
    out = unit(SparseTensor.on(where, features), by_sample(where)).features
    out.square().sum().backward()
    assert out.isfinite().all() and features.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in unit.parameters())


def test_too_narrow_a_unit_is_refused() -> None:
    with pytest.raises(ValueError, match="4 channels cannot be squeezed 8 times"):
        SelectiveUnit(4)


# -- box attention ---------------------------------------------------------------------------------------------------


def attention_reference(attention: BoxAttention, x: Tensor, window: Tensor) -> Tensor:
    """Every pair of rows, those of other windows hidden."""
    heads = attention.num_heads
    q, k, v = (layer(x).unflatten(1, (heads, -1)).transpose(0, 1) for layer in (attention.q, attention.k, attention.v))
    scores = q @ k.transpose(1, 2) * q.shape[-1] ** -0.5
    hidden = (window[:, None] != window).any(dim=-1)
    weights = scores.masked_fill(hidden, -torch.inf).softmax(dim=-1)
    return attention.proj((weights @ v).transpose(0, 1).flatten(1))


@settings(max_examples=15, deadline=None)
@given(counts=st.lists(st.integers(0, 80), min_size=1, max_size=3), size=st.integers(1, 8), corner=st.booleans())
def test_attention_is_that_of_all_pairs_in_a_window(counts: list[int], size: int, corner: bool) -> None:
    torch.manual_seed(0)
    where = sites(counts)
    attention = BoxAttention(8, 2).double()
    x = torch.randn(len(where), 8, dtype=torch.float64, requires_grad=True)
    coords = where.coords.long().clone()
    if not corner and len(where):
        coords[:, 1:] -= coords[:, 1:].amin(dim=0)
    coords[:, 1:] //= size

    weight = torch.randn(len(where), 8, dtype=torch.float64)
    ours = attention(x, BoxWindows.partition(where, size, from_corner=corner))
    (gradient,) = torch.autograd.grad((ours * weight).sum(), x)
    reference = attention_reference(attention, x, coords)
    (expected,) = torch.autograd.grad((reference * weight).sum(), x)
    torch.testing.assert_close(ours, reference)
    torch.testing.assert_close(gradient, expected)


def test_windows_that_start_at_the_corner_do_not_depend_on_the_batch() -> None:
    first = sites([50], seed=1)
    other = torch.tensor([[1, 0, 0, 0]], dtype=torch.int32)  # a voxel of a second sample in the corner
    inner = first.indices[(first.indices[:, 2] > 2) & (first.indices[:, 3] > 2)]
    alone, together = Sites(inner, SHAPE, 1), Sites(torch.cat([inner, other]), SHAPE, 2)
    attention = BoxAttention(8, 2)
    x = torch.randn(len(together), 8)
    for from_corner in (True, False):
        one, both = (
            attention(x[: len(where)], BoxWindows.partition(where, 6, from_corner))[: len(inner)]
            for where in (alone, together)
        )
        assert torch.allclose(one, both, atol=1e-6) == from_corner


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="not divisible by 3 heads"):
        BoxAttention(8, 3)


# -- the backbone ----------------------------------------------------------------------------------------------------


def test_a_hybrid_adds_what_each_voxel_says_of_itself() -> None:
    where = sites([30, 10])
    stage = HybridStage(16, num_heads=4).eval()
    x = SparseTensor.on(where, torch.randn(len(where), 16))
    index, out = stage.index(x), x
    for block in stage.blocks:
        out = block(out, index)
    torch.testing.assert_close(stage(x).features, out.features + stage.points(x.features))


def test_coarse_cells_fall_on_one_of_the_cells_that_they_cover() -> None:
    encoder = MODELS.build(encoder_config()).eval()
    for collapse in encoder.collapses:
        collapse.eval()
    height, width = GRID.out_shape
    depths = encoder.fused_depths()
    scales = []
    for level, depth in enumerate(depths):
        shape = (depth, height >> level, width >> level)
        where = torch.tensor([[0, depth - 1, 1, 2], [1, 0, 0, 3]], dtype=torch.int32)
        scales.append(SparseTensor(torch.rand(2, 16), where, shape, 2))
    fused = encoder.fuse(scales)
    expected = {(0, 1 * 2**k + k, 2 * 2**k + k) for k in range(3)} | {(1, 0 * 2**k + k, 3 * 2**k + k) for k in range(3)}
    assert {tuple(row) for row in fused.indices.tolist()} == expected
    assert fused.spatial_shape == GRID.out_shape
    for level, (factor, scale) in enumerate(zip(SCALE_FACTORS, scales, strict=True)):
        row = fused.indices.tolist().index([0, 2**level + level, 2 * 2**level + level])
        alone = encoder.collapses[level](scale).features[0]
        torch.testing.assert_close(fused.features[row], factor * alone)


@pytest.mark.parametrize("num_points", [0, 1, 400])
def test_scans_with_any_number_of_points_pass(num_points: int) -> None:
    detector = MODELS.build(detector_config()).eval()
    samples = [sample_of(people(3, 0), 0), sample_of(people(2, 1), 1)]
    samples[1].points = samples[1].points[:num_points]
    with torch.no_grad():
        for chosen in (samples, samples[1:]):
            out = detector(**detector.data_preprocessor(chosen), mode="predict")
            assert len(out) == len(chosen)


def test_all_parameters_learn() -> None:
    detector = MODELS.build(detector_config()).train()
    samples = [sample_of(people(4, seed), seed) for seed in range(2)]
    sum(detector(**detector.data_preprocessor(samples, training=True), mode="loss").values()).backward()
    assert [name for name, parameter in detector.named_parameters() if parameter.grad is None] == []


def test_mixed_precision_trains() -> None:
    detector = MODELS.build(detector_config()).train()
    data = detector.data_preprocessor([sample_of(people(4, seed), seed) for seed in range(2)], training=True)
    whole = detector(**data, mode="loss")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = detector(**data, mode="loss")
    sum(half.values()).backward()
    assert float(sum(half.values())) == pytest.approx(float(sum(whole.values())), rel=0.1)
    assert all(each.grad is not None and each.grad.isfinite().all() for each in detector.parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(channels=[8] * 5), "expected 6 channels and 5 kernel_sizes"),
        (dict(grid=Grid((0, 0, 0, 12.8, 12.8, 4), (0.2, 0.2, 0.2), stride=4)), "expected a grid of stride 8"),
        (dict(grid=Grid((0, 0, 0, 14.4, 12.8, 4), (0.2, 0.2, 0.2), stride=8)), "divisible by 4"),
        (dict(grid=Grid((0, 0, 0, 12.8, 12.8, 4), (0.2, 0.2, 0.2), stride=8), num_heads=3), "divisible by 3 heads"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VoxelKPEncoder(**{**{k: v for k, v in encoder_config().items() if k != "type"}, **changes})


# -- the published model ---------------------------------------------------------------------------------------------


def num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_config_has_the_published_size_and_schedule() -> None:
    config = load_config(REPOSITORY / "configs" / "voxelkp" / "voxelkp_waymo.py")
    with torch.device("meta"):
        detector = MODELS.build(config.model)
    encoder = detector.point_branch.backbone
    assert (num_parameters(encoder), num_parameters(detector.head)) == (100_459_744, 10_651_458)  # 100.46 M, 10.65 M
    assert encoder.spatial_shape == (61, 1504, 1504) and encoder.fused_depths() == [8, 4, 2]

    wrapper = build_optim_wrapper(nn.Linear(2, 2), config.optim_wrapper)
    schedulers = [
        PARAM_SCHEDULERS.build({**each, "epoch_length": 50}, default_args=dict(optimizer=wrapper.optimizer))
        for each in config.param_scheduler
    ]
    (group,) = wrapper.optimizer.param_groups
    rates, betas = [], []
    for _ in range(36 * 50):
        rates.append(group["lr"])
        betas.append(group["betas"][0])
        for scheduler in schedulers:
            scheduler.step()
    peak = int(0.4 * 36 * 50)
    assert abs(int(np.argmax(rates)) - peak) <= 1
    assert (rates[0], max(rates)) == pytest.approx((3e-4, 3e-3), rel=1e-3)
    assert (betas[0], betas[peak], betas[-1]) == pytest.approx((0.95, 0.85, 0.95), abs=2e-3)


# Our names -> the official ones, written down here independently of the table under test.
OFFICIAL = [
    (r"^point_branch\.backbone\.", "backbone_3d."),
    (r"^head\.branches\.", "dense_head.heads_list.0."),
    (r"\.unit\.branches\.0\.0\.", ".sk.conv1."),
    (r"\.unit\.branches\.0\.1\.", ".sk.bn1."),
    (r"\.unit\.branches\.1\.0\.", ".sk.conv2."),
    (r"\.unit\.branches\.1\.1\.", ".sk.bn2."),
    (r"\.unit\.excitations\.0\.", ".sk.excitation3."),
    (r"\.unit\.excitations\.1\.", ".sk.excitation5."),
    (r"\.unit\.", ".sk."),
    (r"\.attention\.", ".attn.attn."),
    (r"\.stem\.", ".conv_input."),
    (r"\.stages\.0\.([01])\.norm", r".conv1.\1.bn"),
    (r"\.stages\.0\.", ".conv1."),
    (r"\.stages\.1\.([12])\.norm", r".conv2.\1.bn"),
    (r"\.stages\.([2345])\.1\.blocks\.([02])\.norm", r".stages.\1.1.voxel_conv.\2.bn"),
    (r"\.stages\.([2345])\.1\.blocks\.1\.norm(.)(?=.*$)", r".stages.\1.1.blocks.1.norm\2"),
    (r"\.dilate\.", ".conv_out."),
    (r"backbone_3d\.shared\.", "backbone_3d.shared_conv."),
]


def official_name(ours: str) -> str:
    name = ours
    for pattern, replacement in OFFICIAL:
        name = re.sub(pattern, replacement, name)
    attends = re.search(r"\.stages\.([45])\.1\.blocks\.([13])\.", name)
    if attends:
        name = re.sub(r"\.norm([12])\.", r".norm\1.ln.", name)
    elif ".blocks." in name:
        name = re.sub(r"\.norm([12])\.", r".bn\1.", name)
    name = re.sub(r"\.stages\.(\d)\.", lambda found: f".conv{int(found[1]) + 1}.", name)
    name = re.sub(r"\.collapses\.(\d)\.", lambda found: f".conv{int(found[1]) + 4}_bev.", name)
    return name.replace(".blocks.", ".voxel_conv.").replace(".points.", ".point_conv.")


def test_official_weights_load_in_full() -> None:
    detector = MODELS.build(detector_config())
    wanted = {name: torch.rand_like(value.float()).to(value.dtype) for name, value in detector.state_dict().items()}
    official = {official_name(name): value for name, value in wanted.items()}
    load_official_state(detector, "voxelkp", {**official, "global_step": torch.ones(1)})
    for name, value in detector.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(value, wanted[name])


def test_the_names_of_the_recorded_state_are_those_of_the_test(shared: Path) -> None:
    with np.load(shared / "golden" / "voxelkp" / "backbone_a.npz") as arrays:
        theirs = {name[6:] for name in arrays.files if name.startswith("state/")}
    encoder = MODELS.build(encoder_config())
    ours = {f"point_branch.backbone.{name}" for name in encoder.state_dict() if not name.endswith("tracked")}
    assert {official_name(name).removeprefix("backbone_3d.") for name in ours} == theirs
    assert len(convert_names({name: torch.empty(0) for name in theirs}, voxelkp.ENCODER)) == len(theirs)
