"""The adapter to timm's models, on a stand-in for timm where it is not installed."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from sparse3d.models import ImageBranch, TimmBackbone


class Pyramid(nn.Module):
    """Answers as a model of timm does that was made with `features_only`; its maps are channels-last, as Swin's are."""

    def __init__(self, out_indices: tuple[int, ...] = (0, 1, 2), width: int = 4) -> None:
        super().__init__()
        channels = [width * 2**index for index in out_indices]
        self.layers = nn.ModuleList(
            nn.Conv2d(3, c, 4 * 2**index, stride=4 * 2**index) for index, c in zip(out_indices, channels, strict=True)
        )
        self.feature_info = SimpleNamespace(channels=lambda: channels)
        self.output_fmt = "NHWC"
        self.checkpointing = False

    def set_grad_checkpointing(self) -> None:
        self.checkpointing = True

    def forward(self, x: Tensor) -> list[Tensor]:
        return [layer(x).permute(0, 2, 3, 1) for layer in self.layers]


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    def create_model(name: str, *, pretrained: bool, features_only: bool, **options) -> Pyramid:
        assert name == "pyramid" and features_only and not pretrained
        return Pyramid(**options)

    timm = ModuleType("timm")
    timm.create_model = create_model
    monkeypatch.setitem(sys.modules, "timm", timm)


def test_maps_come_as_necks_want_them(stand_in: None) -> None:
    backbone = TimmBackbone("pyramid", out_stages=(1, 2), checkpointing=True, options=dict(width=6))
    assert backbone.out_channels == (12, 24) and backbone.model.checkpointing
    images = torch.randn(2, 3, 32, 48)
    outputs = backbone(images)
    assert [tuple(each.shape) for each in outputs] == [(2, 12, 4, 6), (2, 24, 2, 3)]
    assert torch.equal(outputs[0], backbone.model.layers[0](images))


def test_it_stands_in_a_branch(stand_in: None) -> None:
    neck = dict(type="FPN", in_channels=[4, 8, 16], out_channels=8, num_outs=4)
    branch = ImageBranch(dict(type="TimmBackbone", name="pyramid"), neck)
    maps = branch.extract(torch.randn(1, 2, 3, 32, 48))
    assert [tuple(each.shape[2:]) for each in maps] == [(8, 8, 12), (8, 4, 6), (8, 2, 3), (8, 1, 2)]


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match=r'pip install "sparse3d\[image\]"'):
        TimmBackbone("convnext_tiny")


@pytest.mark.parametrize("name", ["resnet18", "swin_tiny_patch4_window7_224"])
def test_real_models(name: str) -> None:
    pytest.importorskip("timm", reason="timm is not installed", exc_type=ImportError)
    options = dict(img_size=(64, 96)) if "swin" in name else {}
    backbone = TimmBackbone(name, out_stages=(1, 2), options=options).eval()
    with torch.no_grad():
        outputs = backbone(torch.randn(1, 3, 64, 96))
    strides = backbone.model.feature_info.reduction()
    assert [tuple(each.shape) for each in outputs] == [
        (1, channels, 64 // stride, 96 // stride)
        for channels, stride in zip(backbone.out_channels, strides, strict=True)
    ]
