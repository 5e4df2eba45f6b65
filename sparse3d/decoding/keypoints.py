"""From the keypoint head's values on sparse cells to people: boxes with 14 keypoints each.

    1. the K cells of each sample with the largest heat
    2. box as in `center.py`;  keypoint:  x = (cell x + offset) * stride * voxel size + lower, y likewise, z as it is
    3. to 5. threshold, centre range, scores rectified by the predicted IoU, suppression: as in `center.py`

A visibility stays as it was regressed: about 0 missing, 1 occluded, 2 visible.

Source: VoxelKP (Shi and Wonka, ICCV 2025, arXiv 2312.08871), and its code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from sparse3d.structures import Boxes3D, Detections, Grid
from sparse3d_ops import Segments

from .center import Candidates, CenterDecoder, decode_boxes


@dataclass(frozen=True)
class People(Detections):
    """What is found in one sample, in descending order of score.

    Args:
        keypoints: ``[M, 14, 3]`` float32 in the LiDAR frame, metres, in the order of ``structures.skeleton.KEYPOINTS``.
        keypoint_visibility: ``[M, 14]`` float32, about 0 missing, 1 occluded, 2 visible; any number is possible.
    """

    keypoints: Tensor
    keypoint_visibility: Tensor


@dataclass(frozen=True)
class CellValues:
    """The head's raw values on the occupied cells of a batch.

    Args:
        values: ``hm`` ``[N, 1]`` logits, ``center`` ``[N, 2]`` offsets in cells, ``center_z`` ``[N, 1]`` metres,
            ``dim`` ``[N, 3]`` log metres, ``rot`` ``[N, 2]`` cosine and sine, ``iou`` ``[N, 1]``, ``keypoints``
            ``[N, 14, 3]`` offsets in cells and heights in metres, ``visibility`` ``[N, 14]``.
        cells: ``[N]`` int64, ``(b * Y + y) * X + x``, ascending.
        batch_size: B; samples may be without cells.
    """

    values: Mapping[str, Tensor]
    cells: Tensor
    batch_size: int

    def batch_index(self, grid: Grid) -> Tensor:
        """Return the sample ``[N]`` int64 of each cell."""
        height, width = grid.out_shape
        return self.cells // (height * width)

    def take(self, rows: Tensor) -> dict[str, Tensor]:
        """Return the values of some rows."""
        return {name: each[rows] for name, each in self.values.items()}


def decode_people(found: CellValues, grid: Grid, decoder: CenterDecoder) -> list[People]:
    """Turn values on cells into each sample's people; they all have the label 0.

    Args:
        found: float32 values.
        grid: the grid of the cells.
        decoder: steps 3 to 5, and ``top_k``.
    """
    candidates, rows = find_candidates(found, grid, decoder)
    values = found.take(rows)
    keypoints, visibility = decode_keypoints(values["keypoints"], found.cells[rows], grid), values["visibility"]
    people = []
    for kept in decoder.select_rows(candidates, found.batch_size):
        best = candidates[kept]
        people.append(People(Boxes3D(best.boxes), best.scores, best.labels, keypoints[kept], visibility[kept]))
    return people


def find_candidates(found: CellValues, grid: Grid, decoder: CenterDecoder) -> tuple[Candidates, Tensor]:
    """Return the boxes before suppression, the largest heat first, and the row ``[C]`` of the cell of each."""
    heat = found.values["hm"][:, 0].sigmoid()
    rows = _best_rows(heat, found.batch_index(grid), found.batch_size, decoder.top_k)
    boxes = decode_boxes(found.take(rows), found.cells[rows], grid)
    passed = (heat[rows] > decoder.score_threshold) & decoder.is_in_range(boxes)
    rows, boxes = rows[passed], boxes[passed]
    label = torch.zeros_like(rows)
    scores = decoder.rectify(heat[rows], label, found.values["iou"][rows])
    return Candidates(boxes, scores, label, label, found.batch_index(grid)[rows]), rows


def decode_keypoints(
    values: Tensor,  # [M, 14, 3]
    cells: Tensor,  # [M]
    grid: Grid,
) -> Tensor:  # [M, 14, 3]
    """Turn offsets from cells into places; see step 2."""
    height, width = grid.out_shape
    place = torch.stack([cells % width, cells // width % height], dim=1)[:, None]
    size, lower = (values.new_tensor(numbers[:2]) for numbers in (grid.voxel_size, grid.lower))
    xy = (place + values[..., :2]) * grid.stride * size + lower
    return torch.cat([xy, values[..., 2:]], dim=-1)


def _best_rows(heat: Tensor, batch_index: Tensor, batch_size: int, count: int) -> Tensor:
    """Return the ``count`` rows of each sample with the largest heat, the larger first."""
    order = heat.argsort(descending=True, stable=True)
    return order[Segments.from_index(batch_index[order], batch_size).rank() < count]
