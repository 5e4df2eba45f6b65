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
class TransFusionOutputs:
    """Outputs of a ``TransFusionHead``: ``code_<branch>``, ``logits`` ``[1, Q, ...]``, ``labels``, ``heat`` ``[1, Q]``.

    Args:
        decoder: the head's decoder.
    """

    decoder: TransFusionDecoder
    computes_positions: ClassVar[bool] = True  # of up to some hundred cells, to the hundredth: no half precision

    @classmethod
    def of(cls, head: Any) -> TransFusionOutputs:
        """Describe a head's outputs."""
        return cls(head.decoder)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TransFusionOutputs:
        """Build from what ``to_json`` returned."""
        return cls(TransFusionDecoder(**values["decoder"]))

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain containers."""
        return {"decoder": asdict(self.decoder)}

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
        return _ordered(one, _query_keys(other), margin), _ordered(other, _query_keys(one), margin)

    def decode(self, named: Named, grid: Grid) -> Detections:
        """Return the boxes of the scan."""
        codes = {name.removeprefix("code_"): each for name, each in named.items() if name.startswith("code_")}
        queries = Queries(named["cells"], named["labels"], named["heat"])
        return self.decoder.decode(codes, named["logits"], queries, grid)[0]


def _query_keys(named: Named) -> Tensor:
    """Return one number ``[Q]`` for the label and cell of each query; cells are int32 at most."""
    return (named["labels"][0].long() << 32) + named["cells"][0].long()


def _ordered(named: Named, others: Tensor, margin: float) -> Named:
    """Return queries ordered by their keys, without those at the edge that are not among the ``others``' keys."""
    keys, heat = _query_keys(named), named["heat"][0]
    at_edge = heat <= heat.min() + margin
    order = keys.argsort()
    order = order[(torch.isin(keys, others) | ~at_edge)[order]]
    return {name: each[:, order] for name, each in named.items()}


Outputs = CenterOutputs | TransFusionOutputs
OUTPUTS: dict[str, type[Outputs]] = {"CenterHead": CenterOutputs, "TransFusionHead": TransFusionOutputs}
