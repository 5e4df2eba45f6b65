"""VoxelKP's training targets: heat and regression codes on the occupied cells of a map.

    c      centre of a person in cells, clamped to the map           p = (x, y), whole numbers, of an occupied cell
    cell   the occupied cell of the sample that is nearest to c
    heat   max over people of exp(-|p - c|² / 2σ²) and exp(-|p - cell|² / 2σ²), so that it is 1 at their cells;
           σ = (2 r + 1) / 6, never cut off
    codes  center = c - cell, and x and y of the keypoints in cells minus the cell; heights, sizes, yaw as CenterPoint

Source: VoxelKP (Shi and Wonka, ICCV 2025), and its code; the heat of occupied cells is VoxelNeXt's (Chen et al., CVPR
2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparse3d.structures import Boxes3D, Grid, Sample
from sparse3d.structures.skeleton import MISSING
from sparse3d_ops import Segments

from .center_targets import centers_in_cells, encode_boxes
from .gaussian import object_radii
from .ground_truth import GroundTruth

CODES = ("center", "center_z", "dim", "rot")  # of a box, in this order


@dataclass(frozen=True)
class PeopleTruth:
    """The people of a batch, sample after sample.

    Args:
        boxes: N boxes, float32.
        batch_index: ``[N]`` int64, ascending.
        keypoints: ``[N, 14, 3]`` float32, metres; any place where missing.
        visibility: ``[N, 14]`` int64: missing, occluded or visible.
    """

    boxes: Boxes3D
    batch_index: Tensor
    keypoints: Tensor
    visibility: Tensor

    def __getitem__(self, rows: Tensor) -> PeopleTruth:
        """Select people by a mask or an index."""
        return PeopleTruth(self.boxes[rows], self.batch_index[rows], self.keypoints[rows], self.visibility[rows])

    @classmethod
    def gather(cls, samples: Sequence[Sample]) -> PeopleTruth:
        """Return the people of samples with ``gt``; labels of -1 (no class) are left out.

        Raises:
            ValueError: if a sample has no ``gt``, or its ``gt`` no keypoints.
        """
        truth = GroundTruth.gather(samples)
        without = [number for number, sample in enumerate(samples) if "keypoints" not in sample.gt]
        if without:
            raise ValueError(
                f"loss: gt of samples {without} of the batch has no 'keypoints'; use LoadAnnotations(keypoints=True)"
            )
        labels, keypoints, visibility = (
            torch.cat([sample.gt.get(name) for sample in samples])
            for name in ("labels", "keypoints", "keypoint_visibility")
        )
        known = labels >= 0
        return cls(Boxes3D(truth.boxes.tensor[:, :7]), truth.batch_index, keypoints[known].float(), visibility[known])


@dataclass(frozen=True)
class KeypointTargets:
    """Targets of a batch on its N occupied cells.

    Args:
        heatmap: ``[N, 1]`` float32 in ``[0, 1]``, 1 at the cells of people.
        rows: ``[M]`` int64, the cell of each person.
        box_codes: ``[M, 8]`` float32, see ``CODES``.
        keypoints: ``[M, 14, 3]`` float32, offsets in cells and heights in metres; NaN where there is nothing to learn.
        visibility: ``[M, 14]`` float32: 0 missing, 1 occluded, 2 visible.
        boxes: ``[M, 7]`` float32.
    """

    heatmap: Tensor
    rows: Tensor
    box_codes: Tensor
    keypoints: Tensor
    visibility: Tensor
    boxes: Tensor


@dataclass(frozen=True)
class KeypointTargetAssigner:
    """Makes the targets.

    Args:
        grid: the grid; its stride gives the cells.
        overlap: IoU that a box shifted by the radius still has.
        min_radius: smallest radius of a Gaussian, in cells.
        max_objects: people of a sample beyond this number are left out, in the order of the ground truth.
        learn_missing: learn places for missing keypoints too: those that the data gives, which are the middle of the
            box. The published weights did; False leaves them free.
    """

    grid: Grid
    overlap: float = 0.1
    min_radius: int = 2
    max_objects: int = 500
    learn_missing: bool = True

    def __call__(
        self,
        truth: PeopleTruth,
        cells: Tensor,  # [N]
        batch_size: int,
    ) -> KeypointTargets:
        """Make the targets of a batch.

        Args:
            truth: its people; those without a size, and those of a sample without cells, are left out.
            cells: ``[N]`` int64, occupied cells ``(b * Y + y) * X + x``, ascending.
            batch_size: B.
        """
        height, width = self.grid.out_shape
        places = torch.stack([cells % width, cells // width % height], dim=1)
        sample_of_cell = cells // (height * width)
        truth = truth[self._is_used(truth, sample_of_cell, batch_size)]
        centers = centers_in_cells(truth.boxes, self.grid)
        elsewhere = truth.batch_index[:, None] != sample_of_cell
        to_center = _squared_distances(centers, places).masked_fill(elsewhere, torch.inf)
        rows = to_center.argmin(dim=1) if len(cells) else truth.batch_index
        own = places[rows]
        to_cell = _squared_distances(own.float(), places).masked_fill(elsewhere, torch.inf)
        radii = object_radii(truth.boxes, self.grid, self.overlap, self.min_radius)
        codes = encode_boxes(truth.boxes, centers - own)
        return KeypointTargets(
            heatmap=_heat(torch.minimum(to_center, to_cell), radii)[:, None],
            rows=rows,
            box_codes=torch.cat([codes[name] for name in CODES], dim=1),
            keypoints=self._keypoint_codes(truth, own),
            visibility=truth.visibility.float(),
            boxes=truth.boxes.tensor,
        )

    def _is_used(self, truth: PeopleTruth, sample_of_cell: Tensor, batch_size: int) -> Tensor:
        """Return the mask of people that have targets."""
        early = Segments.from_index(truth.batch_index, batch_size).rank() < self.max_objects
        has_cells = torch.bincount(sample_of_cell, minlength=batch_size)[truth.batch_index] > 0
        return early & has_cells & (truth.boxes.sizes[:, :2] > 0).all(dim=1)

    def _keypoint_codes(self, truth: PeopleTruth, own: Tensor) -> Tensor:
        """Return ``[M, 14, 3]``, for the cells ``own`` ``[M, 2]``."""
        lower, size = (truth.keypoints.new_tensor(values[:2]) for values in (self.grid.lower, self.grid.voxel_size))
        xy = (truth.keypoints[..., :2] - lower) / size / self.grid.stride - own[:, None]
        codes = torch.cat([xy, truth.keypoints[..., 2:]], dim=-1)
        if self.learn_missing:
            return codes
        return codes.masked_fill((truth.visibility == MISSING)[..., None], torch.nan)


def _squared_distances(
    centers: Tensor,  # [M, 2]
    places: Tensor,  # [N, 2]
) -> Tensor:  # [M, N]
    return (centers[:, None] - places).square().sum(dim=-1)


def _heat(
    distances: Tensor,  # [M, N], squared
    radii: Tensor,  # [M]
) -> Tensor:  # [N]
    """Return the largest Gaussian at each cell, 0 without people."""
    sigma = (2 * radii + 1) / 6
    heat = torch.exp(-distances / (2 * sigma.square()[:, None]))
    return torch.cat([heat, heat.new_zeros(1, heat.shape[1])]).amax(dim=0)
