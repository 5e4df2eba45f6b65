"""DSVT: Dynamic Sparse Voxel Transformer with Rotated Sets (Wang et al., CVPR 2023, arXiv 2301.06051).

Stages of blocks over the occupied voxels; between stages voxels are pooled (along z in the voxel form; the pillar form
is a single stage). Which voxels attend to each other is index work of its own, `sparse3d_ops.sets`. All triples are
`(z, y, x)` in voxels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from mmengine.model import BaseModule
from torch import Tensor, nn

from sparse3d.registry import MODELS
from sparse3d.structures import Grid
from sparse3d_ops import SetStage, StageIndex, WindowLayout, index_stages
from sparse3d_ops.sets import stage_shapes, used_layouts

from .dsvt_layers import ACTIVATIONS, POOLINGS, DSVTBlock

PUBLISHED_PI = 3.1415  # the constant of the published code, kept so that its weights see the same numbers


@dataclass(frozen=True, kw_only=True)
class DSVTStage(SetStage):
    """One stage of the backbone.

    Args: those of ``SetStage``, and

        channels: width C.
        num_heads: attention heads.
        ffn_channels: hidden width of the FFNs.
    """

    channels: int
    num_heads: int
    ffn_channels: int

    @property
    def index_part(self) -> SetStage:
        """What the index work depends on."""
        return SetStage(**{each.name: getattr(self, each.name) for each in fields(SetStage)})

    @property
    def dims(self) -> int:
        """Coordinates of a position: windows of one layer have no z."""
        return 2 if self.window_shape[0] == 1 else 3


@MODELS.register_module()
class DSVT(BaseModule):
    """The sparse transformer backbone.

    Args:
        grid: the grid of the voxels.
        stages: the arguments of ``DSVTStage``, one dictionary a stage.
        activation: of the FFNs, ``"gelu"`` or ``"relu"``.
        pooling: between stages, ``"attention"`` (published), ``"linear"`` or ``"max"``.
        normalize_positions: scale in-window positions from voxels to ``[-pi, pi]`` (with the published 3.1415).
        position_layout: window layout that the positions of layer i come from: ``"layer"`` takes layout i whatever
            the block's layout is, as the published code does and its weights expect; ``"block"`` takes the block's.
        checkpoint_blocks: in training, compute a block's activations again in the backward pass instead of keeping
            them: less memory for a third more time.

    Raises:
        ValueError: if an option is unknown, or a stage's windows are one layer high but its grid is not.
    """

    def __init__(
        self,
        grid: Grid | Mapping[str, Any],
        stages: Sequence[Mapping[str, Any]],
        activation: str = "gelu",
        pooling: str = "attention",
        normalize_positions: bool = False,
        position_layout: str = "layer",
        checkpoint_blocks: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        _check_choice("activation", activation, ACTIVATIONS)
        _check_choice("pooling", pooling, POOLINGS)
        _check_choice("position_layout", position_layout, ("layer", "block"))
        self.spatial_shape = Grid.build(grid).shape
        self.specs = [DSVTStage(**stage) for stage in stages]
        self.shapes = _check_shapes(self.spatial_shape, self.specs)
        self.normalize_positions = normalize_positions
        self.position_layout = position_layout
        self.out_channels = self.specs[-1].channels
        self.stages = nn.ModuleList(_blocks(spec, activation, checkpoint_blocks) for spec in self.specs)
        self.poolings = nn.ModuleList(
            POOLINGS[pooling](before.channels, after.channels, after.volume)
            for before, after in zip(self.specs, self.specs[1:], strict=False)
        )
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        for number, spec in enumerate(self.specs):
            for which, layout in enumerate(spec.layouts):
                positions = self._cell_positions(layout)[:, : spec.dims]
                self.register_buffer(_cells_name(number, which), positions, persistent=False)

    def _cell_positions(self, layout: WindowLayout) -> Tensor:
        positions = layout.positions()
        if not self.normalize_positions:
            return positions
        return positions / positions.new_tensor(layout.shape[::-1]) * (2 * PUBLISHED_PI)

    def forward(
        self,
        features: Tensor,  # [N, C]
        coords: Tensor,  # [N, 4]
        batch_size: int,
    ) -> tuple[Tensor, Tensor]:
        """Run all stages.

        Args:
            features: ``[N, C]`` with the width of the first stage.
            coords: ``[N, 4]`` int32 ``(batch, z, y, x)``, unique.
            batch_size: number of samples.

        Returns:
            Features ``[M, C']`` and coordinates ``[M, 4]`` of the last stage's voxels.

        Raises:
            ValueError: if shapes do not fit, or a voxel lies outside the grid.
        """
        if features.ndim != 2 or features.shape[1] != self.specs[0].channels or len(features) != len(coords):
            raise ValueError(
                f"features: expected [{len(coords)}, {self.specs[0].channels}], got {list(features.shape)}"
            )
        indices = self.index(coords, batch_size)
        return self.run(features, indices), indices[-1].coords

    def index(self, coords: Tensor, batch_size: int) -> list[StageIndex]:
        """Do the index work of all stages for voxels ``[N, 4]``."""
        return index_stages(coords, self.spatial_shape, self.specs, batch_size)

    def run(self, features: Tensor, indices: Sequence[StageIndex]) -> Tensor:
        """Run all stages on features ``[N, C]`` over the sets that ``index`` found; nothing depends on coordinates."""
        x = features
        for number, (index, used) in enumerate(zip(indices, used_layouts(self.specs), strict=True)):
            if index.pooling is not None:
                x = self.poolings[number - 1](index.pooling.fill(x))
            for block, layout in zip(self.stages[number], used, strict=True):
                x = block(x, self._positions(number, layout, index), index.layouts[layout].sets)
        return x

    def _positions(self, stage: int, layout: int, index: StageIndex) -> list[tuple[Tensor, Tensor]]:
        """Return what each layer of a block in ``layout`` embeds: positions of the cells, and each voxel's cell."""
        chosen = range(len(index.layouts)) if self.position_layout == "layer" else [layout] * len(index.layouts)
        return [(self.get_buffer(_cells_name(stage, which)), index.layouts[which].cells) for which in chosen]


def _cells_name(stage: int, layout: int) -> str:
    return f"cells_{stage}_{layout}"


def _blocks(spec: DSVTStage, activation: str, checkpoint: bool) -> nn.ModuleList:
    return nn.ModuleList(
        DSVTBlock(spec.channels, spec.num_heads, spec.ffn_channels, spec.dims, activation, checkpoint)
        for _ in range(spec.num_blocks)
    )


def _check_shapes(spatial_shape: tuple[int, int, int], specs: Sequence[DSVTStage]) -> list[tuple[int, int, int]]:
    """Return each stage's grid ``(z, y, x)``."""
    shapes = list(stage_shapes(spatial_shape, specs))
    for stage, (spec, shape) in enumerate(zip(specs, shapes, strict=True)):
        if shape[0] > 1 and spec.dims == 2:
            raise ValueError(
                f"stage {stage}: windows {tuple(spec.window_shape)} are one layer high, but its grid is {shape}"
            )
    return shapes


def _check_choice(name: str, value: str, choices: Any) -> None:
    if value not in choices:
        raise ValueError(f"DSVT: {name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
