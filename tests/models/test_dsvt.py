from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparse3d.models import DSVT
from sparse3d.models.points.dsvt_layers import SetAttentionLayer
from sparse3d.structures import Grid
from sparse3d_ops import Sets, pool_voxels

from .build import stage

PILLARS = Grid((0, 0, 0, 40, 32, 1), (1, 1, 1))
VOXELS = Grid((0, 0, 0, 24, 24, 8), (1, 1, 1))
TWO_STAGES = [
    stage(window_shape=(8, 12, 12), num_blocks=1, num_heads=8),
    stage(num_blocks=1, num_heads=8, stride=(8, 1, 1)),
]


def random_coords(grid: Grid, count: int, batch_size: int = 2, seed: int = 0) -> Tensor:
    z, y, x = grid.shape
    generator = torch.Generator().manual_seed(seed)
    keys = torch.randperm(batch_size * z * y * x, generator=generator)[:count]
    return torch.stack([keys // (z * y * x), keys // (y * x) % z, keys // x % y, keys % x], dim=1).int()


def padded_attention(layer: SetAttentionLayer, x: Tensor, position: Tensor, sets: Sets) -> Tensor:
    """The published form: gather first, torch's own attention on padded sets, any copy of a voxel read back."""
    channels = x.shape[1]
    reference = torch.nn.MultiheadAttention(channels, layer.attention.num_heads, batch_first=True)
    reference.in_proj_weight, reference.in_proj_bias = layer.attention.in_proj.parameters()
    reference.out_proj = layer.attention.out_proj
    index = sets.index
    matched = (x + position)[index]
    attended, _ = reference(matched, matched, x[index], key_padding_mask=sets.mask, need_weights=False)
    last = torch.zeros(len(x), dtype=torch.long)
    last[index.flatten()] = torch.arange(index.numel())
    return attended.flatten(0, 1)[last]


def test_a_layer_equals_torch_attention_on_padded_sets() -> None:
    backbone = DSVT(PILLARS, [stage()]).eval()
    layer, coords = backbone.stages[0][0].layers[1], random_coords(PILLARS, 300)
    x = torch.randn(300, 16, requires_grad=True)
    own = backbone.index(coords, 2)[0].layouts[0]
    position = layer.position(backbone.cells_0_0[own.cells])

    a = padded_attention(layer, x, position, own.sets[1])
    y = F.layer_norm(x + a, (16,))
    y = F.layer_norm(y + layer.linear2(F.gelu(layer.linear1(y))), (16,))
    expected = F.layer_norm(x + y, (16,))
    found = layer(x, layer.embed(backbone.cells_0_0, own.cells), own.sets[1])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)

    weight = torch.randn_like(found)
    (theirs,) = torch.autograd.grad((expected * weight).sum(), x)
    (ours,) = torch.autograd.grad((found * weight).sum(), x)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@settings(max_examples=10, deadline=None, derandomize=True)
@given(seed=st.integers(0, 1000), count=st.integers(1, 250))
def test_the_order_of_voxels_does_not_matter(seed: int, count: int) -> None:
    torch.manual_seed(0)
    backbone = DSVT(PILLARS, [stage()]).eval()
    coords, x = random_coords(PILLARS, count, seed=seed), torch.randn(count, 16)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    straight, _ = backbone(x, coords, 2)
    shuffled, _ = backbone(x[order], coords[order], 2)
    torch.testing.assert_close(shuffled, straight[order], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("grid_and_stages", [(PILLARS, [stage()]), (VOXELS, TWO_STAGES)], ids=["pillar", "voxel"])
def test_samples_of_a_batch_are_strangers(grid_and_stages: tuple) -> None:
    grid, stages = grid_and_stages
    backbone = DSVT(grid, stages).eval()
    coords, x = random_coords(grid, 300), torch.randn(300, 16)
    second = coords[:, 0] == 1
    alone = coords[second].clone()
    alone[:, 0] = 0
    expected, expected_coords = backbone(x[second], alone, 1)
    together, together_coords = backbone(x, coords, 2)
    own = together_coords[:, 0] == 1
    assert torch.equal(together_coords[own, 1:], expected_coords[:, 1:])
    torch.testing.assert_close(together[own], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pooling", ["attention", "linear", "max"])
def test_stages_pool_to_one_layer_and_train_every_parameter(pooling: str) -> None:
    backbone = DSVT(VOXELS, TWO_STAGES, pooling=pooling)
    coords = random_coords(VOXELS, 400)
    features, out = backbone(torch.randn(400, 16), coords, 2)
    assert len(features) == len(out) == len(torch.unique(coords[:, [0, 2, 3]], dim=0))
    assert int(out[:, 1].max()) == 0
    (features * torch.randn_like(features)).sum().backward()
    silent = [name for name, p in backbone.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


def test_children_never_share_a_slot() -> None:
    coords = random_coords(VOXELS, 500)
    parents, pooling = pool_voxels(coords, VOXELS.shape, (4, 2, 3), 2)
    assert pooling.volume == 4 * 2 * 3
    assert len(torch.unique(pooling.place)) == 500
    assert torch.equal(parents[pooling.parent], coords // torch.tensor([1, 4, 2, 3]))


def test_positions_come_from_the_layers_layout_by_default() -> None:
    """Blocks 0 and 1 work in layouts 0 and 1, so "block" must change what either block reads."""
    coords, x = random_coords(PILLARS, 200), torch.randn(200, 16)
    published = DSVT(PILLARS, [stage()]).eval()
    matched = DSVT(PILLARS, [stage()], position_layout="block").eval()
    matched.load_state_dict(published.state_dict())
    assert not torch.allclose(published(x, coords, 2)[0], matched(x, coords, 2)[0], atol=1e-3)


def test_normalised_positions_lie_in_one_turn() -> None:
    backbone = DSVT(PILLARS, [stage()], normalize_positions=True)
    for positions, cells in ((backbone.cells_0_0, 12 * 12), (backbone.cells_0_1, 24 * 24)):
        assert positions.shape == (cells, 2)
        assert float(positions.abs().max()) <= 3.1416
        assert float(positions.max()) > 2.5


@pytest.mark.parametrize("count", [0, 1])
def test_hardly_any_voxels(count: int) -> None:
    backbone = DSVT(PILLARS, [stage()]).train()
    x = torch.randn(count, 16, requires_grad=True)
    features, coords = backbone(x, random_coords(PILLARS, count), 3)
    assert features.shape == (count, 16)
    assert coords.shape == (count, 4)
    features.sum().backward()
    assert all(torch.isfinite(parameter).all() for parameter in backbone.state_dict().values())


def test_the_result_is_the_same_every_time() -> None:
    backbone = DSVT(PILLARS, [stage()]).train()
    coords, x = random_coords(PILLARS, 500), torch.randn(500, 16)

    def run() -> list[Tensor]:
        backbone.zero_grad()
        features, _ = backbone(x, coords, 2)
        features.square().sum().backward()
        return [features, *(parameter.grad.clone() for parameter in backbone.parameters())]

    assert all(torch.equal(a, b) for a, b in zip(run(), run(), strict=True))


@pytest.mark.parametrize("grid_and_stages", [(PILLARS, [stage()]), (VOXELS, TWO_STAGES)], ids=["pillar", "voxel"])
def test_checkpointing_changes_nothing_but_memory(grid_and_stages: tuple) -> None:
    """Outputs, gradients and the running statistics of the norms are those of a run that keeps its activations."""
    grid, stages = grid_and_stages
    plain, frugal = (DSVT(grid, stages, checkpoint_blocks=each).train() for each in (False, True))
    frugal.load_state_dict(plain.state_dict())
    coords, x = random_coords(grid, 300), torch.randn(300, 16)
    for backbone in (plain, frugal):
        backbone(x, coords, 2)[0].square().sum().backward()
    for (name, a), (_, b) in zip(plain.state_dict().items(), frugal.state_dict().items(), strict=True):
        assert torch.equal(a, b), name
    for (name, a), (_, b) in zip(plain.named_parameters(), frugal.named_parameters(), strict=True):
        assert torch.equal(a.grad, b.grad), name


def test_checkpointing_keeps_fewer_activations() -> None:
    def kept(backbone: DSVT) -> int:
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):
            backbone.train()(torch.randn(300, 16), random_coords(PILLARS, 300), 2)
        return sum(sizes)

    assert kept(DSVT(PILLARS, [stage()], checkpoint_blocks=True)) < 0.5 * kept(DSVT(PILLARS, [stage()]))


def test_a_gradient_in_eval_mode_reaches_the_position_embedding() -> None:
    backbone = DSVT(PILLARS, [stage()]).eval()
    backbone(torch.randn(300, 16), random_coords(PILLARS, 300), 2)[0].square().sum().backward()
    assert all(float(p.grad.abs().sum()) > 0 for p in backbone.stages[0][0].layers[0].position.parameters())


def test_mixed_precision_stays_close() -> None:
    backbone = DSVT(PILLARS, [stage()]).eval()
    coords, x = random_coords(PILLARS, 300), torch.randn(300, 16)
    with torch.autocast("cpu", torch.bfloat16):
        mixed, _ = backbone(x, coords, 2)
    full, _ = backbone(x, coords, 2)
    assert float((mixed - full).detach().abs().mean()) < 0.03


def test_bad_options_are_named() -> None:
    with pytest.raises(ValueError, match="pooling must be one of 'attention', 'linear', 'max', got 'mean'"):
        DSVT(PILLARS, [stage()], pooling="mean")
    with pytest.raises(ValueError, match="windows \\(1, 12, 12\\) are one layer high"):
        DSVT(VOXELS, [stage()])
    with pytest.raises(ValueError, match="not divisible by 5 heads"):
        DSVT(PILLARS, [stage(num_heads=5)])
    with pytest.raises(ValueError, match="keeps the width"):
        DSVT(VOXELS, [TWO_STAGES[0], {**TWO_STAGES[1], "channels": 32}], pooling="max")
    with pytest.raises(ValueError, match=r"features: expected \[3, 16\], got \[3, 8\]"):
        DSVT(PILLARS, [stage()])(torch.zeros(3, 8), random_coords(PILLARS, 3), 2)
