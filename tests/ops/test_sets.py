"""The index work of DSVT's stages; windows and sets themselves are tested in test_windows.py."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparse3d_ops import Sets, SetStage, WindowLayout, index_layout, index_stages, pool_voxels
from sparse3d_ops.sets import stage_shapes, used_layouts

SHAPE = (8, 20, 24)
STAGES = [
    SetStage(num_blocks=1, set_size=5, window_shape=(8, 6, 6), shifts=((0, 0, 0), (0, 3, 3)), hybrid_factor=(1, 2, 2)),
    SetStage(num_blocks=2, set_size=4, window_shape=(2, 6, 6), shifts=((0, 0, 0), (0, 3, 3)), stride=(4, 1, 1)),
    SetStage(num_blocks=1, set_size=4, window_shape=(1, 6, 6), shifts=((0, 0, 0), (0, 3, 3)), stride=(2, 1, 1)),
]


def voxels(count: int, seed: int = 0) -> Tensor:
    z, y, x = SHAPE
    keys = torch.randperm(2 * z * y * x, generator=torch.Generator().manual_seed(seed))[:count]
    return torch.stack([keys // (z * y * x), keys // (y * x) % z, keys // x % y, keys % x], dim=1).int()


def sets_of(count: int, seed: int = 0) -> Sets:
    stage = STAGES[0]
    found = index_layout(voxels(count, seed), SHAPE, stage.layouts[1], stage.set_size, 2, with_sets=True)
    assert found.sets is not None
    return found.sets[0]


@settings(deadline=None, max_examples=20, derandomize=True)
@given(count=st.integers(0, 300), seed=st.integers(0, 99))
def test_the_first_slot_is_the_one_that_is_shown(count: int, seed: int) -> None:
    sets = sets_of(count, seed)
    assert torch.equal(sets.index.flatten()[sets.first], torch.arange(count))
    assert not bool(sets.mask.flatten()[sets.first].any())


def test_gathering_has_the_gradient_of_plain_indexing() -> None:
    sets, rows = sets_of(200), torch.randn(200, 3, dtype=torch.float64, requires_grad=True)
    found, expected = sets.gather(rows), rows[sets.index]
    assert torch.equal(found, expected)
    assert torch.equal(sets.gather(rows.detach()), expected)
    weight = torch.randn_like(expected)
    ours, theirs = (torch.autograd.grad((each * weight).sum(), rows)[0] for each in (found, expected))
    torch.testing.assert_close(ours, theirs)


def test_a_cell_stands_for_its_position() -> None:
    """Voxels in one cell have equal coordinates in their windows; its position counts from the window's middle."""
    layout = WindowLayout((8, 6, 6), (0, 3, 3))
    coords = voxels(300)
    cells = index_layout(coords, SHAPE, layout, 5, 2, with_sets=False).cells
    inside = coords[:, 1:].long().clone()
    inside[:, 1:] = (inside[:, 1:] + 3) % 6
    expected = inside.flip(1).float() - torch.tensor([3.0, 3.0, 4.0])
    assert torch.equal(layout.positions()[cells], expected)


def test_stages_follow_from_one_another() -> None:
    coords = voxels(400)
    indices = index_stages(coords, SHAPE, STAGES, 2)
    shapes = list(stage_shapes(SHAPE, STAGES))
    assert shapes == [(8, 20, 24), (2, 20, 24), (1, 20, 24)]
    for before, after, shape, stage in zip(indices, indices[1:], shapes, STAGES[1:], strict=False):
        parents, pooling = pool_voxels(before.coords, shape, stage.stride, 2)
        assert torch.equal(after.coords, parents)
        assert torch.equal(after.pooling.place, pooling.place)
    assert indices[0].pooling is None
    assert int(indices[-1].coords[:, 1].max()) == 0


def test_blocks_take_turns_with_the_layouts_through_all_stages() -> None:
    assert list(used_layouts(STAGES)) == [[0], [1, 0], [1]]
    indices = index_stages(voxels(100), SHAPE, STAGES, 2)
    assert [[each.sets is not None for each in index.layouts] for index in indices] == [
        [True, False],
        [True, True],
        [False, True],
    ]


def test_pooled_children_lie_in_their_slots() -> None:
    coords, rows = voxels(300), torch.randn(300, 2)
    parents, pooling = pool_voxels(coords, SHAPE, (4, 2, 3), 2)
    slots = pooling.fill(rows)
    assert slots.shape == (len(parents), 24, 2)
    assert torch.equal(slots[pooling.parent, pooling.slot], rows)
    assert int((slots != 0).any(dim=2).sum()) == 300


def test_a_voxel_outside_of_the_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="coords"):
        index_stages(torch.tensor([[0, 0, 20, 0]], dtype=torch.int32), SHAPE, STAGES, 1)
