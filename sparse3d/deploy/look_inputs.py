"""From points and images to the tensors that Focals Conv-F's graphs take, by training's own code.

    graph    what it is            name             shape                what
    0        image backbone        images           [1, N, 3, H, W]      see `image_inputs.py`
    1, ...   sparse encoder, map   (points)                              see `inputs.py` and `table_inputs.py`
                                   image_features   [voxels_<l>, C]      what voxels see in the images

Voxels look at the map that graph 0 makes of the images (`sparse3d.encoding.image_sampling`): those before a growth
whose scores read images, and those behind it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import Tensor

from sparse3d.encoding.image_sampling import ImageView, PixelRule
from sparse3d.structures import Cameras, Grid

from .image_inputs import ImageInputs
from .inputs import PointInputs
from .named import Feed, Named, Shape
from .sensor_scan import FusionScan, check_kind


@dataclass(frozen=True)
class Sight:
    """What a moment's voxels are, and what they can look at.

    Args:
        points: inputs of the encoder's first graph, whose state is the voxels at its end.
        cameras: of the images.
        image_map: what graph 0 makes of them, ``[1, N, C, h, w]``.
    """

    points: Feed
    cameras: Cameras
    image_map: Tensor | None = None


@dataclass(frozen=True)
class LookInputs:
    """How points and images become the inputs of the graphs.

    Args:
        points: how points do.
        images: how images do.
        pixels: which pixel a voxel falls on.
        channels: C of the image map.
        scored: graph of the encoder, from 0, whose scores read images; the next one adds them to its first layer.
    """

    points: PointInputs
    images: ImageInputs
    pixels: PixelRule
    channels: int
    scored: int

    @property
    def grid(self) -> Grid:
        """The grid of the voxels."""
        return self.points.grid

    @property
    def num_graphs(self) -> int:
        """Number of graphs of the model."""
        return 1 + self.points.num_graphs

    # -- to and from deploy.json -------------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain containers, the grid left to the caller."""
        return {
            "type": type(self).__name__,
            "points": self.points.to_json(),
            "images": asdict(self.images),
            "pixels": asdict(self.pixels),
            "channels": self.channels,
            "scored": self.scored,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any], grid: Grid) -> LookInputs:
        """Build from what ``to_json`` returned."""
        return cls(
            PointInputs.from_json(values["points"], grid),
            ImageInputs.from_json(values["images"]),
            PixelRule(**values["pixels"]),
            values["channels"],
            values["scored"],
        )

    # -- sensors to tensors ------------------------------------------------------------------------------------------

    def __call__(self, scan: FusionScan) -> Feed:
        """Return the first graph's inputs for one scan.

        Raises:
            ValueError: if the scan has no points or no images, or one of them is not as ``PointInputs`` or
                ``ImageInputs`` wants it.
        """
        check_kind(scan, FusionScan)
        return Feed({"images": self.images(scan)}, Sight(self.points(scan.points), scan.cameras))

    def go_on(self, graph: int, feed: Feed, outputs: Named) -> Feed:
        """Return the inputs of the graph after a given one, from that one's inputs and outputs.

        Raises:
            ValueError: if more voxels grew than the exported ranges allow.
        """
        sight = feed.state
        if graph == 0:
            sight = replace(sight, image_map=outputs["image_map"])
        else:
            sight = replace(sight, points=self.points.go_on(graph - 1, sight.points, outputs))
        return Feed({**sight.points.named, **self._look(graph, sight)}, sight)

    def _look(self, graph: int, sight: Sight) -> Named:
        """Return what voxels see that a graph of the encoder takes."""
        span = sight.points.state
        if graph not in (self.scored, self.scored + 1):
            return {}
        sites = span.last if graph == self.scored else span.first
        view = ImageView(sight.image_map, [sight.cameras], self.images.input_size, self.grid, self.pixels)
        return {"image_features": view(sites)}

    # -- shapes ------------------------------------------------------------------------------------------------------

    def shapes(self, graph: int = 0) -> dict[str, Shape]:
        """Return the shape of each input of a graph."""
        if graph == 0:
            return {"images": self.images.shape}
        own, shapes = graph - 1, self.points.shapes(graph - 1)
        segment = self.points.indexing.segments[own]
        if own == self.scored:
            shapes["image_features"] = (f"voxels_{segment.last}", self.channels)
        if own == self.scored + 1:
            shapes["image_features"] = (f"voxels_{segment.first}", self.channels)
        return shapes

    def output_shapes(self, graph: int) -> dict[str, Shape]:
        """Return the shape of each output of a graph that another one follows."""
        return {} if graph == 0 else self.points.output_shapes(graph - 1)

    def limits(self) -> dict[str, int]:
        """Return the largest extent of each dimension that differs from scan to scan."""
        return self.points.limits()
