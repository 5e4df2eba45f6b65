"""MV2D's head: boxes that a 2D detector found in the images become queries, and these become boxes in space.

    boxes in images -> regions (`encoding/rois.py`) -> points in space (`mv2d_queries`) -> queries
    related regions (`encoding/related_rois.py`), positions of pixels (`mv2d_position`) -> keys (`mv2d_memory`)
    queries, keys -> decoder (`mv2d_decoder`) -> classes and boxes

There are as many queries as there are boxes in the images; samples of a batch may differ in that.

Source: MV2D (Wang et al., ICCV 2023); its single-frame form "S" and its form of two frames "T".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.model import BaseModule
from mmengine.structures import InstanceData
from torch import Tensor, nn

from sparse3d.decoding.sparsebev import TopKDecoder, encode_boxes, inverse_sigmoid
from sparse3d.encoding.box_levels import POOLED_CELLS
from sparse3d.encoding.related_rois import related_rois
from sparse3d.encoding.roi_looks import CellLooks, RegionLooks
from sparse3d.encoding.rois import RoIs, Views, frame_lags
from sparse3d.encoding.sine import sine_embedding
from sparse3d.registry import MODELS
from sparse3d.structures import Cameras, Grid, Sample
from sparse3d_ops import roi_align

from ..features import Features
from ..images.fpn import FPN
from ..layers.precision import full_precision
from ..losses import code_l1_loss, query_focal_loss
from ..targets.denoising import DenoisingQueries, Noise
from ..targets.ground_truth import GroundTruth
from ..targets.mv2d_targets import COST_WEIGHTS, match_queries
from ..targets.sparsebev_targets import SparseBEVTargetAssigner
from .mv2d_decoder import Branches, MV2DDecoderLayer
from .mv2d_memory import Memory, cell_memory, region_memory
from .mv2d_position import PositionEncoding
from .mv2d_queries import QueryGenerator, lift

CODE_WEIGHTS = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.5, 1.5, 2.0, 2.0)
LOSS_WEIGHTS = {"class": 2.0, "box": 0.25}
LAYER_WEIGHT = 0.1  # of the losses of each layer
DENOISING = {"num_groups": 0, "center_noise": 1.25, "farthest": 0.6, "background_boxes": True}
NEAR_EDGE = 1e-4  # parts of the range that noisy references are kept away from its bounds
KEYS = ("regions", "cells")


@dataclass(frozen=True)
class MV2DOutput:
    """What the head says about a batch; denoising queries come first.

    Args:
        logits: ``[layers, B, D + Q, K]`` class logits.
        codes: ``[layers, B, D + Q, 10]`` loss codes.
        valid: ``[B, Q]`` bool, whether a slot holds a query; those that do come first.
    """

    logits: Tensor
    codes: Tensor
    valid: Tensor


@MODELS.register_module()
class MV2DHead(BaseModule):
    """The head.

    Args:
        grid: the grid; boxes live in its point range.
        class_names: names of all classes; labels are positions in it.
        decoder: arguments of ``TopKDecoder``.
        position_range: ``(x0, y0, z0, x1, y1, z1)`` in metres, which positions of pixels are taken relative to.
        keys: ``"regions"`` (S) or ``"cells"`` (T), see `mv2d_memory`.
        top_k: related regions in each other image; 1 in S, 20 in T.
        margin: cells by which cells reach beyond their borders, 2 in T.
        num_frames: 1, or 2 with the past one second; velocities are then displacements over the time between them.
        in_channels: of the feature maps.
        level: of the feature maps that is used, at ``stride``.
        stride: pixels of the image in a pixel of that level.
        channels: width C.
        num_layers: of the decoder.
        layer: ``num_heads``, ``ffn_channels`` and ``dropout`` of the decoder's layers.
        queries: widths of ``QueryGenerator``.
        num_depths: points on the ray of a pixel.
        denoising: where they differ, ``num_groups`` (0), ``center_noise`` (1.25 of half a box), ``farthest`` (0.6; what
            noise of a larger norm moves becomes background), and ``background_boxes`` (their boxes are learned too).
        targets: weights of ``SparseBEVTargetAssigner``.
        loss_weights: weights of ``class`` and ``box`` where they differ from 2 and 0.25.
        code_weights: weight of each number of a loss code.

    Raises:
        ValueError: if an option is unknown, or there is denoising without ``keys="cells"``.
    """

    def __init__(
        self,
        grid: Grid | Mapping[str, Any],
        class_names: Sequence[str],
        decoder: Mapping[str, Any],
        position_range: Sequence[float] = (-61.2, -61.2, -10.0, 61.2, 61.2, 10.0),
        keys: str = "regions",
        top_k: int = 1,
        margin: int = 0,
        num_frames: int = 1,
        in_channels: int = 256,
        level: int = 2,
        stride: int = 16,
        channels: int = 256,
        num_layers: int = 6,
        layer: Mapping[str, Any] | None = None,
        queries: Mapping[str, Any] | None = None,
        num_depths: int = 64,
        denoising: Mapping[str, Any] | None = None,
        targets: Mapping[str, Any] | None = None,
        loss_weights: Mapping[str, float] | None = None,
        code_weights: Sequence[float] = CODE_WEIGHTS,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        _check_known("keys", [keys], KEYS)
        _check_known("loss_weights", loss_weights or {}, LOSS_WEIGHTS)
        _check_known("denoising", denoising or {}, DENOISING)
        self.denoising = {**DENOISING, **(denoising or {})}
        if self.denoising["num_groups"] and keys != "cells":
            raise ValueError('denoising: queries without a region need keys="cells"')
        self.grid = Grid.build(grid)
        self.point_range = self.grid.point_range
        self.num_classes, self.num_frames = len(class_names), num_frames
        self.by_cells, self.top_k, self.margin = keys == "cells", top_k, margin
        self.level, self.stride, self.channels = level, stride, channels
        self.loss_weights = {**LOSS_WEIGHTS, **(loss_weights or {})}
        self.register_buffer("code_weights", torch.tensor(code_weights, dtype=torch.float32), persistent=False)
        self.assigner = SparseBEVTargetAssigner(**{"code_weights": COST_WEIGHTS, **(targets or {})})
        self.decoder = TopKDecoder(**decoder)

        self.neck = FPN([in_channels], channels, num_outs=1)
        self.query_generator = QueryGenerator(channels, **(queries or {}))
        self.position_encoding = PositionEncoding(channels, position_range, stride, num_depths)
        self.query_embedding = nn.Sequential(
            nn.Linear(3 * channels // 2, channels), nn.ReLU(), nn.Linear(channels, channels)
        )
        layer = {"num_heads": 8, "ffn_channels": 2048, "dropout": 0.1, **(layer or {})}
        self.layers = nn.ModuleList(MV2DDecoderLayer(channels, **layer) for _ in range(num_layers))
        self.norm = nn.LayerNorm(channels)
        self.branches = nn.ModuleList(Branches(channels, self.num_classes) for _ in range(num_layers))

    @full_precision
    def forward(self, features: Features, denoising: DenoisingQueries | None = None) -> MV2DOutput:
        """Return what the head says about a batch.

        Args:
            features: image maps with their cameras and ``detections``; with two frames, the past one second.
            denoising: queries with noise that come before the others.

        Raises:
            ValueError: if there are no image maps or no detections, or the cameras are not ``num_frames`` frames.
        """
        self._check(features)
        level = features.images[self.level].float()
        views = Views.of(features.cameras, features.image_size, level.device)
        x = self.neck([level.flatten(0, 1)])[0].unflatten(0, level.shape[:2])
        return self.decode(x, views, RoIs.gather(features.detections, views.seeing), features.cameras, denoising)

    def decode(
        self,
        x: Tensor,  # [B, V, C, h, w]
        views: Views,
        rois: RoIs,
        cameras: Sequence[Cameras],
        denoising: DenoisingQueries | None = None,
    ) -> MV2DOutput:
        """Return ``forward`` for regions of the neck's map."""
        maps = torch.cat([x, self.position_encoding(x, views)], dim=2)
        regions = self._pool(maps, rois)
        references = self.place(regions, *rois.describe(views, POOLED_CELLS))
        memory = self.look_up(maps, regions, self.looks(views, rois, maps.shape[3:]))
        hidden = None if bool(rois.valid.all()) else hide_empty_slots(rois.valid)
        if denoising is not None:
            references, memory, hidden = self._prepend(denoising, references, memory, rois.valid)
        logits, codes = self.refine(references, memory, hidden)
        return MV2DOutput(logits, self.to_speed(codes, self.lags(cameras)), rois.valid)

    def place(
        self,
        regions: Tensor,  # [B, Q, 2 C, P, P]
        known: Tensor,  # [B, Q, 16]
        to_lidar: Tensor,  # [B, Q, 4, 4]
    ) -> Tensor:  # [B, Q, 3]
        """Return the points of the queries, as parts of the range, of what regions show; see ``RoIs.describe``."""
        shown = regions[:, :, : self.channels]
        centers = self.query_generator(shown.flatten(0, 1), known.flatten(0, 1)).unflatten(0, shown.shape[:2])
        return self._to_parts(lift(centers, to_lidar))

    def looks(self, views: Views, rois: RoIs, shape: Sequence[int]) -> RegionLooks | CellLooks:
        """Return where queries look, in maps of a ``shape`` ``(h, w)``."""
        related = related_rois(rois, views, self.top_k)
        if self.by_cells:
            return CellLooks.find(rois, related, (views.seeing.shape[1], *shape), self.stride, self.margin)
        return RegionLooks.find(related)

    def look_up(
        self,
        maps: Tensor,  # [B, V, 2 C, h, w]
        regions: Tensor,  # [B, Q, 2 C, P, P]
        looks: RegionLooks | CellLooks,
    ) -> Memory:
        """Return what the queries look at, in the maps or in what regions show of them."""
        return cell_memory(maps, looks) if isinstance(looks, CellLooks) else region_memory(regions, looks)

    def _pool(self, maps: Tensor, rois: RoIs) -> Tensor:
        """Return the cells ``[B, Q, C, P, P]`` of all regions in maps ``[B, V, C, h, w]``."""
        images = rois.image_numbers(maps.shape[1])
        pooled = roi_align(maps.flatten(0, 1), rois.boxes.flatten(0, 1), images, POOLED_CELLS, 1 / self.stride)
        return pooled.unflatten(0, rois.valid.shape)

    def _to_parts(self, points: Tensor) -> Tensor:
        low, high = points.new_tensor(self.point_range).split(3)
        return (points - low) / (high - low)

    def _prepend(
        self, denoising: DenoisingQueries, references: Tensor, memory: Memory, valid: Tensor
    ) -> tuple[Tensor, Memory, Tensor]:
        noisy = self._to_parts(denoising.boxes[:, :3]).clamp(NEAR_EDGE, 1 - NEAR_EDGE)
        references = torch.cat([denoising.fill(noisy, len(valid)), references], dim=1)
        filled = denoising.fill(torch.ones_like(noisy[:, :1]), len(valid))[..., 0] > 0
        hidden = hide_empty_slots(torch.cat([filled, valid], dim=1)) | denoising.hidden(valid.shape[1])
        return references, memory.with_all(denoising.num_slots), hidden

    def refine(self, references: Tensor, memory: Memory, hidden: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return class logits and loss codes of all layers, displacements in the place of velocities."""
        positions = self.query_embedding(self.embed(references))
        queries = torch.zeros_like(positions)
        known = inverse_sigmoid(references)
        logits, codes = [], []
        for layer, branches in zip(self.layers, self.branches, strict=True):
            queries = layer(queries, positions, memory, hidden)
            scores, code = branches(self.norm(queries))
            logits.append(scores)
            codes.append(self._to_metres(code, known))
        return torch.stack(logits), torch.stack(codes)

    def embed(self, references: Tensor) -> Tensor:
        """Return the sine embedding ``[B, Q, 3 C / 2]`` of references, y first, then x and z."""
        return sine_embedding(references[..., [1, 0, 2]], self.channels // 2).flatten(-2)

    def _to_metres(self, code: Tensor, known: Tensor) -> Tensor:
        low, high = code.new_tensor(self.point_range).split(3)
        center = (code[..., [0, 1, 4]] + known).sigmoid() * (high - low) + low
        return torch.cat([center[..., :2], code[..., 2:4], center[..., 2:], code[..., 5:]], dim=-1)

    def to_speed(
        self,
        codes: Tensor,  # [layers, B, Q, 10]
        lags: Tensor | None,  # [B]
    ) -> Tensor:
        """Divide displacements by the time between the two frames, in seconds; None leaves velocities as they are."""
        if lags is None:
            return codes
        return torch.cat([codes[..., :8], codes[..., 8:] / lags[:, None, None]], dim=-1)

    def lags(self, cameras: Sequence[Cameras]) -> Tensor | None:
        """Return the time ``[B]`` between the two frames in seconds, float32; None where there is one."""
        return None if self.num_frames == 1 else frame_lags(cameras, self.num_frames).to(self.code_weights)

    def _check(self, features: Features) -> None:
        if features.images is None or features.detections is None:
            raise ValueError("MV2DHead: expected image maps and detections; use a DetectorBranch")
        counts = {len(cameras) for cameras in features.cameras}
        if len(counts) != 1 or min(counts) % self.num_frames:
            raise ValueError(f"cameras: {sorted(counts)} views a sample cannot be {self.num_frames} frames of as many")

    # -- training ----------------------------------------------------------------------------------------------------

    def loss(self, features: Features, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Return the losses of a batch (scalars); those of all layers but the last begin with ``d0.``, ``d1.`` ...

        Objects of unknown velocity are taken for still, as published.

        Args:
            features: see ``forward``.
            samples: B samples with ``gt``; one without objects is all background, labels of -1 are left out.

        Raises:
            ValueError: if a sample has no ``gt``, a label exceeds the classes, or a prediction is not finite.
        """
        truth = GroundTruth.gather(samples, self.num_classes).taken_for_still()
        truth = truth[(truth.boxes.sizes > 0).all(dim=1)]
        denoising = self.make_noisy(truth) if self.denoising["num_groups"] else None
        return self.loss_from_output(self(features, denoising), truth, denoising)

    def make_noisy(self, truth: GroundTruth) -> DenoisingQueries:
        """Return noisy copies of the objects; those that were moved far are background."""
        count = self.denoising["num_groups"] * len(truth.labels)
        return self.noisy_from(truth, torch.rand(count, 3, device=truth.labels.device) * 2 - 1)

    def noisy_from(self, truth: GroundTruth, moves: Tensor) -> DenoisingQueries:
        """Return ``make_noisy`` for given numbers ``[R N, 3]`` in [-1, 1]."""
        far = moves.norm(dim=1) > self.denoising["farthest"]
        noise = Noise(moves, far, torch.full_like(far, self.num_classes, dtype=torch.int64))
        return DenoisingQueries.make(truth, self.denoising["num_groups"], noise, self.denoising["center_noise"])

    @full_precision
    def loss_from_output(
        self, output: MV2DOutput, truth: GroundTruth, denoising: DenoisingQueries | None = None
    ) -> dict[str, Tensor]:
        """Return ``loss`` for what ``forward`` made of the objects and their noisy copies."""
        slots = 0 if denoising is None else denoising.num_slots
        losses: dict[str, Tensor] = {}
        for number, (logits, codes) in enumerate(zip(output.logits, output.codes, strict=True)):
            own = self._losses(logits[:, slots:], codes[:, slots:], output.valid, truth)
            if denoising is not None:
                own |= self._denoising_losses(logits[:, :slots], codes[:, :slots], truth, denoising)
            prefix = "" if number == len(output.logits) - 1 else f"d{number}."
            losses |= {f"{prefix}loss_{name}": LAYER_WEIGHT * value for name, value in own.items()}
        return losses

    def _losses(
        self,
        logits: Tensor,  # [B, Q, K]
        codes: Tensor,  # [B, Q, 10]
        valid: Tensor,  # [B, Q]
        truth: GroundTruth,
    ) -> dict[str, Tensor]:
        """Return the losses of one layer."""
        targets = match_queries(self.assigner, logits, codes, valid, truth)
        found = codes.flatten(0, 1)[targets.queries]
        wanted = encode_boxes(truth.boxes.tensor)[targets.objects]
        return {
            "class": self.loss_weights["class"]
            * query_focal_loss(logits[valid], targets.labels[valid], len(targets.queries)),
            "box": self.loss_weights["box"] * code_l1_loss(found, wanted, self.code_weights),
        }

    def _denoising_losses(
        self, logits: Tensor, codes: Tensor, truth: GroundTruth, denoising: DenoisingQueries
    ) -> dict[str, Tensor]:
        """Return the losses of the noisy copies; their headings are not learned."""
        slots = denoising.samples, denoising.slots
        wanted = encode_boxes(truth.boxes.tensor)[denoising.objects]
        if not self.denoising["background_boxes"]:
            wanted = wanted.where((denoising.labels < self.num_classes)[:, None], torch.nan)
        weights = self.code_weights.clone()
        weights[6:8] = 0
        near = math.pi / 6 * self.denoising["farthest"] ** 3 * len(denoising.labels)
        return {
            "class_dn": self.loss_weights["class"] * query_focal_loss(logits[slots], denoising.labels, near),
            "box_dn": self.loss_weights["box"] * code_l1_loss(codes[slots], wanted, weights),
        }

    # -- inference ---------------------------------------------------------------------------------------------------

    def predict(self, features: Features, samples: Sequence[Sample]) -> list[InstanceData]:
        """Return ``boxes``, ``scores`` and ``labels`` of each sample, in descending order of score."""
        return self.predict_from_output(self(features))

    @full_precision
    def predict_from_output(self, output: MV2DOutput) -> list[InstanceData]:
        """Return ``predict`` for what ``forward`` made, by its last layer."""
        logits = output.logits[-1].masked_fill(~output.valid[..., None], -torch.inf)
        return [InstanceData(**vars(each)) for each in self.decoder(logits, output.codes[-1])]


def hide_empty_slots(filled: Tensor) -> Tensor:
    """Return ``[B, Q, Q]`` for ``[B, Q]``: True where a column is an empty slot, but for the slot itself."""
    own = torch.eye(filled.shape[1], dtype=torch.bool, device=filled.device)
    return ~filled[:, None] & ~own


def _check_known(what: str, names: Any, known: Any) -> None:
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise ValueError(f"{what}: unknown {unknown}; known are {list(known)}")
