"""From points to the tensors that a graph takes, by training's own code: voxels, what is said of them, where they are.

What is said of voxels depends on their encoder:

    name                        shape                   what
    point_descriptors           [points, D]             see sparse3d_ops.descriptors
    point_voxel                 [points]                voxel of each point
    maxima_0 to maxima_2        [chunks_i, 8]           tables of a maximum over voxels, see sparse3d_ops.segment_tree
    maxima_3                    [voxels_0, fan]

    voxel_features              [voxels_0, F]           means of the points, see sparse3d_ops.means

Where they are is told by `set_inputs.py`, `table_inputs.py` or `coord_inputs.py`. Descriptors and features are float32,
all indices int32. One scan at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from sparse3d.structures import Grid, Voxels
from sparse3d_ops import Segments, SegmentTree, describe_points, mean_points, voxelize
from sparse3d_ops.segment_tree import DEPTH, FAN

from .coord_inputs import CoordIndexing
from .named import Feed, Named, Shape
from .sensor_scan import check_kind
from .set_inputs import SetIndexing
from .table_inputs import TableIndexing

MAX_POINTS_IN_VOXEL = 32768  # so that the last table of maxima has a stated width


@dataclass(frozen=True)
class DescribedPoints:
    """Points with what a dynamic voxel encoder is told about them.

    Args:
        max_points: points of a scan inside of the grid at most.
        with_distance: describe points by their distance too.
        scales: what each number of a description is divided by, or None.
    """

    max_points: int
    with_distance: bool = False
    scales: tuple[float, ...] | None = None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> DescribedPoints:
        """Build from its fields."""
        scales = values["scales"]
        return cls(**{**values, "scales": None if scales is None else tuple(scales)})

    def __call__(self, points: Tensor, voxel: Tensor, coords: Tensor, grid: Grid) -> Named:
        """Return the inputs for points that lie in voxels.

        Raises:
            ValueError: if there are more points, or more of them in a voxel, than the graph takes.
        """
        segments = Segments.from_index(voxel, len(coords))
        _check_count("points", len(points), self.max_points)
        fullest = int(segments.counts.max()) if len(coords) else 0
        if fullest > MAX_POINTS_IN_VOXEL:
            raise ValueError(f"a voxel of the scan holds {fullest} points, graphs take at most {MAX_POINTS_IN_VOXEL}")
        tree = SegmentTree.from_segments(segments)
        options = {"with_distance": self.with_distance, "scales": self.scales}
        return {
            "point_descriptors": describe_points(points, coords, segments, grid.lower, grid.voxel_size, **options),
            "point_voxel": tree.index,
            **{f"maxima_{level}": table for level, table in enumerate(tree.levels)},
        }

    def shapes(self, num_features: int) -> dict[str, Shape]:
        """Return the shape of each input."""
        return {
            "point_descriptors": ("points", num_features + 6 + int(self.with_distance)),
            "point_voxel": ("points",),
            **{f"maxima_{level}": (f"chunks_{level}", FAN) for level in range(DEPTH - 1)},
            f"maxima_{DEPTH - 1}": ("voxels_0", "fan"),
        }

    def limits(self, max_voxels: int) -> dict[str, int]:
        """Return the largest extent of each dimension that differs from scan to scan."""
        chunks = {f"chunks_{level}": self.max_points // FAN ** (level + 1) + max_voxels for level in range(DEPTH - 1)}
        return {"points": self.max_points, "fan": -(-MAX_POINTS_IN_VOXEL // FAN ** (DEPTH - 1)), **chunks}


def tree_of(named: Named) -> SegmentTree:
    """Return the points' voxels as the graph's encoder takes them."""
    return SegmentTree(named["point_voxel"], tuple(named[f"maxima_{level}"] for level in range(DEPTH)))


@dataclass(frozen=True)
class MeanPoints:
    """The mean of each voxel's points.

    Args:
        max_points: only so many of a voxel's points count, as in training; None for all of them.
    """

    max_points: int | None = None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> MeanPoints:
        """Build from its fields."""
        return cls(**values)

    def __call__(self, points: Tensor, voxel: Tensor, coords: Tensor, grid: Grid) -> Named:
        """Return the input for points that lie in voxels."""
        return {"voxel_features": mean_points(points, voxel, len(coords), self.max_points)}

    def shapes(self, num_features: int) -> dict[str, Shape]:
        """Return the shape of the input."""
        return {"voxel_features": ("voxels_0", num_features)}

    def limits(self, max_voxels: int) -> dict[str, int]:
        """Return the extents besides the voxels that differ from scan to scan: none."""
        return {}


ENCODINGS = {each.__name__: each for each in (DescribedPoints, MeanPoints)}
INDEXINGS = {each.__name__: each for each in (SetIndexing, TableIndexing, CoordIndexing)}


@dataclass(frozen=True)
class PointInputs:
    """How points become the inputs of graphs.

    Args:
        grid: the grid of the voxels.
        num_features: columns of the points, ``x, y, z`` first.
        max_voxels: voxels of a scan at most.
        keep_outside_z: put points above or below the range into the nearest layer, as training did.
        encoding: what is said of voxels.
        indexing: where they are.
    """

    grid: Grid
    num_features: int
    max_voxels: int
    keep_outside_z: bool
    encoding: DescribedPoints | MeanPoints
    indexing: SetIndexing | TableIndexing | CoordIndexing

    # -- to and from deploy.json -------------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain containers, the grid left to the caller."""
        return {
            "type": type(self).__name__,
            "num_features": self.num_features,
            "max_voxels": self.max_voxels,
            "keep_outside_z": self.keep_outside_z,
            "encoding": {"type": type(self.encoding).__name__, **asdict(self.encoding)},
            "indexing": {"type": type(self.indexing).__name__, **self.indexing.to_json()},
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any], grid: Grid) -> PointInputs:
        """Build from what ``to_json`` returned."""
        encoding, indexing = dict(values["encoding"]), dict(values["indexing"])
        return cls(
            grid=grid,
            num_features=values["num_features"],
            max_voxels=values["max_voxels"],
            keep_outside_z=values["keep_outside_z"],
            encoding=ENCODINGS[encoding.pop("type")].from_json(encoding),
            indexing=INDEXINGS[indexing.pop("type")].from_json(indexing, grid, values["max_voxels"]),
        )

    # -- points to tensors -------------------------------------------------------------------------------------------

    @property
    def num_graphs(self) -> int:
        """Number of graphs of the model."""
        return self.indexing.num_graphs

    def __call__(self, points: Tensor) -> Feed:
        """Return the first graph's inputs for one scan.

        Args:
            points: ``[P, num_features]`` float32; it may be empty, and points outside of the grid are left out.

        Raises:
            ValueError: if the points have another shape or dtype or are not finite, or the scan is too large for the
                exported ranges.
        """
        return as_int32(self.describe(self.sort(points)))

    def sort(self, points: Tensor) -> Voxels:
        """Return the points ``[P, num_features]`` in voxels; errors as ``__call__``."""
        self._check_points(points)
        grid, none = self.grid, torch.zeros(len(points), dtype=torch.int64)
        found = voxelize(points, none, grid.point_range, grid.voxel_size, 1, keep_outside_z=self.keep_outside_z)
        inside = found.point_to_voxel >= 0
        _check_count("voxels", len(found.coords), self.max_voxels)
        return Voxels(found.coords, points[inside], found.point_to_voxel[inside], 1)

    def describe(self, voxels: Voxels) -> Feed:
        """Return the first graph's inputs for points in voxels; errors as ``__call__``."""
        encoded = self.encoding(voxels.points, voxels.point_to_voxel, voxels.coords, self.grid)
        indexed = self.indexing(voxels.coords)
        return Feed({**encoded, **indexed.named}, indexed.state)

    def go_on(self, graph: int, feed: Feed, outputs: Named) -> Feed:
        """Return the inputs of the graph after a given one, from that one's inputs and outputs.

        Raises:
            ValueError: if more voxels grew than the exported ranges allow.
        """
        return as_int32(self.indexing.grow(graph, feed.state, outputs))

    def _check_points(self, points: Tensor) -> None:
        check_kind(points, Tensor)
        if points.dtype != torch.float32 or points.ndim != 2 or points.shape[1] != self.num_features:
            raise ValueError(
                f"points: expected [P, {self.num_features}] float32, the columns that the model was trained on, "
                f"got {list(points.shape)} {str(points.dtype).removeprefix('torch.')}"
            )
        bad = int((~torch.isfinite(points)).any(dim=1).sum())
        if bad:
            raise ValueError(f"points: {bad} of {len(points)} rows hold NaN or infinity")

    # -- shapes --------------------------------------------------------------------------------------------------------

    def shapes(self, graph: int = 0) -> dict[str, Shape]:
        """Return the shape of each input of a graph."""
        encoded = self.encoding.shapes(self.num_features) if graph == 0 else {}
        return {**encoded, **self.indexing.shapes(graph)}

    def output_shapes(self, graph: int) -> dict[str, Shape]:
        """Return the shape of each output of a graph that another one follows."""
        return self.indexing.output_shapes(graph)

    def limits(self) -> dict[str, int]:
        """Return the largest extent of each dimension that differs from scan to scan."""
        limits = {**self.encoding.limits(self.max_voxels), **self.indexing.limits()}
        shapes = [shape for graph in range(self.num_graphs) for shape in self.shapes(graph).values()]
        named = {extent for shape in shapes for extent in shape if isinstance(extent, str)}
        return {name: limit for name, limit in limits.items() if name in named}


def _check_count(what: str, found: int, limit: int) -> None:
    if found > limit:
        raise ValueError(
            f"the scan has {found} {what} in the grid, this model was exported for at most {limit}; "
            f"export it again with --max-{what} {found} or more"
        )


def as_int32(feed: Feed) -> Feed:
    """Return the same with indices as graphs take them."""
    return Feed(
        {name: each.int() if each.dtype == torch.int64 else each for name, each in feed.named.items()}, feed.state
    )
