from __future__ import annotations

import pytest
import torch

from sparse3d.models import ResidualBEVBackbone, scatter_to_bev

COORDS = torch.tensor([[0, 0, 0, 2], [0, 0, 1, 0], [2, 0, 1, 2]], dtype=torch.int32)


def backbone(**changes: object) -> ResidualBEVBackbone:
    levels = dict(num_blocks=[1, 0], strides=[1, 2], channels=[6, 8], up_strides=[1, 2], up_channels=[4, 5])
    return ResidualBEVBackbone(3, **{**levels, **changes})


def test_scatter_puts_every_voxel_in_its_cell_and_keeps_the_empty_sample() -> None:
    features = torch.randn(3, 4, requires_grad=True)
    bev = scatter_to_bev(features, COORDS, 3, (2, 3))
    expected = torch.zeros(3, 4, 2, 3)
    for feature, (b, _, y, x) in zip(features.detach(), COORDS.tolist(), strict=True):
        expected[b, :, y, x] = feature
    assert torch.equal(bev, expected)
    assert bev.is_contiguous(memory_format=torch.channels_last)
    weight = torch.randn_like(bev)
    (bev * weight).sum().backward()
    b, _, y, x = COORDS.long().unbind(1)
    assert torch.equal(features.grad, weight[b, :, y, x])


def test_scatter_of_nothing_is_an_empty_map() -> None:
    bev = scatter_to_bev(torch.zeros(0, 4), torch.zeros(0, 4, dtype=torch.int32), 2, (5, 6))
    assert bev.shape == (2, 4, 5, 6)
    assert not bev.any()


@pytest.mark.parametrize("bad", [(0, 1, 0, 0), (0, 0, 2, 0), (0, 0, 0, 3), (3, 0, 0, 0), (0, 0, -1, 0)])
def test_scatter_refuses_voxels_outside_the_map(bad: tuple) -> None:
    with pytest.raises(ValueError, match="must lie in"):
        scatter_to_bev(torch.zeros(1, 4), torch.tensor([bad]), 3, (2, 3))


@pytest.mark.parametrize(
    ("strides", "up_strides", "size"), [([1, 2], [1, 2], (8, 12)), ([2, 2], [1, 2], (4, 6)), ([1, 2], [0.5, 1], (4, 6))]
)
def test_levels_meet_at_one_resolution(strides: list, up_strides: list, size: tuple) -> None:
    out = backbone(strides=strides, up_strides=up_strides)(torch.randn(2, 3, 8, 12))
    assert out.shape == (2, 9, *size)
    assert out.is_contiguous(memory_format=torch.channels_last)


def test_every_parameter_learns() -> None:
    model = backbone()
    (model(torch.randn(2, 3, 8, 12)) * torch.randn(2, 9, 8, 12)).sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_levels_that_do_not_meet_are_refused() -> None:
    with pytest.raises(ValueError, match="end at scales"):
        backbone(up_strides=[1, 1])
    with pytest.raises(ValueError, match="one entry a level"):
        backbone(channels=[6])
