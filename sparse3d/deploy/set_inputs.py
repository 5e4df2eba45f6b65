"""What graphs of pillars and of DSVT take besides points: the sets of every stage, and the cells of the map.

    name                        shape                   what
    place_s                     [voxels_(s - 1)]        slot of each voxel in stage s (s > 0)
    cells_s_l                   [voxels_s]              cell of its window, stage s, layout l
    sets_s_l, masks_s_l         [2, sets_s_l, T]        voxel of each slot, which slots repeat; y-major, x-major
    first_s_l                   [2, voxels_s]           first slot of each voxel
    bev_cells                   [voxels_last]           cell of the map

Masks are bool, the rest int32. Stages and layouts are those of `sparse3d_ops.sets`; a model of pillars alone has none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from sparse3d.structures import Grid
from sparse3d_ops import LayoutIndex, Pooling, Sets, SetStage, StageIndex, bev_cells, index_stages
from sparse3d_ops.sets import stage_shapes, used_layouts

from .named import Feed, Named, Shape


@dataclass(frozen=True)
class SetIndexing:
    """Voxels to sets, stage after stage, and to cells of the map.

    Args:
        grid: the grid of the voxels.
        max_voxels: voxels of a scan at most.
        stages: DSVT's stages; empty for a model of pillars alone.
    """

    grid: Grid
    max_voxels: int
    stages: tuple[SetStage, ...] = ()
    num_graphs = 1

    def to_json(self) -> dict[str, Any]:
        """Return the stages as plain containers."""
        return {"stages": [asdict(stage) for stage in self.stages]}

    @classmethod
    def from_json(cls, values: Mapping[str, Any], grid: Grid, max_voxels: int) -> SetIndexing:
        """Build from what ``to_json`` returned."""
        return cls(grid, max_voxels, tuple(SetStage(**_frozen(stage)) for stage in values["stages"]))

    def __call__(self, coords: Tensor) -> Feed:
        """Return the inputs for voxels ``[V, 4]``."""
        named: Named = {}
        if self.stages:
            indices = index_stages(coords, self.grid.shape, self.stages, 1)
            named.update(item for stage, index in enumerate(indices) for item in _name_stage(stage, index))
            coords = indices[-1].coords
        return Feed({**named, "bev_cells": bev_cells(coords, self.grid.bev_shape)})

    def shapes(self, graph: int = 0) -> dict[str, Shape]:
        """Return the shape of each input."""
        shapes: dict[str, Shape] = {}
        for number, (stage, used) in enumerate(zip(self.stages, used_layouts(self.stages), strict=True)):
            voxels = f"voxels_{number}"
            if number:
                shapes[f"place_{number}"] = (f"voxels_{number - 1}",)
            for layout in range(2):
                shapes[f"cells_{number}_{layout}"] = (voxels,)
                if layout in used:
                    slots = (2, f"sets_{number}_{layout}", stage.set_size)
                    shapes[f"sets_{number}_{layout}"] = slots
                    shapes[f"masks_{number}_{layout}"] = slots
                    shapes[f"first_{number}_{layout}"] = (2, voxels)
        return {**shapes, "bev_cells": (f"voxels_{max(len(self.stages) - 1, 0)}",)}

    def output_shapes(self, graph: int) -> dict[str, Shape]:
        """Return the shape of each output that another graph takes: there is none."""
        return {}

    def limits(self) -> dict[str, int]:
        """Return the largest extent of each dimension that may differ from scan to scan."""
        voxels, limits = self.max_voxels, {"voxels_0": self.max_voxels}
        shapes = stage_shapes(self.grid.shape, self.stages)
        for number, (stage, shape) in enumerate(zip(self.stages, shapes, strict=True)):
            limits[f"voxels_{number}"] = voxels
            for layout, each in enumerate(stage.layouts):
                windows = prod(-(-extent // window) + 1 for extent, window in zip(shape, each.shape, strict=True))
                limits[f"sets_{number}_{layout}"] = voxels // stage.set_size + min(windows, voxels)
        return limits


def stages_of(named: Named, volumes: Sequence[int]) -> list[StageIndex]:
    """Return the index work as the graph's backbone takes it; ``volumes`` are the slots of a pooled voxel by stage."""
    indices = []
    for stage, volume in enumerate(volumes):
        first, second = (_layout_of(named, f"{stage}_{layout}") for layout in range(2))
        num_voxels = first.cells.shape[0]  # len() would bake the number into the graph
        pooling = Pooling(named[f"place_{stage}"].long(), volume, num_voxels) if stage else None
        indices.append(StageIndex(first.cells, (first, second), pooling))
    return indices


def _name_stage(stage: int, index: StageIndex) -> Iterator[tuple[str, Tensor]]:
    if index.pooling is not None:
        yield f"place_{stage}", index.pooling.place
    for layout, each in enumerate(index.layouts):
        yield f"cells_{stage}_{layout}", each.cells
        if each.sets is not None:
            yield f"sets_{stage}_{layout}", torch.stack([sets.index for sets in each.sets])
            yield f"masks_{stage}_{layout}", torch.stack([sets.mask for sets in each.sets])
            yield f"first_{stage}_{layout}", torch.stack([sets.first for sets in each.sets])


def _layout_of(named: Named, key: str) -> LayoutIndex:
    if f"sets_{key}" not in named:
        return LayoutIndex(named[f"cells_{key}"], None)
    y_major, x_major = (
        Sets(*(named[f"{part}_{key}"][partition] for part in ("sets", "masks", "first"))) for partition in range(2)
    )
    return LayoutIndex(named[f"cells_{key}"], (y_major, x_major))


def _frozen(stage: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stage's arguments with tuples where JSON has lists."""
    return {name: _tuple(value) for name, value in stage.items()}


def _tuple(value: Any) -> Any:
    return tuple(_tuple(item) for item in value) if isinstance(value, list) else value
