"""DSVT: Dynamic Sparse Voxel Transformer with Rotated Sets (Wang et al., CVPR 2023, arXiv 2301.06051).

Stages of blocks over the occupied voxels; between stages voxels are pooled (along z in the voxel form; the pillar form
is a single stage). A stage knows two window layouts: the original, and a shifted and possibly larger one. Block g,
counted through all stages, works in layout g mod 2 of its stage. All triples are `(z, y, x)` in voxels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from mmengine.model import BaseModule
from torch import Tensor, nn

from sparse3d.registry import MODELS
from sparse3d.structures import Grid

from .dsvt_layers import ACTIVATIONS, POOLINGS, DSVTBlock, fill_slots
from .dsvt_partition import Partition, Triple, WindowLayout, partition, pool_voxels, pooled_shape

NUM_LAYOUTS = 2
PUBLISHED_PI = 3.1415  # the constant of the published code, kept so that its weights see the same numbers


@dataclass(frozen=True)
class DSVTStage:
    """One stage of the backbone.

    Args:
        channels: width C.
        num_heads: attention heads.
        ffn_channels: hidden width of the FFNs.
        num_blocks: blocks of two encoder layers.
        set_size: slots T of a set.
        window_shape: extent of a window ``(z, y, x)`` in the first layout.
        shifts: offsets ``(z, y, x)`` of the windows of the two layouts.
        hybrid_factor: how many times larger the second layout's windows are.
        stride: pooling from the stage before, ``(z, y, x)``; of no meaning for the first stage.
    """

    channels: int
    num_heads: int
    ffn_channels: int
    num_blocks: int
    set_size: int
    window_shape: Triple
    shifts: tuple[Triple, Triple]
    hybrid_factor: Triple = (1, 1, 1)
    stride: Triple = (1, 1, 1)

    @property
    def layouts(self) -> tuple[WindowLayout, WindowLayout]:
        """The stage's two window layouts."""
        z, y, x = (window * factor for window, factor in zip(self.window_shape, self.hybrid_factor, strict=True))
        return WindowLayout(tuple(self.window_shape), self.shifts[0]), WindowLayout((z, y, x), self.shifts[1])

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
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        _check_choice("activation", activation, ACTIVATIONS)
        _check_choice("pooling", pooling, POOLINGS)
        _check_choice("position_layout", position_layout, ("layer", "block"))
        self.specs = [DSVTStage(**stage) for stage in stages]
        self.shapes = list(_stage_shapes(Grid.build(grid).shape, self.specs))
        self.normalize_positions = normalize_positions
        self.position_layout = position_layout
        self.out_channels = self.specs[-1].channels
        self.stages = nn.ModuleList(_blocks(spec, activation) for spec in self.specs)
        self.poolings = nn.ModuleList(
            POOLINGS[pooling](before.channels, after.channels, prod(after.stride))
            for before, after in zip(self.specs, self.specs[1:], strict=False)
        )
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

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
        first_block = 0
        for stage, spec in enumerate(self.specs):
            if stage > 0:
                features, coords = self._pool(stage, features, coords, batch_size)
            features = self._run_stage(stage, first_block, features, coords, batch_size)
            first_block += spec.num_blocks
        return features, coords

    def _run_stage(self, stage: int, first_block: int, x: Tensor, coords: Tensor, batch_size: int) -> Tensor:
        layouts = [(first_block + block) % NUM_LAYOUTS for block in range(self.specs[stage].num_blocks)]
        partitions = self.partitions(stage, coords, batch_size, layouts)
        positions = [self.embedding_input(stage, layout, each) for layout, each in enumerate(partitions)]
        for block, layout in zip(self.stages[stage], layouts, strict=True):
            own = positions if self.position_layout == "layer" else [positions[layout]] * NUM_LAYOUTS
            x = block(x, own, partitions[layout].sets)
        return x

    def partitions(self, stage: int, coords: Tensor, batch_size: int, layouts: Sequence[int]) -> list[Partition]:
        """Return a stage's voxels under both window layouts, with sets for those in ``layouts``."""
        spec, shape = self.specs[stage], self.shapes[stage]
        return [
            partition(coords, shape, layout, spec.set_size, batch_size, with_sets=number in layouts)
            for number, layout in enumerate(spec.layouts)
        ]

    def embedding_input(self, stage: int, layout: int, partition: Partition) -> Tensor:
        """Return the in-window positions ``[N, 2 or 3]`` that the embeddings read."""
        spec = self.specs[stage]
        positions = partition.positions
        if self.normalize_positions:
            extent = positions.new_tensor(spec.layouts[layout].shape[::-1])
            positions = positions / extent * (2 * PUBLISHED_PI)
        return positions[:, : spec.dims]

    def _pool(self, stage: int, x: Tensor, coords: Tensor, batch_size: int) -> tuple[Tensor, Tensor]:
        stride = self.specs[stage].stride
        pooled = pool_voxels(coords, self.shapes[stage - 1], stride, batch_size)
        return self.poolings[stage - 1](fill_slots(x, pooled, prod(stride))), pooled.coords


def _blocks(spec: DSVTStage, activation: str) -> nn.ModuleList:
    return nn.ModuleList(
        DSVTBlock(spec.channels, spec.num_heads, spec.ffn_channels, spec.dims, activation)
        for _ in range(spec.num_blocks)
    )


def _stage_shapes(shape: Triple, specs: Sequence[DSVTStage]) -> Iterator[Triple]:
    """Yield each stage's grid ``(z, y, x)``."""
    for stage, spec in enumerate(specs):
        shape = pooled_shape(shape, spec.stride) if stage else shape
        if shape[0] > 1 and spec.dims == 2:
            raise ValueError(
                f"stage {stage}: windows {tuple(spec.window_shape)} are one layer high, but its grid is {shape}"
            )
        yield shape


def _check_choice(name: str, value: str, choices: Any) -> None:
    if value not in choices:
        raise ValueError(f"DSVT: {name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
