"""From images to the tensors that MV2D's three graphs take, by training's own code.

    graph   what it is            name           shape                  what
    0       backbone, proposals   images         [1, V, 3, H, W]        see `image_inputs.py`
                                  rays           [1, V, 3 D, h, w]      logits of the points that pixels see, and
                                  places         [1, V, 3 C / 2, h, w]  places of pixels: see `pixel_rays.py`
    1       boxes in images       map_<l>        [V, C, h_l, w_l]       of the pyramid, from graph 0
                                  boxes_<l>      [boxes_<l>, 4]         the proposals that look at that level, and
                                  images_<l>     [boxes_<l>]            their images
                                  rows           [proposals]            where each proposal is in these lists
                                  proposals      [proposals, 4]         all of them, and
                                  sizes          [proposals, 2]         (height, width) of their images
    2       boxes in space        placed_map     [1, V, 2 C, h, w]      features and positions, from graph 0
                                  roi_boxes      [queries, 4]           what the 2D detector found, and
                                  roi_images     [queries]              its images
                                  filled         [1, queries]           bool, whether it is anything at all
                                  known          [1, queries, 16]       of the camera that a box is, and the inverse of
                                  to_lidar       [1, queries, 4, 4]     what maps the LiDAR frame to it: see `rois.py`
                                  looks          [1, queries, regions]  the regions, or for two frames
                                                 [1, cells]             the cells, that queries see, and
                                  shown          [1, queries, ...]      bool, which query sees which: `roi_looks.py`
                                  lags           [1]                    seconds between two frames, where there are two

Between the graphs the best boxes are chosen and suppressed. Lists have two entries at least, the last ones of which
nothing asks for where there are less: engines take no empty ones, and traced graphs no list of one.
The modules named are those of `sparse3d.encoding`; what follows from the calibration is made once a rig.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sparse3d.decoding.image_boxes import DetectionFilter
from sparse3d.decoding.proposals import ProposalFilter, Proposals, best_anchors
from sparse3d.encoding.box_levels import POOLED_CELLS, POOLED_LEVELS, rows_by_level
from sparse3d.encoding.pixel_rays import PixelRays
from sparse3d.encoding.related_rois import related_rois
from sparse3d.encoding.roi_looks import CellLooks, RegionLooks
from sparse3d.encoding.rois import STAND_IN, RoIs, Views, frame_lags
from sparse3d.structures import Cameras, Grid
from sparse3d.structures.cameras import TENSORS

from .image_inputs import ImageInputs
from .inputs import as_int32
from .named import Feed, Named, Shape
from .sensor_scan import CameraScan

LEAST = 2  # entries of a list


@dataclass(frozen=True)
class Moment:
    """What follows from a calibration, and what graph 0 has made of the images of a moment for graph 2."""

    views: Views
    lags: Tensor | None
    rays: Tensor
    places: Tensor
    proposals: Proposals | None = None
    placed_map: Tensor | None = None


@dataclass(frozen=True)
class QueryRules:
    """Which boxes become queries and what these look at.

    Args:
        pixels: rays and places of the map that queries look at.
        top_k: related regions in each other image; None for all.
        margin: cells by which cells reach beyond their borders; None where queries look at regions.
        num_frames: 1 or 2.
    """

    pixels: PixelRays
    top_k: int | None
    margin: int | None
    num_frames: int


@dataclass(frozen=True)
class RegionInputs:
    """How images become the inputs of MV2D's graphs.

    Args:
        grid: the grid of the head.
        images: how images do.
        levels: ``(h, w)`` of each level of the pyramid.
        map_shape: ``(h, w)`` of the map that queries look at.
        channels: C of the pyramid; of the map likewise.
        num_classes: of the boxes in images.
        per_level: anchors of a level that are looked at.
        proposals: which of them become proposals.
        detections: which boxes in images become queries.
        queries: what becomes of these.
    """

    grid: Grid
    images: ImageInputs
    levels: tuple[tuple[int, int], ...]
    map_shape: tuple[int, int]
    channels: int
    num_classes: int
    per_level: int
    proposals: ProposalFilter
    detections: DetectionFilter
    queries: QueryRules
    num_graphs: int = field(default=3, init=False)

    # -- to and from deploy.json -------------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain containers, the grid left to the caller."""
        values = {name: value for name, value in asdict(self).items() if name not in ("grid", "num_graphs")}
        return {"type": type(self).__name__, **values}

    @classmethod
    def from_json(cls, values: Mapping[str, Any], grid: Grid) -> RegionInputs:
        """Build from what ``to_json`` returned."""
        own = {name: value for name, value in values.items() if name != "type"}
        pixels = own["queries"]["pixels"]
        rays = PixelRays(**{**pixels, "position_range": tuple(pixels["position_range"])})
        made = {
            "images": ImageInputs.from_json(own["images"]),
            "levels": tuple(map(tuple, own["levels"])),
            "map_shape": tuple(own["map_shape"]),
            "proposals": ProposalFilter(**own["proposals"]),
            "detections": DetectionFilter(**own["detections"]),
            "queries": QueryRules(**{**own["queries"], "pixels": rays}),
        }
        return cls(grid=grid, **{**own, **made})

    # -- images to boxes ---------------------------------------------------------------------------------------------

    def __call__(self, scan: CameraScan) -> Feed:
        """Return the first graph's inputs for one scan; errors as ``ImageInputs``."""
        images, moment = self.images(scan), self._rig(scan.cameras)
        return Feed({"images": images, "rays": moment.rays, "places": moment.places}, moment)

    def _rig(self, cameras: Cameras) -> Moment:
        key = b"".join(getattr(cameras, name).numpy().tobytes() for name in TENSORS)
        if key not in self._kept:
            rules, views = self.queries, Views.of([cameras], self.images.input_size, torch.device("cpu"))
            rays, places = (part(views, self.map_shape).float() for part in (rules.pixels.rays, rules.pixels.places))
            lags = None if rules.num_frames == 1 else frame_lags([cameras], rules.num_frames).float()
            self._kept.clear()
            self._kept[key] = Moment(views, lags, rays, places)
        return self._kept[key]

    @cached_property
    def _kept(self) -> dict[bytes, Moment]:
        return {}

    def go_on(self, graph: int, feed: Feed, outputs: Named) -> Feed:
        """Return the inputs of the graph after a given one, from that one's inputs and outputs.

        Raises:
            ValueError: if a number is not finite.
        """
        return as_int32((self._propose, self._detect)[graph](feed.state, outputs))

    def _propose(self, moment: Moment, outputs: Named) -> Feed:
        logits, deltas = (_levels(outputs, f"anchor_{what}", len(self.levels)) for what in ("logits", "deltas"))
        sizes = moment.views.sizes[0]
        found = self.proposals(*best_anchors(logits, deltas, sizes, self.per_level))
        named = {f"map_{level}": outputs[f"map_{level}"] for level in range(POOLED_LEVELS)}
        rows, first = torch.zeros_like(found.images), 0
        for level, own in enumerate(rows_by_level(found.boxes, POOLED_LEVELS)[0]):
            named[f"boxes_{level}"] = _at_least(found.boxes[own], found.boxes.new_tensor(STAND_IN))
            named[f"images_{level}"] = _at_least(found.images[own], found.images.new_zeros(()))
            rows[own] = first + torch.arange(len(own))
            first += len(named[f"boxes_{level}"])
        named.update(rows=rows, proposals=found.boxes, sizes=sizes[found.images].float())
        return Feed(named, replace(moment, proposals=found, placed_map=outputs["placed_map"]))

    def _detect(self, moment: Moment, outputs: Named) -> Feed:
        found = self.detections(outputs["boxes"], outputs["scores"], moment.proposals.images, self.images.num_cameras)
        rois = _pad(RoIs.gather(found, moment.views.seeing))
        known, to_lidar = rois.describe(moment.views, POOLED_CELLS)
        looks, shown = self._look(rois, moment.views)
        named = {
            "placed_map": moment.placed_map,
            "roi_boxes": rois.boxes[0],
            "roi_images": rois.views[0],
            "filled": rois.valid,
            "known": known,
            "to_lidar": to_lidar,
            "looks": looks,
            "shown": shown,
        }
        return Feed(named if moment.lags is None else {**named, "lags": moment.lags})

    def _look(self, rois: RoIs, views: Views) -> tuple[Tensor, Tensor]:
        rules, related = self.queries, related_rois(rois, views, self.queries.top_k)
        if rules.margin is None:
            looks = RegionLooks.find(related)
        else:
            shape = (self.images.num_cameras, *self.map_shape)
            looks = CellLooks.find(rois, related, shape, rules.pixels.stride, rules.margin)
        where, shown = vars(looks).values()
        missing = max(LEAST - where.shape[-1], 0)
        return F.pad(where, (0, missing)), F.pad(shown, (0, missing))

    # -- shapes ------------------------------------------------------------------------------------------------------

    def shapes(self, graph: int = 0) -> dict[str, Shape]:
        """Return the shape of each input of a graph."""
        return (self._image_shapes, self._box_shapes, self._query_shapes)[graph]()

    def _image_shapes(self) -> dict[str, Shape]:
        count, pixels = self.images.num_cameras, self.queries.pixels
        return {
            "images": self.images.shape,
            "rays": (1, count, 3 * pixels.num_depths, *self.map_shape),
            "places": (1, count, 3 * pixels.channels // 2, *self.map_shape),
        }

    def _box_shapes(self) -> dict[str, Shape]:
        lists: dict[str, Shape] = {}
        for level in range(POOLED_LEVELS):
            lists |= {f"boxes_{level}": (f"boxes_{level}", 4), f"images_{level}": (f"boxes_{level}",)}
        own: dict[str, Shape] = {"rows": ("proposals",), "proposals": ("proposals", 4), "sizes": ("proposals", 2)}
        return {**self._map_shapes(), **lists, **own}

    def _map_shapes(self) -> dict[str, Shape]:
        count = self.images.num_cameras
        return {f"map_{level}": (count, self.channels, *self.levels[level]) for level in range(POOLED_LEVELS)}

    def _placed_shape(self) -> Shape:
        return (1, self.images.num_cameras, 2 * self.queries.pixels.channels, *self.map_shape)

    def _query_shapes(self) -> dict[str, Shape]:
        by_cells, two_frames = self.queries.margin is not None, self.queries.num_frames > 1
        looks: dict[str, Shape] = {
            "looks": (1, "cells") if by_cells else (1, "queries", "regions"),
            "shown": (1, "queries", "cells" if by_cells else "regions"),
        }
        return {
            "placed_map": self._placed_shape(),
            "roi_boxes": ("queries", 4),
            "roi_images": ("queries",),
            "filled": (1, "queries"),
            "known": (1, "queries", 16),
            "to_lidar": (1, "queries", 4, 4),
            **looks,
            **({"lags": (1,)} if two_frames else {}),
        }

    def output_shapes(self, graph: int) -> dict[str, Shape]:
        """Return the shape of each output of a graph that another one follows."""
        if graph == 1:
            return {"boxes": ("proposals", self.num_classes, 4), "scores": ("proposals", self.num_classes)}
        return {}

    def limits(self) -> dict[str, int]:
        """Return the largest extent of each dimension that differs from scan to scan."""
        count, rules = self.images.num_cameras, self.queries
        proposals = count * self.proposals.max_proposals
        queries = max(count * self.detections.max_boxes, LEAST)
        limits = {f"boxes_{level}": proposals + LEAST for level in range(POOLED_LEVELS)}
        limits |= {"proposals": proposals, "queries": queries}
        if rules.margin is not None:
            return {**limits, "cells": count * self.map_shape[0] * self.map_shape[1]}
        related = queries if rules.top_k is None else 1 + (count - 1) * rules.top_k
        return {**limits, "regions": max(min(queries, related), LEAST)}


def _levels(named: Named, prefix: str, count: int) -> list[Tensor]:
    return [named[f"{prefix}_{level}"] for level in range(count)]


def _at_least(rows: Tensor, fill: Tensor) -> Tensor:
    """Return rows with as many of ``fill`` behind them as make ``LEAST``."""
    missing = max(LEAST - len(rows), 0)
    return torch.cat([rows, fill.expand(missing, *rows.shape[1:])])


def _pad(rois: RoIs) -> RoIs:
    """Return the regions of one sample with as many empty slots as make ``LEAST``."""
    boxes, views, valid = rois.boxes[0], rois.views[0], rois.valid[0]
    padded = (
        _at_least(boxes, boxes.new_tensor(STAND_IN)),
        _at_least(views, views.new_zeros(())),
        _at_least(valid, valid.new_zeros(())),
    )
    return RoIs(*(each[None] for each in padded))
