"""The dense end of a graph: bird's-eye map in, named outputs of the head out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sparse3d.models import Features

from .named import Named
from .outputs import OUTPUTS, as_output


class MapGraph(nn.Module):
    """Map backbone and head, which it takes over and casts.

    Args:
        bev_backbone: in eval mode.
        head: likewise.
        dtype: of everything but a head that computes with positions (TransFusion's), which stays in float32.
    """

    def __init__(self, bev_backbone: nn.Module, head: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.outputs = OUTPUTS[type(head).__name__].of(head)
        self.bev_backbone = bev_backbone.to(dtype)
        self.head_dtype = torch.float32 if self.outputs.computes_positions else dtype
        self.head = head.to(self.head_dtype)

    def forward(self, bev: Tensor) -> Named:
        """Return what the head makes of a map ``[1, C, Y, X]``, by name."""
        output = self.head(Features(bev=self.bev_backbone(bev).to(self.head_dtype)))
        return {name: as_output(each) for name, each in self.outputs.name(output).items()}
