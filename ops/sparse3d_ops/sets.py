"""DSVT's index work, done once a forward pass: the sets, in-window cells and pooled voxels of every stage.

Nothing here depends on features, so a deployed model does it outside of its graph. Windows and sets are defined in
`windows.py`. A stage knows two window layouts: the original, and a shifted and possibly larger one; block g, counted
through all stages, works in layout g mod 2 of its stage. All triples are `(z, y, x)` in voxels.

    cell of a voxel        (z * W_y + y) * W_x + x                          of its in-window coordinates
    position of a cell     (x - W_x / 2, y - W_y / 2, z - W_z / 2)
    pooling by a stride D  parent = coord // D,   slot = ((x mod D_x) * D_y + y mod D_y) * D_z + z mod D_z

Source: DSVT (Wang et al., CVPR 2023), sections 3.2 and 3.3, and its code.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

import torch
from torch import Tensor

from .coords import pack, unique, unpack
from .segment import Segments, segment_gather
from .windows import partition_sets, partition_windows

Triple = tuple[int, int, int]
NUM_LAYOUTS = 2


@dataclass(frozen=True)
class WindowLayout:
    """One way of cutting the grid into windows.

    Args:
        shape: extent of a window ``(z, y, x)``.
        shift: offset of the windows ``(z, y, x)``.
    """

    shape: Triple
    shift: Triple

    def positions(self, device: torch.device | None = None) -> Tensor:
        """Return the positions ``[cells, 3]`` float32 ``(x, y, z)`` of a window's cells from its middle, in voxels."""
        axes = [torch.arange(extent, device=device) - extent / 2 for extent in self.shape]
        z, y, x = torch.meshgrid(*axes, indexing="ij")
        return torch.stack([x, y, z], dim=-1).flatten(0, 2)


@dataclass(frozen=True, kw_only=True)
class SetStage:
    """What the index work of one stage depends on.

    Args:
        num_blocks: blocks of two layers.
        set_size: slots T of a set.
        window_shape: extent of a window ``(z, y, x)`` in the first layout.
        shifts: offsets ``(z, y, x)`` of the windows of the two layouts.
        hybrid_factor: how many times larger the second layout's windows are.
        stride: pooling from the stage before, ``(z, y, x)``; of no meaning for the first stage.
    """

    num_blocks: int
    set_size: int
    window_shape: Triple
    shifts: tuple[Triple, Triple]
    hybrid_factor: Triple = (1, 1, 1)
    stride: Triple = (1, 1, 1)

    @property
    def volume(self) -> int:
        """Slots of a parent when voxels of the stage before are pooled."""
        return prod(self.stride)

    @property
    def layouts(self) -> tuple[WindowLayout, WindowLayout]:
        """The stage's two window layouts."""
        (z, y, x), (fz, fy, fx), (first, second) = self.window_shape, self.hybrid_factor, self.shifts
        return WindowLayout((z, y, x), first), WindowLayout((z * fz, y * fy, x * fx), second)


@dataclass(frozen=True)
class Sets:
    """One partition of the voxels into sets of equal size.

    Args:
        index: ``[S, T]`` int64, voxel of each slot.
        mask: ``[S, T]`` bool, True for a repeat, which is hidden as a key.
        first: ``[N]`` int64, the first slot of each voxel. A voxel's slots lie in one set and attend alike, so any
            of them can stand for it.
    """

    index: Tensor
    mask: Tensor
    first: Tensor

    @cached_property
    def slots(self) -> Segments:
        """The S * T slots grouped by voxel."""
        return Segments.from_index(self.index.flatten(), len(self.first))

    def gather(self, rows: Tensor) -> Tensor:
        """Give each slot the row of its voxel: ``[N, C]`` -> ``[S, T, C]``.

        Slots are grouped, for a fast sum over them, only where a gradient will ask for it.
        """
        if rows.requires_grad:
            return segment_gather(rows, self.slots).unflatten(0, self.index.shape)
        return rows.index_select(0, self.index.flatten()).unflatten(0, self.index.shape)


@dataclass(frozen=True)
class LayoutIndex:
    """The voxels of a stage under one window layout.

    Args:
        cells: ``[N]`` int64, cell of each voxel's window that it lies in.
        sets: the y-major and the x-major sets; None where no block uses this layout's.
    """

    cells: Tensor
    sets: tuple[Sets, Sets] | None


@dataclass(frozen=True)
class Pooling:
    """Where the N voxels of a stage go in the next one.

    Args:
        place: ``[N]`` int64, parent times volume plus slot; no two children share one.
        volume: slots of a parent.
        num_parents: voxels M of the next stage.
    """

    place: Tensor
    volume: int
    num_parents: int

    @property
    def parent(self) -> Tensor:
        """Row ``[N]`` int64 in the next stage."""
        return self.place // self.volume

    @property
    def slot(self) -> Tensor:
        """Place ``[N]`` int64 inside the parent."""
        return self.place % self.volume

    def fill(self, rows: Tensor) -> Tensor:
        """Lay the children of each parent side by side, ``[N, C]`` -> ``[M, volume, C]``, zeros in empty slots."""
        slots = rows.new_zeros(self.num_parents * self.volume, rows.shape[1])
        return slots.index_copy(0, self.place, rows).view(self.num_parents, self.volume, rows.shape[1])


@dataclass(frozen=True)
class StageIndex:
    """All indices of one stage.

    Args:
        coords: ``[N, 4]`` int32 ``(batch, z, y, x)`` of its voxels.
        layouts: its voxels under its two window layouts.
        pooling: how they come from the voxels of the stage before; None for the first stage.
    """

    coords: Tensor
    layouts: tuple[LayoutIndex, LayoutIndex]
    pooling: Pooling | None


def index_stages(
    coords: Tensor,  # [N, 4]
    spatial_shape: Triple,
    stages: Sequence[SetStage],
    batch_size: int,
) -> list[StageIndex]:
    """Do the index work of all stages.

    Args:
        coords: ``[N, 4]`` int32 ``(batch, z, y, x)``, unique.
        spatial_shape: voxels of the grid ``(z, y, x)``.
        stages: the stages in order.
        batch_size: number of samples.

    Raises:
        ValueError: if a voxel lies outside the grid or the batch.
    """
    indices: list[StageIndex] = []
    for stage, shape, used in zip(stages, stage_shapes(spatial_shape, stages), used_layouts(stages), strict=True):
        pooling = None
        if indices:
            coords, pooling = pool_voxels(coords, spatial_shape, stage.stride, batch_size)
        first, second = (
            index_layout(coords, shape, layout, stage.set_size, batch_size, with_sets=number in used)
            for number, layout in enumerate(stage.layouts)
        )
        indices.append(StageIndex(coords, (first, second), pooling))
        spatial_shape = shape
    return indices


def stage_shapes(spatial_shape: Triple, stages: Sequence[SetStage]) -> Iterator[Triple]:
    """Yield each stage's grid ``(z, y, x)``; pooling rounds up."""
    for number, stage in enumerate(stages):
        if number:
            spatial_shape = pooled_shape(spatial_shape, stage.stride)
        yield spatial_shape


def used_layouts(stages: Sequence[SetStage]) -> Iterator[list[int]]:
    """Yield the layout of each block, stage by stage."""
    first = 0
    for stage in stages:
        yield [(first + block) % NUM_LAYOUTS for block in range(stage.num_blocks)]
        first += stage.num_blocks


def index_layout(
    coords: Tensor,  # [N, 4]
    spatial_shape: Triple,
    layout: WindowLayout,
    set_size: int,
    batch_size: int,
    *,
    with_sets: bool,
) -> LayoutIndex:
    """Place voxels in the windows of a layout and, if asked, cut the windows into sets."""
    windows = partition_windows(coords, spatial_shape, layout.shape, layout.shift, batch_size)
    _, height, width = layout.shape
    z, y, x = windows.in_window.unbind(1)
    cells = (z * height + y) * width + x
    if not with_sets:
        return LayoutIndex(cells, None)
    both = partition_sets(windows, set_size)
    y_major, x_major = (_sets(*each, len(coords)) for each in zip(both.indices, both.mask, strict=True))
    return LayoutIndex(cells, (y_major, x_major))


def _sets(index: Tensor, mask: Tensor, num_voxels: int) -> Sets:
    shown = (~mask).flatten().nonzero()[:, 0]
    first = torch.empty(num_voxels, dtype=torch.int64, device=index.device)
    first[index.flatten()[shown]] = shown
    return Sets(index, mask, first)


def pooled_shape(spatial_shape: Triple, stride: Triple) -> Triple:
    """Return the grid ``(z, y, x)`` after pooling, rounded up."""
    z, y, x = (-(-extent // step) for extent, step in zip(spatial_shape, stride, strict=True))
    return z, y, x


def pool_voxels(
    coords: Tensor,  # [N, 4]
    spatial_shape: Triple,
    stride: Triple,
    batch_size: int,
) -> tuple[Tensor, Pooling]:
    """Find the parents of voxels.

    Args:
        coords: ``[N, 4]`` int32 ``(batch, z, y, x)``.
        spatial_shape: voxels of the grid ``(z, y, x)`` before pooling.
        stride: voxels of a parent along ``(z, y, x)``.
        batch_size: number of samples.

    Returns:
        The parents' coordinates ``[M, 4]`` int32, ascending, and the way into them.

    Raises:
        ValueError: if a voxel lies outside the grid or the batch.
    """
    steps = torch.tensor((1, *stride), dtype=coords.dtype, device=coords.device)
    shape = pooled_shape(spatial_shape, stride)
    keys, parent, _ = unique(pack(coords // steps, shape, batch_size))
    z, y, x = (coords % steps)[:, 1:].long().unbind(1)
    volume, slot = prod(stride), (x * stride[1] + y) * stride[0] + z
    return unpack(keys, shape, batch_size), Pooling(parent * volume + slot, volume, len(keys))
