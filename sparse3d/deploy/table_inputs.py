"""What graphs of sparse convolutions take besides features: who neighbours whom, as tables of rows.

    name                        shape                   what
    voxel_features              [voxels_f, C]           of the level that the graph begins at
    submanifold_l               [voxels_l, K]           for each voxel of level l, its neighbours in that level
    strided_l                   [voxels_l, K]           for each voxel of level l, the voxels of an earlier one
    bev_cells                   [voxels_last]           cell of the map, and layer in it: (y * X + x) * layers + z

Tables are int32; column k belongs to tap k of the kernel. They number rows from 1, and 0 stands for no voxel: a graph
puts one row of zeros before its features, and a convolution is one gather and one product of matrices,

    out = rows(0, features)[table].reshape(voxels, K * C_in) @ weight + bias

Levels are sets of active voxels, numbered from those of the points (0): each strided convolution makes one, and so does
each growth of a focal convolution. Voxels come to be and maps are built by what training calls (`sparse3d_ops.sparse`),
rows of a level in the order of (z, y, x). A growth reads features, so it separates two graphs: the first one's outputs
``features`` and ``scores`` become the second one's ``voxel_features`` on a level of more voxels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

from torch import Tensor

from sparse3d.structures import Grid
from sparse3d_ops import bev_cells
from sparse3d_ops.sparse import FOCAL_OFFSETS, FocalGrowth, Geometry, Sites, SparseTensor

from .named import Feed, Named, Shape

STRIDED, GROWN = 2, 4  # voxels of a level at most, in units of those of the first one: without and with growth so far


@dataclass(frozen=True)
class Table:
    """One table of rows.

    Args:
        name: of the graph's input.
        source: level whose rows it holds.
        target: level that it has a row for each voxel of; the source itself for a submanifold convolution.
        geometry: the convolution's.
    """

    name: str
    source: int
    target: int
    geometry: Geometry

    @property
    def is_submanifold(self) -> bool:
        """Whether both levels are the same."""
        return self.source == self.target


@dataclass(frozen=True)
class Segment:
    """The sparse part of one graph.

    Args:
        channels: columns of the features that it begins with.
        first: level that it begins at.
        last: level that it ends at.
        tables: what its convolutions read, each after the one that makes its source.
        growth: what its outputs are turned into the next graph's features by; None for the last graph.
    """

    channels: int
    first: int
    last: int
    tables: tuple[Table, ...]
    growth: FocalGrowth | None = None


@dataclass(frozen=True)
class Span:
    """The voxels of a scan that a graph begins at, and those that it ends at."""

    first: Sites
    last: Sites


@dataclass(frozen=True)
class TableIndexing:
    """Voxels to neighbour tables, graph after graph, and to cells of the map.

    Args:
        spatial_shape: extents ``(z, y, x)`` of level 0.
        max_voxels: voxels of level 0 at most.
        segments: one for each graph.
    """

    spatial_shape: tuple[int, int, int]
    max_voxels: int
    segments: tuple[Segment, ...]

    @property
    def num_graphs(self) -> int:
        """Number of graphs."""
        return len(self.segments)

    def to_json(self) -> dict[str, Any]:
        """Return shape and segments as plain containers."""
        return {"spatial_shape": self.spatial_shape, "segments": [asdict(segment) for segment in self.segments]}

    @classmethod
    def from_json(cls, values: Mapping[str, Any], grid: Grid, max_voxels: int) -> TableIndexing:
        """Build from what ``to_json`` returned."""
        return cls(tuple(values["spatial_shape"]), max_voxels, tuple(map(_segment, values["segments"])))

    def __call__(self, coords: Tensor) -> Feed:
        """Return the tables of the first graph for voxels ``[V, 4]``."""
        return self._read(0, Sites(coords, self.spatial_shape, 1))

    def grow(self, graph: int, span: Span, outputs: Named) -> Feed:
        """Return the inputs of the graph after a given one.

        Args:
            graph: number of the graph that made the outputs.
            span: its voxels.
            outputs: its ``features`` and ``scores``.
        """
        growth = self.segments[graph].growth
        assert growth is not None  # of every graph but the last one
        grown = growth(SparseTensor.on(span.last, outputs["features"]), outputs["scores"])
        feed = self._read(graph + 1, grown.sites)
        return Feed({"voxel_features": grown.features, **feed.named}, feed.state)

    def _read(self, graph: int, sites: Sites) -> Feed:
        segment, named = self.segments[graph], {}
        levels = {segment.first: self._checked(segment.first, sites)}
        for table in segment.tables:
            source = levels[table.source]
            if table.is_submanifold:
                kernel_map = source.submanifold_map(table.geometry)
            else:
                levels[table.target] = self._checked(table.target, source.coarsen(table.geometry))
                kernel_map = levels[table.target].origin.kernel_map
            named[table.name] = (kernel_map.table() + 1).T.contiguous()
        span = Span(levels[segment.first], levels[segment.last])
        if segment.growth is None:
            named["bev_cells"] = stacked_cells(span.last)
        return Feed(named, span)

    def _checked(self, level: int, sites: Sites) -> Sites:
        limit, factor = self.limits()[f"voxels_{level}"], self._factors()[level]
        if len(sites) > limit:
            raise ValueError(
                f"the scan has {len(sites)} voxels in level {level} of the encoder, this model was exported for at "
                f"most {limit}; export it again with --max-voxels {-(-len(sites) // factor)} or more"
            )
        return sites

    # -- shapes --------------------------------------------------------------------------------------------------------

    def shapes(self, graph: int = 0) -> dict[str, Shape]:
        """Return the shape of each input of a graph, the first one's features left to the encoding."""
        segment = self.segments[graph]
        shapes: dict[str, Shape] = {}
        if graph:
            shapes["voxel_features"] = (f"voxels_{segment.first}", segment.channels)
        shapes.update({each.name: (f"voxels_{each.target}", each.geometry.volume) for each in segment.tables})
        if segment.growth is None:
            shapes["bev_cells"] = (f"voxels_{segment.last}",)
        return shapes

    def output_shapes(self, graph: int) -> dict[str, Shape]:
        """Return the shape of each output of a graph that another one follows."""
        if self.segments[graph].growth is None:
            return {}
        voxels, channels = f"voxels_{self.segments[graph].last}", self.segments[graph + 1].channels
        return {"features": (voxels, channels), "scores": (voxels, len(FOCAL_OFFSETS) + 1)}

    def limits(self) -> dict[str, int]:
        """Return the largest number of voxels of each level."""
        factors = self._factors()
        return {
            f"voxels_{level}": min(prod(shape), factors[level] * self.max_voxels)
            for level, shape in self.level_shapes().items()
        }

    def _factors(self) -> dict[int, int]:
        last = self.segments[0].last
        return {level: 1 if level == 0 else STRIDED if level <= last else GROWN for level in self.level_shapes()}

    def level_shapes(self) -> dict[int, tuple[int, int, int]]:
        """Return the extents ``(z, y, x)`` of each level."""
        shapes, shape = {}, self.spatial_shape
        for segment in self.segments:
            shapes[segment.first] = shape
            for table in segment.tables:
                if not table.is_submanifold:
                    shapes[table.target] = table.geometry.coarse_shape(shapes[table.source])
            shape = shapes[segment.last]
        return shapes


def stacked_cells(sites: Sites) -> Tensor:
    """Return the place ``[N]`` int64 of each voxel of one sample in a map ``(y, x, layers)``, flattened."""
    layers, height, width = sites.spatial_shape
    return bev_cells(sites.indices, (height, width)) * layers + sites.indices[:, 1]


def _segment(values: Mapping[str, Any]) -> Segment:
    growth = None if values["growth"] is None else FocalGrowth(**values["growth"])
    return Segment(**{**values, "tables": tuple(map(_table, values["tables"])), "growth": growth})


def _table(values: Mapping[str, Any]) -> Table:
    geometry = Geometry(**{name: tuple(extents) for name, extents in values["geometry"].items()})
    return Table(**{**values, "geometry": geometry})
