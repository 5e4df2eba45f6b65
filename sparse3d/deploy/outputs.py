"""From a graph's named outputs to boxes, by training's own decoders; one class a head.

A head's class gives names to what the head returned (`name`), the graph's last step, and takes them back (`decode`) in
the runtime. The head itself is only looked at when it is exported. `align` makes two results of one scan comparable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sparse3d.decoding import CenterDecoder, Queries, TransFusionDecoder
from sparse3d.decoding.sparsebev import TopKDecoder
from sparse3d.decoding.sparsefusion import CandidateHeat, SparseFusionDecoder
from sparse3d.structures import Detections, Grid

from .named import Named


@dataclass(frozen=True)
class CenterOutputs:
    """Outputs of a ``CenterHead``: ``task<i>_<branch>`` ``[1, C, Y, X]``.

    Args:
        decoder: the head's decoder.
        class_indices: positions of each task group's classes in the class names.
    """

    decoder: CenterDecoder
    class_indices: list[list[int]]
    computes_positions: ClassVar[bool] = False

    @classmethod
    def of(cls, head: Any) -> CenterOutputs:
        """Describe a head's outputs."""
        return cls(head.decoder, head.class_indices)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> CenterOutputs:
        """Build from what ``to_json`` returned."""
        return cls(CenterDecoder(**values["decoder"]), values["class_indices"])

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain containers."""
        return {"decoder": asdict(self.decoder), "class_indices": self.class_indices}

    def name(self, output: Any) -> Named:
        """Give names to what the head returned."""
        return {f"task{task}_{branch}": each for task, maps in enumerate(output) for branch, each in maps.items()}

    def align(self, one: Named, other: Named, margin: float) -> tuple[Named, Named]:
        """Return two results such that equal things stand at equal places: maps do."""
        return one, other

    def decode(self, named: Named, grid: Grid) -> Detections:
        """Return the boxes of the scan."""
        maps: list[Named] = [{} for _ in self.class_indices]
        for name, each in named.items():
            task, branch = name.removeprefix("task").split("_", 1)
            maps[int(task)][branch] = each
        return self.decoder.decode(maps, grid, self.class_indices)[0]


@dataclass(frozen=True)
class QueryOutputs:
    """What outputs of queries have in common: their decoder is all that gives them a meaning.

    Args:
        decoder: the head's decoder.
    """

    decoder: Any
    decoder_type: ClassVar[type]
    computes_positions: ClassVar[bool] = True  # of up to some hundred cells, to the hundredth: no half precision

    @classmethod
    def of(cls, head: Any) -> QueryOutputs:
        """Describe a head's outputs."""
        return cls(head.decoder)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> QueryOutputs:
        """Build from what ``to_json`` returned."""
        return cls(cls.decoder_type(**values["decoder"]))

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain containers."""
        return {"decoder": asdict(self.decoder)}


class TransFusionOutputs(QueryOutputs):
    """Outputs of a ``TransFusionHead``.

    ``code_<branch>``, ``logits`` ``[1, Q, ...]``; ``cells``, ``labels``, ``heat`` ``[1, Q]``.
    """

    decoder_type = TransFusionDecoder

    def name(self, output: Any) -> Named:
        """Give names to what the head returned."""
        queries = {"cells": output.queries.cells, "labels": output.queries.labels, "heat": output.queries.heat}
        return {**{f"code_{name}": code for name, code in output.codes.items()}, "logits": output.logits, **queries}

    def align(self, one: Named, other: Named, margin: float) -> tuple[Named, Named]:
        """Return two results such that equal queries stand at equal places.

        Queries are sorted by heat, and the smallest difference swaps two that are equally hot. So they are ordered by
        label and cell. At the end of the list it even decides who gets in: a query that only one result has is left out
        if its heat is within ``margin`` of that result's lowest.
        """
        orders = _orders(_query_keys(one), _query_keys(other), one["heat"][0], other["heat"][0], margin)
        both = zip((one, other), orders, strict=True)
        first, second = ({name: each[:, order] for name, each in named.items()} for named, order in both)
        return first, second

    def decode(self, named: Named, grid: Grid) -> Detections:
        """Return the boxes of the scan."""
        codes = {name.removeprefix("code_"): each for name, each in named.items() if name.startswith("code_")}
        queries = Queries(named["cells"], named["labels"], named["heat"])
        return self.decoder.decode(codes, named["logits"], queries, grid)[0]


class SparseFusionOutputs(QueryOutputs):
    """Outputs of a ``SparseFusionHead`` with P candidates of the LiDAR and Q of the cameras.

    ``code_<branch>`` ``[1, P + Q, ...]``; ``lidar_cells``, ``lidar_labels``, ``lidar_heat`` ``[1, P]``;
    ``camera_cells`` (pixels of all levels of one camera after the other), ``camera_labels``, ``camera_heat`` ``[1, Q]``
    and ``camera_logits`` ``[1, Q, K]``; ``logits`` ``[1, P + Q, K]``.
    """

    decoder_type = SparseFusionDecoder

    def name(self, output: Any) -> Named:
        """Give names to what the head returned."""
        lidar, camera = output.lidar_queries, output.camera_queries
        num_pixels = sum(level.shape[-2] * level.shape[-1] for level in output.image_heatmaps)
        return {
            **{f"code_{name}": code for name, code in output.fusion.codes.items()},
            "logits": output.fusion.logits,
            "lidar_cells": lidar.cells,
            "lidar_labels": lidar.labels,
            "lidar_heat": lidar.heat,
            "camera_cells": camera.views * num_pixels + camera.pixels,
            "camera_labels": camera.labels,
            "camera_heat": camera.heat,
            "camera_logits": output.camera.logits,
        }

    def align(self, one: Named, other: Named, margin: float) -> tuple[Named, Named]:
        """Return two results such that equal candidates stand at equal places; see ``TransFusionOutputs``."""
        orders = {
            part: _orders(
                *(_query_keys(named, part) for named in (one, other)),
                *(named[f"{part}heat"][0] for named in (one, other)),
                margin,
            )
            for part in ("lidar_", "camera_")
        }
        both = zip((one, other), orders["lidar_"], orders["camera_"], strict=True)
        first, second = (self._take(named, lidar, camera) for named, lidar, camera in both)
        return first, second

    @staticmethod
    def _take(named: Named, lidar: Tensor, camera: Tensor) -> Named:
        count = named["lidar_heat"].shape[1]
        rows = {"lidar": lidar, "camera": camera}
        joined = torch.cat([lidar, count + camera])
        return {name: each[:, rows.get(name.split("_")[0], joined)] for name, each in named.items()}

    def decode(self, named: Named, grid: Grid) -> Detections:
        """Return the boxes of the scan."""
        codes = {name.removeprefix("code_"): each for name, each in named.items() if name.startswith("code_")}
        origins = CandidateHeat.join(
            named["lidar_labels"],
            named["lidar_heat"],
            named["camera_labels"],
            named["camera_heat"],
            named["camera_logits"],
        )
        return self.decoder.decode(codes, named["logits"], origins, grid)[0]


class TopKOutputs(QueryOutputs):
    """Outputs of the last layer of an ``MV2DHead`` or ``SparseBEVHead``.

    ``logits`` ``[1, Q, K]`` and ``codes`` ``[1, Q, 10]``.
    """

    decoder_type = TopKDecoder

    def name(self, output: Any) -> Named:
        """Give names to what the head returned."""
        return {"logits": output.logits[-1], "codes": output.codes[-1]}

    def align(self, one: Named, other: Named, margin: float) -> tuple[Named, Named]:
        """Return two results such that equal things stand at equal places: queries stay in the order of the inputs."""
        return one, other

    def decode(self, named: Named, grid: Grid) -> Detections:
        """Return the boxes of the scan."""
        return self.decoder(named["logits"], named["codes"])[0]


def as_output(tensor: Tensor) -> Tensor:
    """Return a graph's output in float32, or as it is if it is of integers."""
    return tensor.float() if tensor.is_floating_point() else tensor


def _query_keys(named: Named, part: str = "") -> Tensor:
    """Return one number ``[Q]`` for the label and cell of each query; cells are int32 at most."""
    return (named[f"{part}labels"][0].long() << 32) + named[f"{part}cells"][0].long()


def _orders(
    keys: Tensor,  # [Q]
    other_keys: Tensor,  # [Q]
    heat: Tensor,  # [Q]
    other_heat: Tensor,  # [Q]
    margin: float,
) -> tuple[Tensor, Tensor]:
    """Return the queries of two results in the order of their keys, without those at the edge that only one has."""
    return _order(keys, other_keys, heat, margin), _order(other_keys, keys, other_heat, margin)


def _order(keys: Tensor, others: Tensor, heat: Tensor, margin: float) -> Tensor:
    at_edge = heat <= heat.min() + margin
    order = keys.argsort()
    return order[(torch.isin(keys, others) | ~at_edge)[order]]


Outputs = CenterOutputs | TransFusionOutputs | SparseFusionOutputs | TopKOutputs
OUTPUTS: dict[str, type[Outputs]] = {
    "CenterHead": CenterOutputs,
    "TransFusionHead": TransFusionOutputs,
    "SparseFusionHead": SparseFusionOutputs,
    "MV2DHead": TopKOutputs,
    "SparseBEVHead": TopKOutputs,
}
