"""Focal convolution, part by part, against its definition written voxel by voxel."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparse3d.encoding.voxel_positions import voxel_positions
from sparse3d.models import FocalConv, GroundTruth
from sparse3d.models.points.focal_layers import importance_loss, inside_objects
from sparse3d.structures import Boxes3D, Grid
from sparse3d_ops.sparse import SparseTensor
from sparse3d_ops.sparse.growth import OFFSETS, choose_foreground, foreground_weights, grow, propose

SHAPE = (4, 5, 6)


def random_tensor(seed: int, density: float = 0.2, batch_size: int = 2, channels: int = 3) -> SparseTensor:
    generator = torch.Generator().manual_seed(seed)
    active = torch.rand(batch_size, *SHAPE, generator=generator) < density
    indices = active.nonzero().int()
    features = torch.randn(len(indices), channels, generator=generator, dtype=torch.float64)
    return SparseTensor(features, indices, SHAPE, batch_size)


def by_the_book(
    x: SparseTensor, foreground: Tensor, probabilities: Tensor, threshold: float, lowest: int
) -> tuple[dict[tuple, float], set[tuple]]:
    """The weight of each foreground cell, and all active cells in the end."""
    cells = [tuple(cell) for cell in x.indices.tolist()]
    received: dict[tuple, list[float]] = {}
    for row, (b, z, y, x_) in enumerate(cells):
        for tap, (dz, dy, dx) in enumerate(OFFSETS):
            target = (z + dz, y + dy, x_ + dx)
            inside = all(lowest <= place < extent for place, extent in zip(target, SHAPE, strict=True))
            if foreground[row] and inside and probabilities[row, tap] >= threshold:
                received.setdefault((b, *target), []).append(float(probabilities[row, tap]))
    weights = {}
    for row, cell in enumerate(cells):
        if foreground[row]:
            contributions = [1.0, *received.get(cell, [])]
            weights[cell] = sum(contributions) / len(contributions)
    return weights, set(cells) | set(received)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(st.integers(0, 10_000), st.sampled_from([0.1, 0.5, 0.9]), st.booleans())
def test_growth_follows_the_definition(seed: int, threshold: float, skip_first_layer: bool) -> None:
    x = random_tensor(seed)
    generator = torch.Generator().manual_seed(seed)
    probabilities = torch.rand(len(x), 26, generator=generator, dtype=torch.float64)
    foreground = torch.rand(len(x), generator=generator) < 0.5
    proposals = propose(x.sites, foreground, probabilities, threshold, skip_first_layer)
    weights = foreground_weights(x.sites, foreground, proposals)
    grown = grow(x.sites, x.features, proposals)

    expected, active = by_the_book(x, foreground, probabilities, threshold, int(skip_first_layer))
    cells = [tuple(cell) for cell in x.indices.tolist()]
    torch.testing.assert_close(weights, torch.tensor([expected.get(cell, 1.0) for cell in cells]).double())
    assert [tuple(cell) for cell in grown.indices.tolist()] == sorted(active)
    found = dict(zip(map(tuple, grown.indices.tolist()), grown.features, strict=True))
    for cell, feature in zip(cells, x.features, strict=True):
        assert torch.equal(found.pop(cell), feature)
    assert not any(feature.any() for feature in found.values())


def test_offsets_leave_out_the_centre() -> None:
    assert len(OFFSETS) == len(set(OFFSETS)) == 26
    assert sorted(OFFSETS) == list(OFFSETS)
    assert OFFSETS[0] == (-1, -1, -1)
    assert (0, 0, 0) not in OFFSETS


def test_cells_at_the_end_of_a_row_stay_apart_from_those_of_the_next() -> None:
    """A cell left of column 0 is no cell at all, whatever its packed key would be."""
    x = SparseTensor(torch.ones(1, 1), torch.tensor([[0, 1, 2, 0]]).int(), SHAPE, 1)
    proposals = propose(x.sites, torch.tensor([True]), torch.ones(1, 26), 0.5, skip_first_layer=False)
    cells = grow(x.sites, x.features, proposals).indices
    assert len(cells) == 3 * 3 * 2
    assert int(cells[:, 3].max()) == 1


def test_a_sample_does_not_grow_into_the_next() -> None:
    x = SparseTensor(torch.ones(1, 1), torch.tensor([[0, 3, 4, 5]]).int(), SHAPE, 2)
    grown = grow(
        x.sites, x.features, propose(x.sites, torch.tensor([True]), torch.ones(1, 26), 0.5, skip_first_layer=False)
    )
    assert len(grown) == 8
    assert int(grown.indices[:, 0].max()) == 0


# -- foreground ----------------------------------------------------------------------------------------------------


def test_top_k_takes_the_share_of_each_sample_rounded_down() -> None:
    sample = torch.tensor([0, 0, 0, 0, 0, 1, 2, 2])
    importance = torch.tensor([0.1, 0.9, 0.3, 0.3, 0.2, 0.99, 0.01, 0.02])
    chosen = choose_foreground(importance, sample, 3, 0.5, top_k=True)
    assert chosen.tolist() == [False, True, True, False, False, False, False, True]


def test_a_threshold_is_exclusive() -> None:
    importance = torch.tensor([0.5, 0.51, 0.1])
    assert choose_foreground(importance, torch.zeros(3).long(), 1, 0.5, top_k=False).tolist() == [False, True, False]


@settings(deadline=None, max_examples=40, derandomize=True)
@given(st.integers(0, 10_000), st.floats(0, 1))
def test_top_k_is_a_cut_by_importance(seed: int, share: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    sample = torch.randint(3, (40,), generator=generator).sort().values
    importance = torch.rand(40, generator=generator)
    chosen = choose_foreground(importance, sample, 3, share, top_k=True)
    for number in range(3):
        own, mine = importance[sample == number], chosen[sample == number]
        assert int(mine.sum()) == int(len(own) * share)
        if mine.any() and not mine.all():
            assert own[mine].min() >= own[~mine].max()


# -- loss ----------------------------------------------------------------------------------------------------------


def test_the_loss_is_a_focal_loss_of_a_softmax_of_probabilities() -> None:
    importance = torch.rand(50, dtype=torch.float64).float()
    inside = torch.rand(50) < 0.3
    q = torch.stack([1 - importance, importance], dim=1).softmax(dim=1)
    one_hot = torch.stack([~inside, inside], dim=1)
    expected = torch.where(one_hot, -((1 - q) ** 2) * q.log(), torch.zeros(())).mean()
    torch.testing.assert_close(importance_loss(importance, inside), expected)


def test_the_loss_of_nothing_is_zero_and_knows_nan() -> None:
    assert importance_loss(torch.zeros(0), torch.zeros(0, dtype=torch.bool)) == 0
    assert importance_loss(torch.tensor([torch.nan]), torch.tensor([True])).isnan()


def test_positions_are_lower_corners_of_the_grid() -> None:
    grid = Grid((-8, -4, -2, 8, 4, 2), (0.5, 0.25, 0.2), stride=1)
    x = SparseTensor(torch.ones(1, 1), torch.tensor([[0, 2, 3, 1]]).int(), (11, 16, 16), 1)
    torch.testing.assert_close(voxel_positions(x.sites, grid, 2), torch.tensor([[-7.0, -2.5, -1.2]]))


def test_inside_objects_by_either_rule() -> None:
    boxes = Boxes3D([[0.0, 0, 0, 4, 1, 1, torch.pi / 2], [10, 0, 0, 2, 2, 2, 0]])
    truth = GroundTruth(boxes, torch.zeros(2).long(), torch.tensor([0, 1]), 2)
    positions = torch.tensor([[0, 1.9, 0], [1.9, 0, 0], [0.5, 0, 0.5], [10, 0, 0], [3.9, 0.9, -0.9], [0, 0, 0]])
    sample = torch.tensor([0, 0, 0, 0, 0, 1])
    rotated = inside_objects(positions, sample, truth, "rotated")
    assert rotated.tolist() == [True, False, True, False, False, False]
    doubled = inside_objects(positions, sample, truth, "doubled")
    assert doubled.tolist() == [False, True, True, False, True, False]
    with pytest.raises(ValueError, match="rule"):
        inside_objects(positions, sample, truth, "halved")


# -- the whole -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("top_k", [True, False])
@pytest.mark.parametrize("enlarge_channels", [None, 5])
def test_every_parameter_learns_through_features_and_loss(top_k: bool, enlarge_channels: int | None) -> None:
    x = random_tensor(0, density=0.4, channels=4)
    block = FocalConv(4, top_k=top_k, scale_by_importance=True, enlarge_channels=enlarge_channels).double()
    out, importance = block(x)
    assert len(importance) == len(x)
    (out.features * torch.randn_like(out.features)).sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in block.parameters())
    assert block.predictor.weight.grad[:-1].abs().sum() > 0, "the neighbours' probabilities weigh foreground"
    assert block.predictor.weight.grad[-1].abs().sum() > 0, "the importance scales features"


@pytest.mark.parametrize("count", [0, 1])
def test_none_and_one_voxel(count: int) -> None:
    """One voxel: half of it, rounded down, is no foreground at all."""
    x = SparseTensor(torch.randn(count, 3), torch.tensor([[1, 2, 2, 2]]).int()[:count], SHAPE, 2)
    out, importance = FocalConv(3)(x)
    assert len(out) == len(importance) == count
    assert torch.isfinite(out.features).all()


def test_without_foreground_it_is_a_submanifold_convolution() -> None:
    x = random_tensor(1)
    block = FocalConv(3, threshold=1.0, top_k=False).double().eval()
    out, _ = block(x)
    assert out.sites is x.sites
    plain = block.conv(x)
    torch.testing.assert_close(out.features, block.norm(plain.features).relu())


def test_neighbours_may_be_ignored_in_the_weights() -> None:
    x = random_tensor(2, density=0.4)
    block = FocalConv(3, weigh_foreground=False).double().eval()
    scores = block.predictor(x).features.sigmoid()
    selected = block.growth(x, scores)
    torch.testing.assert_close(selected.features.sum(dim=0), x.features.sum(dim=0))
    assert len(selected) > len(x)
