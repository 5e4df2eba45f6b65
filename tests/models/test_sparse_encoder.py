"""Mean voxels, sparse encoders, SECOND's backbone and the branch that joins them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sparse3d.config import load_config
from sparse3d.models import (
    Detector3D,
    FocalEncoder,
    GroundTruth,
    MeanVoxelEncoder,
    Preprocessor,
    SECONDBEVBackbone,
    SparseEncoder,
    stack_layers,
)
from sparse3d.models.points.sparse_layers import SparseResidualBlock
from sparse3d.registry import MODELS, TRANSFORMS
from sparse3d.structures import Grid, Voxels
from sparse3d_ops.sparse import SparseTensor
from tests.conftest import REPOSITORY

from .build import head_config, random_sample

GRID = Grid((-12.8, -9.6, -3, 12.8, 9.6, 3), (0.4, 0.4, 0.15), stride=8)
SMALL = dict(channels=[4, 6, 8, 8], out_channels=8)
CONFIGS = [
    ("centerpoint/centerpoint_voxel0075_nuscenes", 2_695_312, (2, 180, 180)),
    ("focals_conv/focals_conv_voxel0075_nuscenes", 2_922_336, (2, 180, 180)),
    ("focals_conv/focals_conv_centerpoint_waymo", 939_328, (2, 188, 188)),
]


def load(name: str) -> Any:
    return load_config(REPOSITORY / "configs" / f"{name}.py")


def random_voxels(encoder: SparseEncoder, counts: tuple[int, ...] = (80, 60), columns: int = 5) -> SparseTensor:
    depth, height, width = encoder.spatial_shape
    cells = [torch.randint(depth - 1, (sum(counts),)), torch.randint(height, (sum(counts),))]
    cells.append(torch.randint(width, (sum(counts),)))
    batch = torch.repeat_interleave(torch.tensor(counts))
    indices = torch.stack([batch, *cells], dim=1).int()
    return SparseTensor.coalesce(torch.randn(len(indices), columns), indices, encoder.spatial_shape, len(counts))


# -- mean voxels ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_points", [None, 1, 3])
def test_the_mean_of_the_first_points(max_points: int | None) -> None:
    voxels = Preprocessor(Grid((-12.8, -9.6, -3, 12.8, 9.6, 3), (3.2, 3.2, 3)), 5)([random_sample(300)])["batch"].voxels
    found = MeanVoxelEncoder(5, max_points)(voxels)
    expected = [
        voxels.points[voxels.point_to_voxel == row][:max_points].mean(dim=0) for row in range(len(voxels.coords))
    ]
    torch.testing.assert_close(found, torch.stack(expected))


def test_mean_voxels_check_their_input() -> None:
    with pytest.raises(ValueError, match="max_points"):
        MeanVoxelEncoder(5, 0)
    none = Voxels(torch.zeros(0, 4).int(), torch.zeros(0, 4), torch.zeros(0).long(), 1)
    with pytest.raises(ValueError, match=r"expected \[P, 5\]"):
        MeanVoxelEncoder(5)(none)
    assert MeanVoxelEncoder(4, 2)(none).shape == (0, 4)


# -- encoders ------------------------------------------------------------------------------------------------------


def dense_conv(x: Tensor, weight: Tensor, bias: Tensor | None, active: Tensor, **steps: Any) -> Tensor:
    return F.conv3d(x, weight.movedim(-1, 1), bias, **steps) * active


def test_a_residual_block_is_dense_convolution_on_its_sites() -> None:
    torch.manual_seed(0)
    block = SparseResidualBlock(3).double().eval()
    indices = (torch.rand(2, 4, 5, 6) < 0.3).nonzero().int()
    x = SparseTensor(torch.randn(len(indices), 3, dtype=torch.float64), indices, (4, 5, 6), 2)
    active = x.replace_features(torch.ones_like(x.features[:, :1])).dense()

    def norm(dense: Tensor, layer: torch.nn.Module) -> Tensor:
        return F.batch_norm(dense, layer.running_mean, layer.running_var, layer.weight, layer.bias, eps=1e-3) * active

    hidden = norm(dense_conv(x.dense(), block.conv1.weight, block.conv1.bias, active, padding=1), block.norm1).relu()
    out = norm(dense_conv(hidden, block.conv2.weight, block.conv2.bias, active, padding=1), block.norm2)
    torch.testing.assert_close(block(x).dense(), (out + x.dense()).relu())


@pytest.mark.parametrize("block", ["residual", "plain"])
def test_encoders_reach_the_grid_of_the_head(block: str) -> None:
    encoder = SparseEncoder(Grid((-12.8, -9.6, -4, 12.8, 9.6, 4), (0.4, 0.4, 0.2), stride=8), 5, block=block, **SMALL)
    assert encoder.spatial_shape == (41, 48, 64)
    assert encoder.out_shape == (2, *encoder.grid.out_shape)
    out, losses = encoder(random_voxels(encoder))
    assert out.spatial_shape == encoder.out_shape
    assert stack_layers(out).shape == (2, encoder.bev_channels, *encoder.grid.out_shape)
    assert losses == {}


def test_stacked_layers_are_the_flattened_volume() -> None:
    indices = (torch.rand(2, 3, 4, 5) < 0.4).nonzero().int()
    x = SparseTensor(torch.randn(len(indices), 6, requires_grad=True), indices, (3, 4, 5), 2)
    bev = stack_layers(x)
    assert torch.equal(bev, x.dense().flatten(1, 2))
    assert bev.is_contiguous(memory_format=torch.channels_last)
    weight = torch.randn_like(bev)
    (found,) = torch.autograd.grad((bev * weight).sum(), x.features)
    (expected,) = torch.autograd.grad((x.dense().flatten(1, 2) * weight).sum(), x.features)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("kind", [SparseEncoder, FocalEncoder])
@pytest.mark.parametrize("counts", [(0, 0), (40, 0), (0, 40), (1, 0)], ids=str)
def test_empty_samples_train(kind: type[SparseEncoder], counts: tuple[int, ...]) -> None:
    encoder = kind(GRID, 5, **SMALL)
    out, _ = encoder(random_voxels(encoder, counts))
    stack_layers(out).sum().backward()
    assert out.batch_size == 2
    assert all(torch.isfinite(p.grad).all() for p in encoder.parameters() if p.grad is not None)
    assert all(torch.isfinite(value.float()).all() for value in encoder.state_dict().values())


def test_impossible_encoders_are_refused() -> None:
    with pytest.raises(ValueError, match="block: must be one of"):
        SparseEncoder(GRID, 5, block="dense")
    with pytest.raises(ValueError, match="a grid of stride 8"):
        SparseEncoder(Grid(GRID.point_range, GRID.voxel_size, stride=4), 5)
    with pytest.raises(ValueError, match="num_blocks"):
        SparseEncoder(GRID, 5, num_blocks=[2, 2])
    with pytest.raises(ValueError, match="4 layers are too few"):
        SparseEncoder(Grid(GRID.point_range, (0.4, 0.4, 1.5), stride=8), 5)
    with pytest.raises(ValueError, match="focal_stages"):
        FocalEncoder(GRID, 5, focal_stages=[0, 1])
    with pytest.raises(ValueError, match="importance_targets"):
        FocalEncoder(GRID, 5, importance_targets="all")


# -- the focal encoder ---------------------------------------------------------------------------------------------


def test_the_importance_loss_is_the_sum_over_focal_layers() -> None:
    torch.manual_seed(0)
    truth = GroundTruth.gather([random_sample(seed=0), random_sample(seed=1)])
    whole = FocalEncoder(GRID, 5, **SMALL).eval()
    x = random_voxels(whole)
    assert whole(x)[1] == {}
    seen = []
    for focal in whole.focals.values():
        focal.register_forward_hook(lambda _, given, out: seen.append((given[0].sites, out[1])))
    losses = whole(x, truth)[1]
    expected = sum(whole.loss(importance, sites, 2**n, truth) for n, (sites, importance) in enumerate(seen))
    assert len(seen) == 3
    torch.testing.assert_close(losses["loss_importance"], expected)


def test_the_importance_loss_can_be_left_out() -> None:
    truth = GroundTruth.gather([random_sample(seed=0), random_sample(seed=1)])
    encoder = FocalEncoder(GRID, 5, importance_targets=None, **SMALL)
    assert encoder(random_voxels(encoder), truth)[1] == {}


# -- bird's-eye backbone -------------------------------------------------------------------------------------------


def test_second_is_padding_convolution_norm_and_relu() -> None:
    torch.manual_seed(0)
    backbone = SECONDBEVBackbone(3, [1, 0], [1, 2], [4, 6], [1, 2], [5, 7]).eval()
    bev = torch.randn(2, 3, 8, 12)

    def block(x: Tensor, layers: torch.nn.Sequential, stride: int) -> Tensor:
        return layers[1](F.conv2d(F.pad(x, (1, 1, 1, 1)), layers[0].weight, stride=stride)).relu()

    first, second = backbone.levels
    fine = block(block(bev, first[0], 1), first[1], 1)
    coarse = block(fine, second[0], 2)
    expected = torch.cat([neck(level) for neck, level in zip(backbone.necks, (fine, coarse), strict=True)], dim=1)
    torch.testing.assert_close(backbone(bev), expected)
    assert backbone.out_channels == expected.shape[1] == 12


# -- detectors -----------------------------------------------------------------------------------------------------


def small_detector(backbone: str) -> Detector3D:
    torch.manual_seed(0)
    return MODELS.build(
        dict(
            type="Detector3D",
            data_preprocessor=dict(type="Preprocessor", grid=GRID, num_features=5),
            point_branch=dict(
                type="SparseConvBranch",
                grid=GRID,
                voxel_encoder=dict(type="MeanVoxelEncoder", num_features=5, max_points=10),
                backbone=dict(type=backbone, grid=GRID, in_channels=5, **SMALL),
                bev_backbone=dict(
                    type="SECONDBEVBackbone",
                    in_channels=16,
                    num_blocks=[1, 1],
                    strides=[1, 2],
                    channels=[8, 8],
                    up_strides=[1, 2],
                    up_channels=[12, 12],
                ),
            ),
            head=head_config(grid=GRID),
        )
    )


@pytest.mark.parametrize("backbone", ["SparseEncoder", "FocalEncoder"])
def test_detectors_train_and_predict(backbone: str) -> None:
    detector = small_detector(backbone)
    samples = [random_sample(), random_sample(seed=1)]
    for sample in samples:  # an L1 bias gets no gradient where as many objects pull up as down
        sample.gt.boxes.tensor[:, 7:] = 9.0
    losses = detector(**detector.data_preprocessor(samples, True), mode="loss")
    assert ("loss_importance" in losses) == (backbone == "FocalEncoder")
    sum(losses.values()).backward()
    silent = [name for name, p in detector.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []
    assert len(detector.eval().test_step(samples)) == 2


@pytest.mark.parametrize("backbone", ["SparseEncoder", "FocalEncoder"])
def test_mixed_precision_trains(backbone: str) -> None:
    detector = small_detector(backbone)
    data = detector.data_preprocessor([random_sample(), random_sample(seed=1)], True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = detector(**data, mode="loss")
    assert all(torch.isfinite(value) and value.dtype == torch.float32 for value in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in detector.parameters())


@pytest.mark.parametrize(("name", "parameters", "out_shape"), CONFIGS)
def test_published_sizes(name: str, parameters: int, out_shape: tuple[int, ...]) -> None:
    config = load(name)
    detector = MODELS.build(config.model)
    encoder = detector.point_branch.backbone
    assert sum(parameter.numel() for parameter in encoder.parameters()) == parameters
    assert encoder.out_shape == out_shape
    assert detector.point_branch.bev_backbone.levels[0][0][0].in_channels == encoder.bev_channels
    assert detector.head.grid == encoder.grid
    if "nuscenes" in name:
        steps = [*config.train_pipeline, *config.test_pipeline]
        assert all(TRANSFORMS.get(step.type) is not None for step in steps)
