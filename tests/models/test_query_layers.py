"""Attention, position embeddings and the decoder layer against torch's own modules."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sparse3d.models.layers.attention import PackedAttention
from sparse3d.models.layers.decoder import QueryDecoderLayer
from sparse3d.models.layers.deformable import DeformableAttention, ImageMemory
from sparse3d.models.layers.position import CountedNorm, CountedPositionEmbedding, PositionEmbedding

CHANNELS, HEADS = 16, 4


def torch_attention(ours: PackedAttention) -> nn.MultiheadAttention:
    theirs = nn.MultiheadAttention(CHANNELS, HEADS, batch_first=True)
    theirs.in_proj_weight.data = ours.in_proj.weight.data
    theirs.in_proj_bias.data = ours.in_proj.bias.data
    theirs.out_proj = ours.out_proj
    return theirs


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_attention_equals_torch() -> None:
    attention = PackedAttention(CHANNELS, HEADS)
    nn.init.normal_(attention.in_proj.bias)
    query, key, value = torch.randn(2, 5, CHANNELS), torch.randn(2, 7, CHANNELS), torch.randn(2, 7, CHANNELS)
    hidden = torch.rand(2, 5, 7) < 0.4
    hidden[..., 0] = False
    expected, _ = torch_attention(attention)(query, key, value, attn_mask=hidden.repeat_interleave(HEADS, 0))
    bias = torch.zeros(2, 5, 7).masked_fill(hidden, -torch.inf)
    close(attention(query, key, value, bias), expected)
    close(attention(query, key, value), torch_attention(attention)(query, key, value)[0])


def test_alone_is_a_sequence_of_one() -> None:
    attention = PackedAttention(CHANNELS, HEADS)
    nn.init.normal_(attention.in_proj.bias)
    rows = torch.randn(6, CHANNELS)
    close(attention.attend_alone(rows), attention(*[rows[:, None]] * 3)[:, 0])


def test_attention_needs_heads_that_divide_the_width() -> None:
    with pytest.raises(ValueError, match="width 16 is not divisible by 3 heads"):
        PackedAttention(16, 3)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 4), min_size=2, max_size=9).filter(lambda counts: sum(counts) > 1))
def test_counted_norm_is_batch_norm_of_repeated_rows(counts: list[int]) -> None:
    """Output, gradients and running statistics are those of the rows written out one by one."""
    torch.manual_seed(len(counts))
    repeats = torch.tensor(counts)
    ours, theirs = CountedNorm(3), nn.BatchNorm1d(3)
    rows = torch.randn(len(counts), 3, dtype=torch.float64)
    a, b = rows.clone().requires_grad_(), rows.clone().requires_grad_()
    weight = torch.randn(len(counts), 3, dtype=torch.float64) * (repeats > 0)[:, None]
    found = ours.double()(a, repeats.double())
    expected = theirs.double()(b.repeat_interleave(repeats, 0))
    first = repeats.cumsum(0) - repeats
    used = repeats > 0
    torch.testing.assert_close(found[used], expected[first[used]])
    (found * weight).sum().backward()
    (expected[first[used]] * weight[used]).sum().backward()
    torch.testing.assert_close(a.grad[used], b.grad[used])
    for name in ("weight", "bias"):
        torch.testing.assert_close(getattr(ours, name).grad, getattr(theirs, name).grad)
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, msg=name)
    torch.testing.assert_close(ours.eval()(a, repeats), theirs.eval()(a))


def test_counted_embedding_has_the_names_of_the_plain_one() -> None:
    plain, counted = PositionEmbedding(2, 8), CountedPositionEmbedding(2, 8)
    counted.load_state_dict(plain.state_dict())
    positions = torch.randn(11, 2)
    close(counted(positions, torch.ones(11)), plain(positions))


def test_sync_norm_leaves_counted_norm_alone() -> None:
    module = nn.SyncBatchNorm.convert_sync_batchnorm(CountedPositionEmbedding(2, 8))
    assert isinstance(module[1], CountedNorm)


def test_decoder_layer_by_torchs_modules() -> None:
    layer = QueryDecoderLayer(CHANNELS, HEADS, 24, activation="gelu").eval()
    queries, positions = torch.randn(2, 5, CHANNELS), torch.randn(2, 5, CHANNELS)
    memory, memory_positions = torch.randn(2, 9, CHANNELS), torch.randn(1, 9, CHANNELS)
    q = queries + positions
    x = layer.norm1(queries + torch_attention(layer.self_attention)(q, q, q)[0])
    keys = memory + memory_positions
    x = layer.norm2(x + torch_attention(layer.cross_attention)(x + positions, keys, keys)[0])
    x = layer.norm3(x + layer.linear2(nn.functional.gelu(layer.linear1(x))))
    close(layer(queries, positions, memory, memory_positions), x)


def test_queries_that_stand_alone_do_not_see_each_other() -> None:
    layer = QueryDecoderLayer(CHANNELS, HEADS, 24, self_attention="alone").eval()
    arguments = torch.randn(1, 5, CHANNELS), torch.randn(1, 5, CHANNELS), torch.randn(1, 9, CHANNELS)
    together = layer(*arguments, torch.randn(1, 1, CHANNELS).expand(1, 9, CHANNELS) * 0)
    one = layer(arguments[0][:, 2:3], arguments[1][:, 2:3], arguments[2], torch.zeros(1, 9, CHANNELS))
    close(together[:, 2:3], one)
    everyone = copy.deepcopy(layer)
    everyone.alone = False
    assert not torch.allclose(everyone(*arguments, torch.zeros(1, 9, CHANNELS)), together, atol=1e-3)


def test_a_layer_without_self_attention() -> None:
    layer = QueryDecoderLayer(CHANNELS, HEADS, 24, self_attention="none")
    assert not any(name.startswith(("self_attention", "norm1")) for name in layer.state_dict())
    queries, positions, memory, places = (torch.randn(2, 5, CHANNELS) for _ in range(4))
    seen = layer.cross_attention(queries + positions, memory + places, memory + places)
    expected = layer.norm2(queries + seen)
    expected = layer.norm3(expected + layer.linear2(layer.linear1(expected).relu()))
    close(layer(queries, positions, memory, places), expected)


def test_deformable_attention_starts_with_equal_shares_around_the_reference() -> None:
    attention = DeformableAttention(CHANNELS, num_heads=4, num_levels=2, num_points=3)
    offsets = attention.offsets.bias.view(4, 2, 3, 2)
    torch.testing.assert_close(offsets[:, 0], offsets[:, 1])
    torch.testing.assert_close(offsets[:, :, 2], 3 * offsets[:, :, 0])
    assert {tuple(each) for each in offsets[:, 0, 0].round().tolist()} == {(1, 0), (0, 1), (-1, 0), (0, -1)}


def test_deformable_attention_to_a_flat_image_is_its_value() -> None:
    attention = DeformableAttention(CHANNELS, num_heads=4, num_levels=2, num_points=3)
    nn.init.zeros_(attention.offsets.bias)  # all points lie in the middle
    maps = tuple(torch.full((1, 1, CHANNELS, *size), 2.0) for size in ((6, 8), (3, 4)))
    memory = ImageMemory(maps, tuple(torch.zeros_like(level[:, :, 0], dtype=torch.bool) for level in maps))
    queries, views = torch.randn(1, 3, CHANNELS), torch.zeros(1, 3, dtype=torch.int64)
    seen = attention(queries, torch.full((1, 3, 2), 0.5), views, memory)
    close(seen, attention.out(attention.value(torch.full((CHANNELS,), 2.0))).expand(1, 3, -1))


def test_unknown_options_are_named() -> None:
    with pytest.raises(ValueError, match="self_attention must be one of all, alone, none, got 'some'"):
        QueryDecoderLayer(16, 4, 24, self_attention="some")
    with pytest.raises(ValueError, match="activation must be one of relu, gelu, got 'tanh'"):
        QueryDecoderLayer(16, 4, 24, activation="tanh")
