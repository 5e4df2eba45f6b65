"""SparseBEV's head: learned boxes that look at the images of several frames and become objects.

One decoder layer is applied several times; each application is supervised. Boxes start on a square grid over the point
range, as pillars; what they are about to find is not known, so all start with the same features.

Decoder: `sparsebev_decoder.py`; matching: `targets/sparsebev_targets.py`; denoising: `targets/denoising.py`; boxes:
`decoding/sparsebev.py`.

Source: SparseBEV (Liu et al., ICCV 2023).
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

from sparse3d.decoding.sparsebev import (
    CODE_SIZE,
    TopKDecoder,
    encode_boxes,
    encode_queries,
    queries_to_loss_codes,
)
from sparse3d.registry import MODELS
from sparse3d.structures import Grid, Sample

from ..features import Features
from ..layers.frame_views import FrameViews
from ..layers.precision import full_precision
from ..losses import code_l1_loss, query_focal_loss
from ..targets.denoising import DenoisingQueries, Noise
from ..targets.ground_truth import GroundTruth
from ..targets.sparsebev_targets import CODE_WEIGHTS, QueryTargets, SparseBEVTargetAssigner
from .sparsebev_decoder import SparseBEVDecoderLayer

PILLAR = math.exp(1.5)  # metres, the height of untrained boxes
LOSS_WEIGHTS = {"class": 2.0, "box": 0.25}
DENOISING = {"num_groups": 10, "center_noise": 0.5, "label_noise": 0.5}


@dataclass(frozen=True)
class SparseBEVOutput:
    """What the head says about a batch; denoising queries come first.

    Args:
        logits: ``[layers, B, D + Q, K]`` class logits.
        codes: ``[layers, B, D + Q, 10]`` loss codes.
    """

    logits: Tensor
    codes: Tensor

    def __getitem__(self, queries: slice) -> SparseBEVOutput:
        """Select queries."""
        return SparseBEVOutput(self.logits[:, :, queries], self.codes[:, :, queries])


@MODELS.register_module()
class SparseBEVHead(BaseModule):
    """The head.

    Args:
        grid: the grid; boxes live in its point range.
        class_names: names of all classes; labels are positions in it.
        decoder: arguments of ``TopKDecoder``.
        num_queries: Q, any number.
        num_frames: T, the present one included.
        channels: width C of queries and features.
        num_layers: times that the decoder layer is applied.
        layer: further arguments of ``SparseBEVDecoderLayer``.
        denoising: ``num_groups``, ``center_noise`` (of half a box) and ``label_noise`` (a probability) where they
            differ from 10, 0.5, 0.5; no groups switch it off.
        targets: arguments of ``SparseBEVTargetAssigner`` besides the code weights.
        loss_weights: weights of ``class`` and ``box`` where they differ from 2 and 0.25.
        code_weights: weight of each number of a loss code.
        unknown_velocity: ``"still"`` takes objects of unknown velocity for still, as the published recipe does;
            ``"left_out"`` leaves their boxes out of the loss and matches them at random.

    Raises:
        ValueError: if an option is unknown.
    """

    def __init__(
        self,
        grid: Grid | Mapping[str, Any],
        class_names: Sequence[str],
        decoder: Mapping[str, Any],
        num_queries: int = 900,
        num_frames: int = 8,
        channels: int = 256,
        num_layers: int = 6,
        layer: Mapping[str, Any] | None = None,
        denoising: Mapping[str, Any] | None = None,
        targets: Mapping[str, Any] | None = None,
        loss_weights: Mapping[str, float] | None = None,
        code_weights: Sequence[float] = CODE_WEIGHTS,
        unknown_velocity: str = "still",
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        _check_known("loss_weights", loss_weights or {}, LOSS_WEIGHTS)
        _check_known("denoising", denoising or {}, DENOISING)
        _check_known("unknown_velocity", [unknown_velocity], ("still", "left_out"))
        self.grid = Grid.build(grid)
        self.point_range = self.grid.point_range
        self.num_classes, self.num_frames, self.num_layers = len(class_names), num_frames, num_layers
        self.take_for_still = unknown_velocity == "still"
        self.loss_weights = {**LOSS_WEIGHTS, **(loss_weights or {})}
        self.denoising = {**DENOISING, **(denoising or {})}
        self.register_buffer("code_weights", torch.tensor(code_weights, dtype=torch.float32), persistent=False)
        self.assigner = SparseBEVTargetAssigner(code_weights=tuple(code_weights), **(targets or {}))
        self.decoder = TopKDecoder(**decoder)

        self.query_codes = nn.Parameter(start_codes(num_queries))
        self.label_embedding = nn.Embedding(self.num_classes + 1, channels - 1)  # the last one means "not known"
        self.layer = SparseBEVDecoderLayer(
            self.point_range, self.num_classes, channels, num_frames=num_frames, **(layer or {})
        )

    @full_precision
    def forward(self, features: Features, denoising: DenoisingQueries | None = None) -> SparseBEVOutput:
        """Return what the head says about a batch.

        Args:
            features: image maps with their cameras, the frames one after the other, the present one first.
            denoising: queries with noise that come before the learned ones.

        Raises:
            ValueError: if there are no image maps, or their cameras cannot be sorted into frames.
        """
        return self.refine(FrameViews.group(features, self.num_frames), denoising)

    def refine(self, frames: FrameViews, denoising: DenoisingQueries | None = None) -> SparseBEVOutput:
        """Return ``forward`` for cameras that are sorted into frames."""
        codes, queries = self._start(len(frames.lags), denoising)
        hidden = None if denoising is None else denoising.hidden(len(self.query_codes))
        logits, refined = [], []
        for _ in range(self.num_layers):
            queries, scores, codes = self.layer(codes, queries, frames, hidden)
            logits.append(scores)
            refined.append(queries_to_loss_codes(codes, self.point_range))
            codes = codes.detach()
        return SparseBEVOutput(torch.stack(logits), torch.stack(refined))

    def _start(self, batch_size: int, denoising: DenoisingQueries | None) -> tuple[Tensor, Tensor]:
        """Return the first query codes ``[B, D + Q, 10]`` and features ``[B, D + Q, C]``."""
        labels = torch.full((len(self.query_codes),), self.num_classes, device=self.query_codes.device)
        codes, queries = (
            each.expand(batch_size, -1, -1) for each in (self.query_codes, self._embed(labels, denoised=False))
        )
        if denoising is None:
            return codes, queries
        noisy = encode_queries(denoising.boxes, self.point_range)
        noisy = torch.cat([noisy[:, :3].clamp(0, 1), noisy[:, 3:]], dim=1)
        embedded = self._embed(denoising.labels, denoised=True)
        first_codes, first_queries = (denoising.fill(each, batch_size) for each in (noisy, embedded))
        return torch.cat([first_codes, codes], dim=1), torch.cat([first_queries, queries], dim=1)

    def _embed(self, labels: Tensor, *, denoised: bool) -> Tensor:
        """Return features ``[N, C]`` of labels ``[N]``; the last one tells denoising queries from the others."""
        return nn.functional.pad(self.label_embedding(labels), (0, 1), value=float(denoised))

    # -- training ----------------------------------------------------------------------------------------------------

    def loss(self, features: Features, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Return the losses of a batch (scalars); those of all layers but the last begin with ``d0.``, ``d1.`` ...

        Args:
            features: see ``forward``.
            samples: B samples with ``gt``; one without objects is all background, labels of -1 are left out.

        Raises:
            ValueError: if a sample has no ``gt``, a label exceeds the classes, or a prediction is not finite.
        """
        truth = self._truth(samples)
        options = self.denoising
        count = options["num_groups"] * len(truth.labels)
        noise = Noise.draw(count, self.num_classes, options["label_noise"], truth.labels.device)
        denoising = DenoisingQueries.make(truth, options["num_groups"], noise, options["center_noise"])
        return self.loss_from_output(self(features, denoising), truth, denoising)

    def _truth(self, samples: Sequence[Sample]) -> GroundTruth:
        truth = GroundTruth.gather(samples, self.num_classes)
        truth = truth[(truth.boxes.sizes > 0).all(dim=1)]
        return truth.taken_for_still() if self.take_for_still else truth

    @full_precision
    def loss_from_output(
        self, output: SparseBEVOutput, truth: GroundTruth, denoising: DenoisingQueries
    ) -> dict[str, Tensor]:
        """Return ``loss`` for what ``forward`` made of the objects and their noisy copies."""
        learned, noisy = output[denoising.num_slots :], output[: denoising.num_slots]
        targets = self._denoising_targets(noisy, truth, denoising)
        losses: dict[str, Tensor] = {}
        for layer, (logits, codes) in enumerate(zip(learned.logits, learned.codes, strict=True)):
            prefix = "" if layer == self.num_layers - 1 else f"d{layer}."
            own = self._losses(logits, codes, self.assigner(logits, codes, truth), truth)
            own_noisy = self._losses(noisy.logits[layer], noisy.codes[layer], targets, truth, filled_only=True)
            losses |= {f"{prefix}loss_{name}": value for name, value in own.items()}
            losses |= {f"{prefix}loss_{name}_dn": value for name, value in own_noisy.items()}
        return losses

    def _denoising_targets(
        self, noisy: SparseBEVOutput, truth: GroundTruth, denoising: DenoisingQueries
    ) -> QueryTargets:
        batch_size, slots = noisy.logits.shape[1:3]
        queries = denoising.samples * slots + denoising.slots
        labels = truth.labels.new_full((batch_size, slots), self.num_classes)
        labels[denoising.samples, denoising.slots] = truth.labels[denoising.objects]
        return QueryTargets(labels, queries, denoising.objects)

    def _losses(
        self,
        logits: Tensor,  # [B, Q, K]
        codes: Tensor,  # [B, Q, 10]
        targets: QueryTargets,
        truth: GroundTruth,
        *,
        filled_only: bool = False,
    ) -> dict[str, Tensor]:
        """Return the losses of one layer; ``filled_only`` leaves out queries without an object."""
        logits, labels = logits.flatten(0, 1), targets.labels.flatten()
        if filled_only:
            logits, labels = logits[targets.queries], labels[targets.queries]
        wanted = encode_boxes(truth.boxes.tensor)[targets.objects]
        wanted = wanted.where(wanted.isfinite().all(dim=1, keepdim=True), torch.nan)  # known in full, or left out
        found = codes.flatten(0, 1)[targets.queries]
        return {
            "class": self.loss_weights["class"] * query_focal_loss(logits, labels, len(targets.queries)),
            "box": self.loss_weights["box"] * code_l1_loss(found, wanted, self.code_weights),
        }

    # -- inference ---------------------------------------------------------------------------------------------------

    def predict(self, features: Features, samples: Sequence[Sample]) -> list[InstanceData]:
        """Return ``boxes``, ``scores`` and ``labels`` of each sample, in descending order of score."""
        return self.predict_from_output(self(features))

    @full_precision
    def predict_from_output(self, output: SparseBEVOutput) -> list[InstanceData]:
        """Return ``predict`` for what ``forward`` made, by its last layer."""
        return [InstanceData(**vars(each)) for each in self.decoder(output.logits[-1], output.codes[-1])]


def start_codes(num_queries: int) -> Tensor:
    """Return query codes ``[Q, 10]`` on a square grid over the range, x the slow axis, at its lower bound.

    Where Q is no square, the last row is not full. Lengths, widths and headings are random.
    """
    columns = math.isqrt(num_queries - 1) + 1
    rows = -(-num_queries // columns)
    number = torch.arange(num_queries)
    codes = torch.randn(num_queries, CODE_SIZE)
    codes[:, 0] = (number // columns + 0.5) / rows
    codes[:, 1] = (number % columns + 0.5) / columns
    codes[:, 2] = 0
    codes[:, 5] = math.log(PILLAR)
    codes[:, 8:] = 0
    return codes


def _check_known(what: str, names: Any, known: Any) -> None:
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise ValueError(f"{what}: unknown {unknown}; known are {list(known)}")
