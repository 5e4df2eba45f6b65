"""TransFusion's LiDAR head: queries at the peaks of a heat map, refined by one decoder layer (Bai et al., CVPR 2022).

As published with DSVT for nuScenes: each query is decoded by itself, and attends to the cells around it. Branches are

    center   where the centre is, in cells, with respect to the query's cell       height   of the top face
    dim      log (l, w, h)                                                         rot      (sin yaw, cos yaw)
    vel      (vx, vy)                                                              iou      2 IoU - 1
    heatmap  one logit a class

The published head transposes its map at the door, so its maps are `[B, C, X, Y]` and a cell is `x * Y + y`.

Queries and windows: `transfusion_queries.py`; targets: `targets/transfusion_targets.py`, `targets/hungarian.py`;
boxes: `decoding/transfusion.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmengine.structures import InstanceData
from torch import Tensor, nn

from sparse3d.decoding.transfusion import Queries, TransFusionDecoder, decode_boxes
from sparse3d.registry import MODELS
from sparse3d.structures import Grid, Sample
from sparse3d_ops import iou_3d_paired

from ..features import Features
from ..layers.decoder import QueryDecoderLayer
from ..layers.norm import RowNorm
from ..layers.position import CountedPositionEmbedding, PositionEmbedding
from ..layers.precision import full_precision
from ..losses import code_l1_loss, gaussian_focal_loss, mean_count, query_focal_loss
from ..targets.ground_truth import GroundTruth
from ..targets.transfusion_targets import TransFusionTargetAssigner, TransFusionTargets
from .transfusion_queries import Windows, find_peaks, select_queries, window_log_counts

HEATMAP_BIAS = -2.19  # untrained heat maps and queries say 0.1
BRANCH_CHANNELS = 64
BOX_BRANCHES = {"center": 2, "height": 1, "dim": 3, "rot": 2}
EXTRA_BRANCHES = {"vel": 2, "iou": 1}
UNCODED = ("iou", "heatmap")  # branches without a regression code
LOSS_WEIGHTS = {"heatmap": 1.0, "class": 1.0, "box": 0.25, "iou": 0.5}


@dataclass(frozen=True)
class TransFusionOutput:
    """What the head says about a batch.

    Args:
        heatmap: ``[B, K, X, Y]`` logits.
        queries: where the queries started.
        codes: ``[B, Q, 1 to 3]`` for each branch but ``heatmap``; ``center`` is absolute, in cells.
        logits: ``[B, Q, K]`` class logits.
    """

    heatmap: Tensor
    queries: Queries
    codes: dict[str, Tensor]
    logits: Tensor


@MODELS.register_module()
class TransFusionHead(BaseModule):
    """The head.

    Args:
        grid: the grid; its stride gives the head's cells.
        class_names: names of all classes; labels are positions in it.
        in_channels: channels of the bird's-eye map.
        decoder: arguments of ``TransFusionDecoder`` besides the class names.
        channels: width C of the head.
        num_queries: Q.
        num_heads: attention heads.
        ffn_channels: hidden width of the decoder layer's feed-forward network.
        activation: of that network.
        dropout: of the decoder layer.
        window_radius: reach of a query's attention, in cells.
        wrap_windows: let windows go on in the next row beyond the end of one, as the published weights expect.
        peak_size: side of the neighbourhood that a peak of the heat map exceeds, odd.
        every_cell: classes whose cells need not be peaks: small objects that stand close together.
        extra_branches: ``"vel"`` and ``"iou"``, both published.
        num_layers: layers of a regression branch.
        num_class_layers: layers of the class branch.
        targets: arguments of ``TransFusionTargetAssigner`` besides the grid.
        loss_weights: weights of ``heatmap``, ``class``, ``box`` and ``iou`` where they differ from 1, 1, 0.25, 0.5.
        code_weights: weight of each number that ``center, height, dim, rot, vel`` regress; None means 1.

    Raises:
        ValueError: if a class, branch or weight is unknown, or the map has fewer cells than there are queries.
    """

    def __init__(
        self,
        grid: Grid | Mapping[str, Any],
        class_names: Sequence[str],
        in_channels: int,
        decoder: Mapping[str, Any],
        channels: int = 128,
        num_queries: int = 200,
        num_heads: int = 8,
        ffn_channels: int = 256,
        activation: str = "relu",
        dropout: float = 0.0,
        window_radius: int = 20,
        wrap_windows: bool = True,
        peak_size: int = 3,
        every_cell: Sequence[str] = (),
        extra_branches: Sequence[str] = ("vel", "iou"),
        num_layers: int = 2,
        num_class_layers: int = 2,
        targets: Mapping[str, Any] | None = None,
        loss_weights: Mapping[str, float] | None = None,
        code_weights: Sequence[float] | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        _check_known("every_cell", every_cell, class_names)
        _check_known("extra_branches", extra_branches, EXTRA_BRANCHES)
        _check_known("loss_weights", loss_weights or {}, LOSS_WEIGHTS)
        self.grid = Grid.build(grid)
        if num_queries > len(class_names) * prod(self.grid.out_shape):
            raise ValueError(f"num_queries: {num_queries} are more than the map {self.grid.out_shape} has places for")
        if peak_size % 2 == 0:
            raise ValueError(f"peak_size: expected an odd number, got {peak_size}")
        self.num_classes, self.num_queries = len(class_names), num_queries
        self.window_radius, self.wrap_windows = window_radius, wrap_windows
        self.peak_size = peak_size
        self.every_cell = [list(class_names).index(name) for name in every_cell]
        branches = {**BOX_BRANCHES, **{name: EXTRA_BRANCHES[name] for name in EXTRA_BRANCHES if name in extra_branches}}
        self.coded = [name for name in branches if name not in UNCODED]
        self.register_buffer("code_weights", self._code_weights(code_weights, branches), persistent=False)
        self.loss_weights = {**LOSS_WEIGHTS, **(loss_weights or {})}
        self.assigner = TransFusionTargetAssigner(self.grid, **(targets or {}))
        self.decoder = TransFusionDecoder(class_names, **decoder)

        self.shared = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.heatmap = _heatmap_layers(channels, self.num_classes)
        self.class_embedding = nn.Linear(self.num_classes, channels)
        self.query_position = PositionEmbedding(2, channels)
        self.key_position = CountedPositionEmbedding(2, channels)
        self.layer = QueryDecoderLayer(channels, num_heads, ffn_channels, activation, "alone", dropout)
        for module in (self.query_position, self.key_position, self.layer):
            _spread_evenly(module)
        self.branches = nn.ModuleDict({name: _branch(channels, out, num_layers) for name, out in branches.items()})
        self.branches["heatmap"] = _branch(channels, self.num_classes, num_class_layers, HEATMAP_BIAS)

    def _code_weights(self, weights: Sequence[float] | None, branches: Mapping[str, int]) -> Tensor:
        count = sum(branches[name] for name in self.coded)
        if weights is None:
            return torch.ones(count)
        if len(weights) != count:
            raise ValueError(f"code_weights: {self.coded} need {count} numbers, got {len(weights)}")
        return torch.tensor(weights, dtype=torch.float32)

    # -- queries -----------------------------------------------------------------------------------------------------

    def forward(self, features: Features) -> TransFusionOutput:
        """Return what the head says about a batch.

        Raises:
            ValueError: if there is no bird's-eye map, or it does not have the size of the grid's cells.
        """
        bev = features.bev
        if bev is None or tuple(bev.shape[-2:]) != self.grid.out_shape:
            came = "None" if bev is None else list(bev.shape)
            raise ValueError(f"features.bev: expected [B, C, *{list(self.grid.out_shape)}], got {came}")
        shared = self.shared(bev.transpose(2, 3).contiguous(memory_format=torch.channels_last))
        heatmap = self.heatmap(shared)
        queries = self.start_queries(heatmap)
        refined = self.refine(shared, queries)
        codes = {
            name: branch(refined.flatten(0, 1)).unflatten(0, refined.shape[:2])
            for name, branch in self.branches.items()
        }
        logits = codes.pop("heatmap")
        codes["center"] = codes["center"].float() + self._positions(shared)[queries.cells]
        return TransFusionOutput(heatmap, queries, codes, logits)

    def start_queries(self, heatmap: Tensor) -> Queries:
        """Return the queries that a heat map ``[B, K, X, Y]`` of logits gives rise to."""
        return select_queries(self.peaks(heatmap), self.num_queries)

    def peaks(self, heatmap: Tensor) -> Tensor:
        """Return the heat at the peaks of a heat map ``[B, K, X, Y]`` of logits, 0 elsewhere."""
        return find_peaks(heatmap.detach().float().sigmoid(), self.peak_size, self.every_cell)

    def refine(self, shared: Tensor, queries: Queries) -> Tensor:
        """Return the queries' features ``[B, Q, C]`` after they looked at the map ``[B, C, X, Y]`` around them."""
        memory = shared.flatten(2).transpose(1, 2)
        shape = tuple(shared.shape[2:])
        windows = Windows.around(queries.cells, shape, self.window_radius, self.wrap_windows)
        query_positions, key_positions = self._embed(self._positions(shared), queries.cells, windows)
        own = memory.gather(1, queries.cells[..., None].expand(-1, -1, memory.shape[2]))
        classes = self.class_embedding(F.one_hot(queries.labels, self.num_classes).to(memory.dtype))
        bias = window_log_counts(queries.cells, shape, self.window_radius, self.wrap_windows)
        return self.layer(own + classes, query_positions, memory, key_positions[None], bias)

    @full_precision
    def _embed(self, positions: Tensor, cells: Tensor, windows: Windows) -> tuple[Tensor, Tensor]:
        """Return embeddings of the queries' positions ``[B, Q, C]`` and of all cells' ``[X Y, C]``."""
        of_queries = self.query_position(positions[cells.flatten()]).unflatten(0, cells.shape)
        return of_queries, self.key_position(positions, windows.occurrences(len(positions)))

    @staticmethod
    def _positions(shared: Tensor) -> Tensor:
        """Return the middles ``(x, y)`` of a map's cells ``[X Y, 2]`` float32, in cells."""
        axes = [torch.arange(size, device=shared.device) + 0.5 for size in shared.shape[2:]]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 1)

    # -- training ----------------------------------------------------------------------------------------------------

    def loss(self, features: Features, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Return the losses of a batch (scalars), and the mean IoU of the queries with their objects (no loss).

        Args:
            features: with a bird's-eye map of B samples.
            samples: B samples with ``gt``; one without objects is all background, labels of -1 are left out.

        Raises:
            ValueError: if a sample has no ``gt``, a label exceeds the classes, or a prediction is not finite.
        """
        return self.loss_from_output(self(features), samples)

    @full_precision
    def loss_from_output(self, output: TransFusionOutput, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Return ``loss`` for what ``forward`` made."""
        codes = {name: code.float().flatten(0, 1) for name, code in output.codes.items()}
        logits = output.logits.float()
        boxes = decode_boxes(codes, self.grid).detach()
        targets = self.assigner(
            logits, boxes.unflatten(0, logits.shape[:2]), GroundTruth.gather(samples, self.num_classes)
        )
        matched = {name: code[targets.queries] for name, code in codes.items()}
        wanted = torch.cat([targets.codes[name] for name in self.coded], dim=1)
        losses = {
            "heatmap": gaussian_focal_loss(output.heatmap.float(), targets.heatmap),
            "class": query_focal_loss(logits.flatten(0, 1), targets.labels.flatten(), len(targets.queries)),
            "box": code_l1_loss(torch.cat([matched[name] for name in self.coded], dim=1), wanted, self.code_weights),
        }
        if "iou" in matched:
            losses["iou"] = self._iou_loss(matched["iou"][:, 0], boxes[targets.queries], targets)
        weighted = {f"loss_{name}": self.loss_weights[name] * value for name, value in losses.items()}
        return {**weighted, "matched_iou": _mean_by_sample(targets, len(samples), self.num_queries)}

    def _iou_loss(self, predicted: Tensor, boxes: Tensor, targets: TransFusionTargets) -> Tensor:
        """Return the mean L1 distance to 2 IoU - 1 over the queries that meet their object at all."""
        achieved = iou_3d_paired(self.assigner.stand(boxes), self.assigner.stand(targets.boxes))
        meets = achieved > 0
        return ((predicted - (2 * achieved - 1)).abs() * meets).sum() / mean_count(meets.sum())

    # -- inference ---------------------------------------------------------------------------------------------------

    def predict(self, features: Features, samples: Sequence[Sample]) -> list[InstanceData]:
        """Return ``boxes``, ``scores`` and ``labels`` of each sample, in descending order of score."""
        return self.predict_from_output(self(features))

    @full_precision
    def predict_from_output(self, output: TransFusionOutput) -> list[InstanceData]:
        """Return ``predict`` for what ``forward`` made."""
        found = self.decoder.decode(output.codes, output.logits, output.queries, self.grid)
        return [InstanceData(**vars(each)) for each in found]


def _mean_by_sample(targets: TransFusionTargets, batch_size: int, num_queries: int) -> Tensor:
    """Return the mean over samples of the mean IoU of a sample's matches, 0 where it has none."""
    sample = targets.queries // num_queries
    total = targets.ious.new_zeros(batch_size).index_add(0, sample, targets.ious)
    return (total / sample.bincount(minlength=batch_size).clamp(min=1)).mean()


def _heatmap_layers(channels: int, num_classes: int) -> nn.Sequential:
    block = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
    last = nn.Conv2d(channels, num_classes, 3, padding=1)
    nn.init.constant_(last.bias, HEATMAP_BIAS)
    return nn.Sequential(block, last)


def _branch(channels: int, out_channels: int, num_layers: int, bias: float = 0.0) -> nn.Sequential:
    """Return layers on rows ``[N, C]``."""
    widths = [channels, *[BRANCH_CHANNELS] * (num_layers - 1)]
    hidden = [nn.Sequential(nn.Linear(a, b), RowNorm(b), nn.ReLU(inplace=True)) for a, b in pairwise(widths)]
    last = nn.Linear(widths[-1], out_channels)
    nn.init.constant_(last.bias, bias)
    return nn.Sequential(*hidden, last)


def _spread_evenly(module: nn.Module) -> None:
    for parameter in module.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)


def _check_known(what: str, names: Any, known: Any) -> None:
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise ValueError(f"{what}: unknown {unknown}; known are {list(known)}")
