"""From the centre head's maps to boxes.

    1. the top K cells of a task group's heat maps, over all its classes at once; no peak filter
    2. box:  x = (cell x + offset) * stride * voxel size + lower,  size = exp(dim),  yaw = atan2(sin, cos)
    3. keep what exceeds the score threshold and has its centre in the centre range
    4. score = heat^(1 - r) * clamp((iou + 1) / 2, 0, 1)^r        with a predicted IoU, r by class
    5. non-maximum suppression by class (or by task group), of what overlaps or of what is near; then the best of each
       sample

Source: CenterPoint (Yin et al., CVPR 2021), section 4; IoU rectification after AFDetV2 (Hu et al., AAAI 2022).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparse3d.structures import Boxes3D, Detections, Grid
from sparse3d_ops import Segments, nms_bev, nms_circle

SCOPES = ("class", "task")
MEASURES = ("iou", "squared_distance")


@dataclass(frozen=True)
class Candidates:
    """Boxes of a batch on their way through the decoder.

    Args:
        boxes: ``[N, 7 or 9]`` float32.
        scores: ``[N]`` float32.
        labels: ``[N]`` int64, positions in the config's class names.
        tasks: ``[N]`` int64, task group of each box.
        batch_index: ``[N]`` int64.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    tasks: Tensor
    batch_index: Tensor

    def __getitem__(self, rows: Tensor) -> Candidates:
        """Select rows by a mask or an index."""
        return Candidates(*(part[rows] for part in self._parts()))

    @classmethod
    def cat(cls, several: Sequence[Candidates]) -> Candidates:
        """Concatenate."""
        return cls(*(torch.cat(parts) for parts in zip(*(each._parts() for each in several), strict=True)))

    def _parts(self) -> tuple[Tensor, ...]:
        return self.boxes, self.scores, self.labels, self.tasks, self.batch_index


@dataclass(frozen=True)
class CenterDecoder:
    """Steps 1 to 5; a sequence has one entry a class, or a task group under ``nms_scope="task"``.

    Args:
        center_range: ``(x0, y0, z0, x1, y1, z1)`` in metres, bounds included, for predicted centres.
        top_k: candidates K of a task group in a sample.
        score_threshold: heat that a candidate has to exceed, before rectification.
        iou_exponents: r of each class, or None to leave the scores as they are.
        nms_scope: whether boxes of one class, or of one task group, suppress each other.
        nms_measure: ``"iou"`` suppresses boxes that overlap, ``"squared_distance"`` those whose centres are near.
        nms_threshold: BEV IoU above which the worse box goes; or the squared distance in m² up to which it does, which
            published configs call a radius.
        nms_pre: best candidates that take part in a sample, for each class (task group).
        nms_post: boxes left at most in a sample, for each class (task group).
        nms_quarter_turn: suppress with every box turned by 90 degrees about its centre, as the published class-wise
            suppression does by a mix-up of angle conventions; published results contain it.
        max_per_sample: boxes of a sample in the end.

    Raises:
        ValueError: if the scope or the measure is unknown.
    """

    center_range: Sequence[float]
    top_k: int = 500
    score_threshold: float = 0.1
    iou_exponents: Sequence[float] | None = None
    nms_scope: str = "class"
    nms_measure: str = "iou"
    nms_threshold: float | Sequence[float] = 0.2
    nms_pre: int | Sequence[int] = 4096
    nms_post: int | Sequence[int] = 500
    nms_quarter_turn: bool = True
    max_per_sample: int = 500

    def __post_init__(self) -> None:
        """Check the names."""
        for name, known in (("nms_scope", SCOPES), ("nms_measure", MEASURES)):
            if getattr(self, name) not in known:
                raise ValueError(f"CenterDecoder: {name} must be one of {known}, got {getattr(self, name)!r}")

    def decode(
        self,
        maps: Sequence[Mapping[str, Tensor]],
        grid: Grid,
        class_indices: Sequence[Sequence[int]],
    ) -> list[Detections]:
        """Turn the maps of all task groups into each sample's boxes: steps 1 to 5.

        Args:
            maps: each task group's maps ``[B, C, Y, X]`` by branch.
            grid: the grid of the maps.
            class_indices: positions of each task group's classes in the config's class names.
        """
        return self.select(self.candidates(maps, grid, class_indices), batch_size=len(maps[0]["hm"]))

    def candidates(
        self,
        maps: Sequence[Mapping[str, Tensor]],
        grid: Grid,
        class_indices: Sequence[Sequence[int]],
    ) -> Candidates:
        """Return the boxes of all task groups before suppression; arguments as ``decode``."""
        found = []
        for task, (own, classes) in enumerate(zip(maps, class_indices, strict=True)):
            values = {name: each.float() for name, each in own.items()}
            class_index = torch.tensor(classes, device=own["hm"].device)
            found.append(self.task_candidates(values, grid, task, class_index))
        return Candidates.cat(found)

    def task_candidates(
        self,
        maps: Mapping[str, Tensor],  # [B, C, Y, X] each
        grid: Grid,
        task: int,
        class_index: Tensor,  # [K]
    ) -> Candidates:
        """Return a task group's candidates after step 4, sample after sample, in descending order of heat.

        Args:
            maps: the group's float32 maps by branch.
            grid: the grid of the maps.
            task: number of the group.
            class_index: position of each of the group's classes in the config's class names.
        """
        heat = maps["hm"].sigmoid().flatten(1)
        samples, num_cells = len(heat), math.prod(grid.out_shape)
        scores, place = heat.topk(min(self.top_k, heat.shape[1]), dim=1)
        batch_index = torch.arange(samples, device=heat.device)[:, None].expand_as(place)
        cells = (batch_index * num_cells + place % num_cells).flatten()
        values = {name: gather_cells(each, cells) for name, each in maps.items() if name != "hm"}
        labels = class_index[place // num_cells].flatten()
        found = Candidates(
            boxes=decode_boxes(values, cells, grid),
            scores=self.rectify(scores.flatten(), labels, values.get("iou")),
            labels=labels,
            tasks=torch.full_like(labels, task),
            batch_index=batch_index.flatten(),
        )
        return found[(scores.flatten() > self.score_threshold) & self.is_in_range(found.boxes)]

    def select(self, candidates: Candidates, batch_size: int) -> list[Detections]:
        """Run step 5: one ``Detections`` a sample, in descending order of score."""
        best = [candidates[rows] for rows in self.select_rows(candidates, batch_size)]
        return [Detections(Boxes3D(each.boxes), each.scores, each.labels) for each in best]

    def select_rows(self, candidates: Candidates, batch_size: int) -> list[Tensor]:
        """Run step 5: the rows of the candidates that each sample keeps, in descending order of score."""
        kept = self._suppress(candidates, batch_size)
        kept = kept[candidates.scores[kept].argsort(descending=True, stable=True)]
        batch_index = candidates.batch_index[kept]
        return [kept[batch_index == sample][: self.max_per_sample] for sample in range(batch_size)]

    def rectify(self, scores: Tensor, labels: Tensor, iou: Tensor | None) -> Tensor:
        """Run step 4 on heats ``[N]``, labels ``[N]`` and IoUs ``[N, 1]``, if they are predicted: scores ``[N]``."""
        if self.iou_exponents is None or iou is None:
            return scores
        exponent = scores.new_tensor(self.iou_exponents)[labels]
        return scores ** (1 - exponent) * ((iou[:, 0] + 1) / 2).clamp(0, 1) ** exponent

    def is_in_range(self, boxes: Tensor) -> Tensor:
        """Return the mask ``[N]`` of boxes whose centre is in the centre range."""
        low, high = boxes.new_tensor(self.center_range).split(3)
        return ((boxes[:, :3] >= low) & (boxes[:, :3] <= high)).all(dim=1)

    def _suppress(self, candidates: Candidates, batch_size: int) -> Tensor:
        """Return the rows that survive."""
        groups = candidates.labels if self.nms_scope == "class" else candidates.tasks
        boxes = candidates.boxes.clone()
        if self.nms_quarter_turn:
            boxes[:, 6] += math.pi / 2
        suppress, columns = (nms_bev, None) if self.nms_measure == "iou" else (nms_circle, 2)
        kept = [groups.new_zeros(0)]
        for group in groups.unique().tolist():
            rows = (groups == group).nonzero()[:, 0]
            rows = rows[candidates.scores[rows].argsort(descending=True, stable=True)]
            rank = Segments.from_index(candidates.batch_index[rows], batch_size).rank()
            rows = rows[rank < _entry(self.nms_pre, group)]
            best = suppress(
                boxes[rows][:, :columns],
                candidates.scores[rows],
                _entry(self.nms_threshold, group),
                batch_index=candidates.batch_index[rows],
                max_output=_entry(self.nms_post, group),
            )
            kept.append(rows[best])
        return torch.cat(kept)


def gather_cells(
    values: Tensor,  # [B, C, Y, X]
    cells: Tensor,  # [M]
) -> Tensor:  # [M, C]
    """Read a map at cells ``(b * Y + y) * X + x``; free of copies where the map is channels-last."""
    return values.permute(0, 2, 3, 1).flatten(0, 2).index_select(0, cells)


def decode_boxes(
    values: Mapping[str, Tensor],  # [M, 1 to 3] each
    cells: Tensor,  # [M]
    grid: Grid,
) -> Tensor:  # [M, 7 or 9]
    """Turn regression codes read at cells ``(b * Y + y) * X + x`` into boxes; see step 2.

    Where there is an ``axis`` branch, it gives the heading up to a half turn, and ``rot`` decides the half turn.
    """
    height, width = grid.out_shape
    place = torch.stack([cells % width, cells // width % height], dim=1)
    size, lower = (values["center"].new_tensor(numbers[:2]) for numbers in (grid.voxel_size, grid.lower))
    centers = (place + values["center"]) * grid.stride * size + lower
    yaws = _decode_yaw(values["rot"], values.get("axis"))
    parts = [centers, values["center_z"], values["dim"].exp(), yaws[:, None]]
    if "vel" in values:
        parts.append(values["vel"])
    return torch.cat(parts, dim=1)


def _decode_yaw(rot: Tensor, axis: Tensor | None) -> Tensor:
    cos, sin = rot.unbind(1)
    if axis is None:
        return torch.atan2(sin, cos)
    half_turn = torch.atan2(axis[:, 1], axis[:, 0]) / 2
    agrees = cos * half_turn.cos() + sin * half_turn.sin() >= 0
    return torch.where(agrees, half_turn, half_turn + math.pi)


def _entry(values: float | Sequence[float], group: int) -> float:
    return values[group] if isinstance(values, Sequence) else values
