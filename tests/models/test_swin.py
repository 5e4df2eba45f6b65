"""The Swin Transformer against its definition, token by token."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sparse3d.checkpoints.backbones import load_backbone
from sparse3d.models import ImageBranch, SwinTransformer
from sparse3d.models.images.swin import WindowAttention
from sparse3d.models.images.windows import join_windows, pad_to_windows, split_windows
from sparse3d.models.layers.drop_path import DropPath

SMALL = dict(channels=4, depths=(2, 2, 2, 2), num_heads=(1, 2, 2, 4), window_size=3, mlp_ratio=2)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def attend_by_hand(layer: WindowAttention, x: Tensor) -> Tensor:
    """One grid ``[H, W, C]`` of whole windows: every token looks for its neighbours by itself."""
    height, width, channels = x.shape
    tokens = [(y, x) for y in range(height) for x in range(width)]

    def cell(y: int, x: int) -> tuple[int, ...]:
        """The window, and whether the token came around the edge to get there."""
        moved = ((y - layer.shift) % height, (x - layer.shift) % width)
        return (*(each // layer.size for each in moved), y < layer.shift, x < layer.shift)

    query, key, value = layer.qkv(x).unflatten(-1, (3, layer.num_heads, -1)).movedim(2, 0)
    out = torch.zeros(height, width, layer.num_heads, channels // layer.num_heads, dtype=x.dtype)
    for a in tokens:
        near = [b for b in tokens if cell(*b) == cell(*a)]
        logits = []
        for b in near:
            # places within the moved grid, as what came around has kept its distance there
            dy = (a[0] - layer.shift) % height - (b[0] - layer.shift) % height
            dx = (a[1] - layer.shift) % width - (b[1] - layer.shift) % width
            bias = layer.position_bias[(dy + layer.size - 1) * (2 * layer.size - 1) + dx + layer.size - 1]
            logits.append((query[a] * key[b]).sum(dim=-1) / query.shape[-1] ** 0.5 + bias)
        shares = torch.stack(logits).softmax(dim=0)
        out[a] = sum(share[:, None] * value[b] for share, b in zip(shares, near, strict=True))
    return layer.out(out.flatten(2))


@pytest.mark.parametrize(("size", "shift"), [(3, 0), (3, 1), (4, 2)])
def test_windows_attend_as_defined(size: int, shift: int) -> None:
    torch.manual_seed(size)
    layer = WindowAttention(6, 2, size, shift).double()
    torch.nn.init.normal_(layer.position_bias)
    x = random(2, 2 * size, 3 * size, 6)
    with torch.no_grad():
        expected = torch.stack([attend_by_hand(layer, each) for each in x])
        torch.testing.assert_close(layer(x), expected)


def test_padding_is_attended_to_and_cut_off() -> None:
    torch.manual_seed(0)
    layer = WindowAttention(6, 2, 3, 1).double()
    x = random(1, 4, 5, 6)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), layer(pad_to_windows(x, 3))[:, :4, :5])


def test_windows_are_cut_and_joined() -> None:
    x = random(2, 6, 9, 4)
    windows = split_windows(x, 3)
    assert torch.equal(windows[:, 4], x[:, 3:6, 3:6].flatten(1, 2))  # the second of the second row
    assert torch.equal(join_windows(windows, 3, 9), x)


def test_the_published_size() -> None:
    """27,519,354 parameters without the classifier (paper, table 1: 29 M with it), of which 1,536 are its last norm."""
    outputs = 2 * (96 + 192 + 384 + 768)
    assert sum(p.numel() for p in SwinTransformer().parameters()) == 27_519_354 - 1536 + outputs


def test_it_is_a_staged_backbone() -> None:
    torch.manual_seed(0)
    backbone = SwinTransformer(**SMALL, out_stages=(0, 2), frozen_stages=1).train()
    outputs = backbone(random(2, 3, 45, 62).float())
    assert [tuple(each.shape) for each in outputs] == [(2, 4, 12, 16), (2, 16, 3, 4)]
    assert backbone.out_channels == (4, 16)
    sum(each.square().mean() for each in outputs).backward()
    frozen = ("stem.", "stages.0.", "outputs.0.")
    assert all(p.requires_grad != name.startswith(frozen) for name, p in backbone.named_parameters())
    assert backbone.outputs["2"].weight.grad is not None and backbone.stages[1].merge.reduction.weight.grad is not None
    assert not backbone.stages[0].training and backbone.stages[1].training
    with pytest.raises(ValueError, match="4 channels are not divisible by 3 heads"):
        SwinTransformer(channels=4, depths=(1,), num_heads=(3,), out_stages=(0,))
    with pytest.raises(ValueError, match="out_stages: expected some of 0 to 3"):
        SwinTransformer(**SMALL, out_stages=(4,))


def test_checkpointing_and_bfloat16() -> None:
    torch.manual_seed(0)
    plain = SwinTransformer(**SMALL, drop_path=0.0).train()
    again = SwinTransformer(**SMALL, drop_path=0.0, checkpointing=True).train()
    again.load_state_dict(plain.state_dict())
    x = random(1, 3, 64, 48).float()
    for module in (plain, again):
        sum(each.square().mean() for each in module(x)).backward()
    for ours, theirs in zip(again.parameters(), plain.parameters(), strict=True):
        if theirs.grad is not None:
            torch.testing.assert_close(ours.grad, theirs.grad)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        narrow = plain(x)
    with torch.no_grad():
        for ours, theirs in zip(narrow, plain(x), strict=True):
            assert (ours.float() - theirs).abs().mean() < 0.03 * theirs.abs().mean()


def test_drop_path_keeps_the_mean() -> None:
    torch.manual_seed(0)
    drop = DropPath(0.25)
    dropped = drop(torch.ones(4000, 2, 3))
    assert dropped.unique().tolist() == pytest.approx([0, 4 / 3])
    assert torch.equal(dropped.amin(dim=(1, 2)), dropped.amax(dim=(1, 2)))  # whole samples
    assert abs(dropped.mean() - 1) < 0.03
    assert torch.equal(drop.eval()(torch.ones(3)), torch.ones(3))


def test_a_detector_of_mmdetection_brings_its_swin(tmp_path) -> None:
    torch.manual_seed(0)
    names = {
        "stem.projection": "patch_embed.projection",
        "stem.norm": "patch_embed.norm",
        "attention.qkv": "attn.w_msa.qkv",
        "attention.out": "attn.w_msa.proj",
        "attention.position_bias": "attn.w_msa.relative_position_bias_table",
        "mlp.0": "ffn.layers.0.0",
        "mlp.2": "ffn.layers.1",
        "stages.1.merge": "stages.0.downsample",
        "stages.2.merge": "stages.1.downsample",
        "stages.3.merge": "stages.2.downsample",
        **{f"outputs.{stage}.": f"norm{stage}." for stage in range(4)},
    }
    source = SwinTransformer(**SMALL)
    state = {}
    for name, value in source.state_dict().items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        state[f"img_backbone.{name}"] = value
        if name.endswith("bias_table"):
            state[f"img_backbone.{name.replace('bias_table', 'index')}"] = torch.zeros(9, 9)
    torch.save({"state_dict": {**state, "img_neck.lateral_convs.0.conv.bias": torch.ones(1)}}, tmp_path / "weights.pth")
    neck = dict(type="FPN", in_channels=[4, 8, 16, 32], out_channels=8, num_outs=4)
    branch = ImageBranch(dict(type="SwinTransformer", **SMALL), neck)
    load_backbone(branch, tmp_path / "weights.pth")
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in branch.backbone.state_dict().items())
    assert branch.extract(random(1, 2, 3, 64, 64).float())[0].shape == (1, 2, 8, 16, 16)
