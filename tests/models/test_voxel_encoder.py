from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sparse3d.models import DynamicVoxelEncoder, Preprocessor
from sparse3d.structures import Grid, Voxels

from .build import GRID, random_sample

VOXEL_GRID = Grid((-12.8, -9.6, -3, 12.8, 9.6, 3), (1.6, 1.6, 1.5))


def voxels_of(grid: Grid, *samples: object, keep_outside_z: bool = False) -> Voxels:
    return Preprocessor(grid, 5, keep_outside_z=keep_outside_z)(samples)["batch"].voxels


def by_the_book(encoder: DynamicVoxelEncoder, voxels: Voxels) -> Tensor:
    """The definition, voxel by voxel; only for eval mode, where points do not share statistics."""
    features = []
    for row, (_, z, y, x) in enumerate(voxels.coords.tolist()):
        points = voxels.points[voxels.point_to_voxel == row]
        xyz = points[:, :3]
        place = torch.tensor([x, y, z]) + 0.5
        centre = place * torch.tensor(encoder.grid.voxel_size) + torch.tensor(encoder.grid.lower)
        parts = [points, xyz - xyz.mean(dim=0), xyz - centre]
        if encoder.with_distance:
            parts.append(xyz.square().sum(dim=1, keepdim=True).sqrt())
        hidden = torch.cat(parts, dim=1)
        for layer in encoder.layers:
            hidden = F.relu(layer.norm(hidden @ layer.linear.weight.T))
            top = hidden.amax(dim=0)
            hidden = torch.cat([hidden, top.expand_as(hidden)], dim=1)
        features.append(top)
    return torch.stack(features)


@pytest.mark.parametrize("grid", [GRID, VOXEL_GRID], ids=["pillars", "voxels"])
@pytest.mark.parametrize(("channels", "with_distance"), [([8], False), ([16, 12], True), ([8, 12, 16], False)])
def test_follows_the_definition(grid: Grid, channels: list[int], with_distance: bool) -> None:
    encoder = DynamicVoxelEncoder(grid, 5, channels, with_distance=with_distance).eval()
    for layer in encoder.layers:
        torch.nn.init.normal_(layer.norm.running_mean)
        torch.nn.init.uniform_(layer.norm.running_var, 0.5, 2.0)
        torch.nn.init.normal_(layer.norm.weight)  # a negative scale turns the order of a channel's points around
        torch.nn.init.normal_(layer.norm.bias)
    voxels = voxels_of(grid, random_sample(200), random_sample(3, seed=1))
    torch.testing.assert_close(encoder(voxels), by_the_book(encoder, voxels), rtol=1e-4, atol=1e-5)


def test_an_empty_cloud_gives_no_feature_and_keeps_statistics() -> None:
    encoder = DynamicVoxelEncoder(GRID, 5, [16, 16]).train()
    before = [layer.norm.running_var.clone() for layer in encoder.layers]
    features = encoder(voxels_of(GRID, random_sample(0)))
    assert features.shape == (0, 16)
    assert all(torch.equal(a, layer.norm.running_var) for a, layer in zip(before, encoder.layers, strict=True))


def test_a_single_point_trains() -> None:
    encoder = DynamicVoxelEncoder(GRID, 5, [16, 16]).train()
    sample = random_sample(1)
    sample.points = torch.zeros(1, 5)
    encoder(voxels_of(GRID, sample)).sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())


def test_metres_keep_full_precision_under_autocast() -> None:
    encoder = DynamicVoxelEncoder(GRID, 5, [16, 16]).eval()
    voxels = voxels_of(GRID, random_sample(100))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = encoder(voxels)
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, encoder(voxels))


def test_points_above_the_range_are_kept_only_on_request() -> None:
    sample = random_sample(2)
    sample.points = torch.tensor([[0.1, 0.1, 99.0, 0, 0], [0.1, 0.1, 0.0, 0, 0]])
    assert len(voxels_of(GRID, sample).points) == 1
    assert len(voxels_of(GRID, sample, keep_outside_z=True).points) == 2


def test_other_columns_are_refused() -> None:
    with pytest.raises(ValueError, match=r"voxels.points: expected \[P, 4\], got"):
        DynamicVoxelEncoder(GRID, 4, [8])(voxels_of(GRID, random_sample(5)))
    with pytest.raises(ValueError, match="channels"):
        DynamicVoxelEncoder(GRID, 4, [7, 8])


def test_scales_divide_the_descriptor() -> None:
    plain, scaled = (DynamicVoxelEncoder(GRID, 5, [8], scales=scales).eval() for scales in (None, [2.0] * 11))
    scaled.load_state_dict(plain.state_dict())
    scaled.layers[0].linear.weight.data *= 2
    voxels = voxels_of(GRID, random_sample(100))
    torch.testing.assert_close(plain(voxels), scaled(voxels))


@pytest.mark.parametrize("scales", [[1.0] * 10, [1.0] * 10 + [0.0]])
def test_scales_that_do_not_fit_are_refused(scales: list[float]) -> None:
    with pytest.raises(ValueError, match="11 positive numbers"):
        DynamicVoxelEncoder(GRID, 5, [8], scales=scales)
