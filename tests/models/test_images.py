"""Image backbones, pyramids, and the branch that joins them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparse3d.checkpoints.backbones import RESNET, load_backbone
from sparse3d.models import EVA02, FPN, ImageBranch, ResNet, VoVNet
from sparse3d.models.images.eva02 import rotary_table
from sparse3d.models.images.grid_mask import GridMask
from sparse3d.structures import Batch

SMALL_VOVNET = dict(
    stem_channels=(6, 6, 8),
    conv_channels=(4, 6, 8, 10),
    stage_channels=(8, 12, 16, 20),
    num_convs=2,
    num_blocks=(1, 2, 2, 1),
)
SMALL_EVA02 = dict(
    image_size=64, pretrained_size=32, channels=16, depth=3, num_heads=2, window_size=3, global_blocks=(1,), drop_path=0
)
BACKBONES: dict[str, Callable[..., nn.Module]] = {
    "resnet": lambda **options: ResNet(base_channels=4, **options),
    "deformable resnet": lambda **options: ResNet(base_channels=4, deformable_stages=(2, 3), **options),
    "resnet18": lambda **options: ResNet(depth=18, base_channels=8, **options),
    "vovnet": lambda **options: VoVNet(**SMALL_VOVNET, **options),
}
EACH = pytest.mark.parametrize("name", BACKBONES)


def branch(**options: Any) -> ImageBranch:
    backbone = dict(type="ResNet", base_channels=4)
    neck = dict(type="FPN", in_channels=[16, 32, 64, 128], out_channels=8, num_outs=5)
    return ImageBranch(backbone, neck, **options)


def images(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


def gradients(module: nn.Module, x: Tensor) -> list[Tensor]:
    module.zero_grad()
    sum(output.square().mean() for output in module(x)).backward()
    return [p.grad.clone() for p in module.parameters() if p.grad is not None]


@EACH
def test_outputs_are_a_pyramid(name: str) -> None:
    backbone = BACKBONES[name](out_stages=(1, 3)).eval()
    outputs = backbone(images(2, 3, 64, 96))
    assert [tuple(each.shape) for each in outputs] == [
        (2, backbone.out_channels[0], 8, 12),
        (2, backbone.out_channels[1], 2, 3),
    ]


@EACH
def test_frozen_parts_neither_learn_nor_count(name: str) -> None:
    backbone = BACKBONES[name](frozen_stages=2).train()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    sum(each.mean() for each in backbone(images(2, 3, 64, 64))).backward()
    frozen = [backbone.stem, backbone.stages[0], backbone.stages[1]]
    assert all(p.grad is None for part in frozen for p in part.parameters())
    assert all(p.grad is not None for p in backbone.stages[2].parameters())
    changed = {key for key, value in backbone.state_dict().items() if not torch.equal(value, before[key])}
    assert changed and all(key.startswith(("stages.2", "stages.3")) for key in changed)


@EACH
def test_norm_eval_keeps_the_statistics_and_learns_the_rest(name: str) -> None:
    backbone = BACKBONES[name](norm_eval=True).train()
    before = {key: value.clone() for key, value in backbone.named_buffers()}
    sum(each.mean() for each in backbone(images(2, 3, 64, 64))).backward()
    assert all(torch.equal(value, before[key]) for key, value in backbone.named_buffers())
    assert all(p.grad is not None for p in backbone.parameters())


def test_norms_that_do_not_learn() -> None:
    backbone = ResNet(base_channels=4, norm_eval=True, norm_learned=False).train()
    norms = {id(p) for module in backbone.modules() if isinstance(module, nn.BatchNorm2d) for p in module.parameters()}
    sum(each.mean() for each in backbone(images(2, 3, 64, 64))).backward()
    assert norms and all((p.grad is None) == (id(p) in norms) for p in backbone.parameters())


def test_a_deformable_resnet_begins_as_an_ordinary_one() -> None:
    """All displacements are zero, and the weights of all taps are one half."""
    deformable, ordinary = ResNet(base_channels=4, deformable_stages=(2, 3)), ResNet(base_channels=4)
    state = {name: value for name, value in deformable.state_dict().items() if ".offsets." not in name}
    ordinary.load_state_dict(state)
    for module in ordinary.stages[2:].modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            module.weight.data *= 0.5
    x = images(1, 3, 64, 64)
    for ours, theirs in zip(deformable.eval()(x), ordinary.eval()(x), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@EACH
def test_checkpointing_changes_no_gradient(name: str) -> None:
    plain = BACKBONES[name](norm_eval=True).train()
    again = BACKBONES[name](norm_eval=True, checkpointing=True).train()
    again.load_state_dict(plain.state_dict())
    x = images(1, 3, 64, 64)
    for ours, theirs in zip(gradients(again, x), gradients(plain, x), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_bad_stages_are_named() -> None:
    with pytest.raises(ValueError, match="depth must be one of 18, 34, 50, 101"):
        ResNet(depth=19)
    with pytest.raises(ValueError, match="out_stages: expected some of 0 to 3"):
        ResNet(base_channels=4, out_stages=(4,))
    with pytest.raises(ValueError, match="frozen_stages: expected -1 to 4"):
        ResNet(base_channels=4, frozen_stages=5)
    with pytest.raises(ValueError, match="FPN: expected 2 maps, got 1"):
        FPN([4, 8], 4, 2)([images(1, 4, 8, 8)])


def test_windows_attend_to_themselves_and_their_padding() -> None:
    """What lies in another window changes nothing in a window block, and something in a global one."""
    backbone = EVA02(**SMALL_EVA02).eval()
    torch.nn.init.normal_(backbone.positions)
    windowed, everywhere = backbone.blocks[0], backbone.blocks[1]
    x = images(1, 4, 5, 16)
    changed = x.clone()
    changed[:, 3:] += 1  # the second row of windows
    for block, side, grid, touched in ((windowed, 3, (3, 3), False), (everywhere, 4, (4, 5), True)):
        rotation = rotary_table(side, grid, 8, x.device)
        difference = (block(changed, rotation) - block(x, rotation)).abs().amax(dim=(0, 2, 3))
        assert bool((difference[:3] > 0).any()) == touched and bool((difference[3:] > 0).all())


def test_eva02_takes_any_whole_number_of_tokens() -> None:
    backbone = EVA02(**SMALL_EVA02, frozen_blocks=1, checkpointing=True).train()
    [output] = backbone(images(2, 3, 48, 80))
    assert output.shape == (2, 16, 3, 5)
    output.sum().backward()
    assert backbone.embedding.weight.grad is None and backbone.blocks[0].mlp.gate.weight.grad is None
    assert backbone.blocks[1].attention.key.weight.grad is not None
    assert not backbone.blocks[0].training and backbone.blocks[1].training


def test_the_branch_keeps_cameras_and_memory_in_order() -> None:
    module = branch().eval()
    x = images(2, 3, 3, 64, 96)
    features = module(Batch(2, images=x))
    assert [tuple(level.shape) for level in features.images] == [
        (2, 3, 8, 16, 24), (2, 3, 8, 8, 12), (2, 3, 8, 4, 6), (2, 3, 8, 2, 3), (2, 3, 8, 1, 2),
    ]  # fmt: skip
    assert features.image_size == (64, 96)
    alone = module(Batch(1, images=x[1:, 2:]))
    # convolutions of other batch sizes add in another order
    torch.testing.assert_close(features.images[0][1, 2], alone.images[0][0, 0], atol=2e-4, rtol=1e-3)
    assert features.images[0].movedim(2, -1).is_contiguous()  # channels-last, as the sampling kernel reads
    with pytest.raises(ValueError, match="give the Preprocessor `images`"):
        module(Batch(1))


def test_bfloat16_is_close() -> None:
    module = branch().eval()
    x = images(1, 2, 3, 64, 64)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        narrow = module.extract(x)
    assert narrow[0].dtype == torch.bfloat16
    with torch.no_grad():
        for ours, theirs in zip(narrow, module.extract(x), strict=True):
            assert (ours.float() - theirs).abs().mean() < 0.03 * theirs.abs().mean() + 1e-3


def test_gradients_of_the_first_frames_only() -> None:
    module = branch(num_frames=3, gradient_frames=2).train()
    x = images(1, 6, 3, 64, 64)
    features = module(Batch(1, images=x))
    assert module.training and module.backbone.training
    weight = torch.zeros_like(features.images[0])
    weight[:, 4:] = 1
    (features.images[0] * weight).sum().backward()
    assert not any(p.grad.any() for p in module.parameters() if p.grad is not None)
    module.eval()
    expected = module(Batch(1, images=x)).images[0][:, 4:]
    torch.testing.assert_close(features.images[0][:, 4:], expected, atol=2e-4, rtol=1e-3)
    with pytest.raises(ValueError, match=r"gradient_frames: expected 1 to num_frames \(1\), got 2"):
        branch(gradient_frames=2)


def test_grid_mask_keeps_stripes_alike_in_all_images() -> None:
    mask = GridMask(probability=1.0)
    ones = torch.ones(2, 3, 3, 40, 60)
    masked = mask(ones)
    assert torch.equal(masked, masked[:1, :1, :1].expand_as(masked)) and 0 < masked.mean() < 1
    one = masked[0, 0, 0]
    whole_rows, whole_columns = one.all(dim=1), one.all(dim=0)
    assert torch.equal(one.bool(), whole_rows[:, None] | whole_columns)
    assert torch.equal(mask.eval()(ones), ones)
    assert torch.equal(GridMask(probability=0.0)(ones), ones)


@pytest.mark.parametrize(
    ("prefix", "others", "wrap"),
    [
        ("", {"fc.weight": torch.ones(1)}, None),  # torchvision
        ("backbone.", {"neck.lateral_convs.0.conv.bias": torch.ones(1), "roi_head.x": torch.ones(1)}, "state_dict"),
        ("img_backbone.", {"pts_bbox_head.x": torch.ones(1)}, "state_dict"),
    ],
)
def test_pretrained_resnets_of_others(prefix: str, others: dict, wrap: str | None, tmp_path: Path) -> None:
    source = ResNet(base_channels=4)
    state = {prefix + _their_name(key): value for key, value in source.state_dict().items()}
    assert f"{prefix}layer2.0.downsample.0.weight" in state and f"{prefix}bn1.running_var" in state
    torch.save({wrap: {**state, **others}} if wrap else {**state, **others}, tmp_path / "weights.pth")
    module = branch(pretrained=str(tmp_path / "weights.pth"))
    module.init_weights()
    assert all(torch.equal(value, source.state_dict()[key]) for key, value in module.backbone.state_dict().items())

    del state[f"{prefix}layer1.0.conv1.weight"]
    torch.save(state, tmp_path / "damaged.pth")
    with pytest.raises(ValueError, match=r"missing stages\.0\.0\.conv1\.weight"):
        load_backbone(module, tmp_path / "damaged.pth")


def test_a_detector_of_ours_hands_its_backbone_on(tmp_path: Path) -> None:
    source = branch()
    state = {f"image_branch.{name}": value for name, value in source.state_dict().items()}
    torch.save({"state_dict": {**state, "head.bias": torch.zeros(3)}}, tmp_path / "weights.pth")
    module = branch(pretrained=str(tmp_path / "weights.pth"))
    module.init_weights()
    assert all(
        torch.equal(value, source.backbone.state_dict()[key]) for key, value in module.backbone.state_dict().items()
    )


def _their_name(ours: str) -> str:
    """The name in torchvision's ResNet."""
    head, _, rest = ours.partition(".")
    if head == "stem":
        return {"0": "conv1.", "1": "bn1."}[rest[0]] + rest[2:]
    stage, block, rest = rest.split(".", 2)
    return f"layer{int(stage) + 1}.{block}.{rest.replace('shortcut', 'downsample')}"


def test_the_rules_know_every_entry_of_a_resnet() -> None:
    assert {_their_name(key).split(".")[0] for key in ResNet(base_channels=4).state_dict()} == {
        "conv1", "bn1", "layer1", "layer2", "layer3", "layer4",
    }  # fmt: skip
    assert len(RESNET) == 2 + 4 * 3  # the stem; shortcuts, offsets and the rest of each stage
