"""Backbones of timm, the library of image models (https://github.com/huggingface/pytorch-image-models).

What published weights of this zoo need is in this folder; everything else that gives feature maps comes from there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.model import BaseModule
from torch import Tensor

from sparse3d.registry import MODELS


@MODELS.register_module()
class TimmBackbone(BaseModule):
    """A model of timm as a backbone.

    Args:
        name: timm's name of it, such as ``"convnext_tiny"``.
        out_stages: which of its feature maps are returned, by timm's count from the finest; None returns all.
        pretrained: load the weights that timm publishes, which asks the network for them once.
        checkpointing: compute blocks again in the backward pass instead of keeping what is inside of them.
        options: further arguments of the model.

    Raises:
        ImportError: if timm is not installed.
        RuntimeError: if timm knows no such model, or it gives no feature maps.
    """

    def __init__(
        self,
        name: str,
        out_stages: Sequence[int] | None = None,
        pretrained: bool = False,
        checkpointing: bool = False,
        options: Mapping[str, Any] | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        try:
            import timm
        except ImportError as error:
            raise ImportError(
                'TimmBackbone needs timm: pip install "sparse3d[image]", with a torchvision that fits your torch'
            ) from error
        chosen = {} if out_stages is None else {"out_indices": tuple(out_stages)}
        self.model = timm.create_model(name, pretrained=pretrained, features_only=True, **chosen, **(options or {}))
        if checkpointing:
            self.model.set_grad_checkpointing()
        self.out_channels = tuple(self.model.feature_info.channels())
        self.channels_last = getattr(self.model, "output_fmt", "NCHW") == "NHWC"

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return one ``[N, C, h, w]`` for each of ``out_stages``, finest first, of ``[N, 3, H, W]``."""
        outputs = self.model(images)
        return [output.permute(0, 3, 1, 2) for output in outputs] if self.channels_last else list(outputs)
