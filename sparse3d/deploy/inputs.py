"""From points to the tensors that a graph takes: voxelization, description and set partition, by training's own code.

    name                        shape                   what
    point_descriptors           [points, D]             see sparse3d_ops.descriptors
    point_voxel                 [points]                voxel of each point
    maxima_0 to maxima_2        [chunks_i, 8]           tables of a maximum over voxels, see sparse3d_ops.segment_tree
    maxima_3                    [voxels_0, fan]
    place_s                     [voxels_(s - 1)]        slot of each voxel in stage s (s > 0)
    cells_s_l                   [voxels_s]              cell of its window, stage s, layout l
    sets_s_l, masks_s_l         [2, sets_s_l, T]        voxel of each slot, which slots repeat; y-major, x-major
    first_s_l                   [2, voxels_s]           first slot of each voxel
    bev_cells                   [voxels_last]           cell of the map

Descriptors are float32, masks bool, the rest int32. Stages and layouts are DSVT's, see `sparse3d_ops.sets`; a model
without that backbone takes none of theirs. One scan at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from math import prod
from typing import Any

import torch
from torch import Tensor

from sparse3d.structures import Grid
from sparse3d_ops import (
    LayoutIndex,
    Pooling,
    Segments,
    SegmentTree,
    Sets,
    SetStage,
    StageIndex,
    bev_cells,
    describe_points,
    index_stages,
    voxelize,
)
from sparse3d_ops.segment_tree import DEPTH, FAN
from sparse3d_ops.sets import stage_shapes, used_layouts

MAX_POINTS_IN_VOXEL = 32768  # so that the last table of maxima has a stated width

Named = dict[str, Tensor]


@dataclass(frozen=True)
class PointInputs:
    """How points become the inputs of a graph.

    Args:
        grid: the grid of the voxels.
        num_features: columns of the points, ``x, y, z`` first.
        max_voxels: voxels of a scan at most.
        max_points: points of a scan inside of the grid at most.
        keep_outside_z: put points above or below the range into the nearest layer, as training did.
        with_distance: describe points by their distance too.
        scales: what each number of a description is divided by, or None.
        stages: DSVT's stages; empty for a model without it.
    """

    grid: Grid
    num_features: int
    max_voxels: int
    max_points: int
    keep_outside_z: bool = False
    with_distance: bool = False
    scales: tuple[float, ...] | None = None
    stages: tuple[SetStage, ...] = field(default=())

    # -- to and from deploy.json -------------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain containers, the grid left to the caller."""
        values = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "grid"}
        return {**values, "stages": [asdict(stage) for stage in self.stages]}

    @classmethod
    def from_json(cls, values: Mapping[str, Any], grid: Grid) -> PointInputs:
        """Build from what ``to_json`` returned."""
        stages = tuple(SetStage(**_frozen(stage)) for stage in values["stages"])
        return cls(**{**values, "scales": _tuple(values["scales"]), "stages": stages}, grid=grid)

    # -- points to tensors -------------------------------------------------------------------------------------------

    def __call__(self, points: Tensor) -> Named:
        """Return the inputs for one scan.

        Args:
            points: ``[P, num_features]`` float32; it may be empty, and points outside of the grid are left out.

        Raises:
            ValueError: if the points have another shape or dtype or are not finite, or the scan is too large for the
                exported ranges.
        """
        self._check_points(points)
        grid, none = self.grid, torch.zeros(len(points), dtype=torch.int64)
        found = voxelize(points, none, grid.point_range, grid.voxel_size, 1, keep_outside_z=self.keep_outside_z)
        inside = found.point_to_voxel >= 0
        segments = Segments.from_index(found.point_to_voxel[inside], len(found.coords))
        self._check_counts(segments)
        descriptors = describe_points(
            points[inside],
            found.coords,
            segments,
            grid.lower,
            grid.voxel_size,
            with_distance=self.with_distance,
            scales=self.scales,
        )
        tree = SegmentTree.from_segments(segments)
        named = {"point_descriptors": descriptors, "point_voxel": tree.index}
        named.update({f"maxima_{level}": table for level, table in enumerate(tree.levels)})
        coords = found.coords
        if self.stages:
            indices = index_stages(coords, grid.shape, self.stages, 1)
            named.update(item for stage, index in enumerate(indices) for item in _name_stage(stage, index))
            coords = indices[-1].coords
        named["bev_cells"] = bev_cells(coords, grid.bev_shape)
        return {name: each.int() if each.dtype == torch.int64 else each for name, each in named.items()}

    def _check_points(self, points: Tensor) -> None:
        if points.dtype != torch.float32 or points.ndim != 2 or points.shape[1] != self.num_features:
            raise ValueError(
                f"points: expected [P, {self.num_features}] float32, the columns that the model was trained on, "
                f"got {list(points.shape)} {str(points.dtype).removeprefix('torch.')}"
            )
        bad = int((~torch.isfinite(points)).any(dim=1).sum())
        if bad:
            raise ValueError(f"points: {bad} of {len(points)} rows hold NaN or infinity")

    def _check_counts(self, segments: Segments) -> None:
        counts = (
            ("voxels", segments.num_segments, self.max_voxels),
            ("points", len(segments.index), self.max_points),
        )
        for what, found, limit in counts:
            if found > limit:
                raise ValueError(
                    f"the scan has {found} {what} in the grid, this model was exported for at most {limit}; "
                    f"export it again with --max-{what} {found} or more"
                )
        fullest = int(segments.counts.max()) if segments.num_segments else 0
        if fullest > MAX_POINTS_IN_VOXEL:
            raise ValueError(f"a voxel of the scan holds {fullest} points, graphs take at most {MAX_POINTS_IN_VOXEL}")

    # -- shapes --------------------------------------------------------------------------------------------------------

    def shapes(self) -> dict[str, tuple[int | str, ...]]:
        """Return the shape of each input; a string names a dimension that differs from scan to scan."""
        shapes: dict[str, tuple[int | str, ...]] = {
            "point_descriptors": ("points", self.num_features + 6 + int(self.with_distance)),
            "point_voxel": ("points",),
            **{f"maxima_{level}": (f"chunks_{level}", FAN) for level in range(DEPTH - 1)},
            f"maxima_{DEPTH - 1}": ("voxels_0", "fan"),
        }
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
        shapes["bev_cells"] = (f"voxels_{max(len(self.stages) - 1, 0)}",)
        return shapes

    def limits(self) -> dict[str, int]:
        """Return the largest extent of each dimension that differs from scan to scan."""
        voxels, points = self.max_voxels, self.max_points
        limits = {"points": points, "voxels_0": voxels, "fan": -(-MAX_POINTS_IN_VOXEL // FAN ** (DEPTH - 1))}
        limits.update({f"chunks_{level}": points // FAN ** (level + 1) + voxels for level in range(DEPTH - 1)})
        for number, (stage, shape) in enumerate(
            zip(self.stages, stage_shapes(self.grid.shape, self.stages), strict=True)
        ):
            limits[f"voxels_{number}"] = voxels
            for layout, each in enumerate(stage.layouts):
                windows = prod(-(-extent // window) + 1 for extent, window in zip(shape, each.shape, strict=True))
                limits[f"sets_{number}_{layout}"] = voxels // stage.set_size + min(windows, voxels)
        named = {extent for shape in self.shapes().values() for extent in shape if isinstance(extent, str)}
        return {name: limit for name, limit in limits.items() if name in named}


def _name_stage(stage: int, index: StageIndex) -> Iterator[tuple[str, Tensor]]:
    if index.pooling is not None:
        yield f"place_{stage}", index.pooling.place
    for layout, each in enumerate(index.layouts):
        yield f"cells_{stage}_{layout}", each.cells
        if each.sets is not None:
            yield f"sets_{stage}_{layout}", torch.stack([sets.index for sets in each.sets])
            yield f"masks_{stage}_{layout}", torch.stack([sets.mask for sets in each.sets])
            yield f"first_{stage}_{layout}", torch.stack([sets.first for sets in each.sets])


def tree_of(named: Named) -> SegmentTree:
    """Return the points' voxels as the graph's encoder takes them."""
    return SegmentTree(named["point_voxel"], tuple(named[f"maxima_{level}"] for level in range(DEPTH)))


def stages_of(named: Named, volumes: Sequence[int]) -> list[StageIndex]:
    """Return the stages' indices as the graph's backbone takes them; coordinates play no part in it.

    Args:
        named: the graph's inputs.
        volumes: slots of a parent, for each stage; of no meaning for the first one.
    """
    indices = []
    for stage, volume in enumerate(volumes):
        first, second = (_layout_of(named, f"{stage}_{layout}") for layout in range(2))
        num_voxels = first.cells.shape[0]  # len() would bake the number into the graph
        pooling = Pooling(named[f"place_{stage}"].long(), volume, num_voxels) if stage else None
        indices.append(StageIndex(first.cells, (first, second), pooling))
    return indices


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
