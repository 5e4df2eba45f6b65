"""Keypoint head: people as points of a sparse heat map, each with a box and 14 keypoints (VoxelKP).

On the occupied cells of a bird's-eye map, one small submanifold branch for each of

    hm     heat                     loc_x, loc_y   offsets of the box's centre and of the 14 keypoints from the cell
    dim    log (l, w, h)            loc_z          their heights
    rot    (cos yaw, sin yaw)       kp_vis         visibility of the keypoints: 0 missing, 1 occluded, 2 visible
    iou    2 IoU - 1

The released code trains a head with centre and keypoints in branches of their own (`center`, `center_z`, `kp_x`, ...),
and publishes weights of one that has them together, without the code that trained it. Both have the same targets,
losses and decoding here: `targets/keypoint_targets.py`, `keypoint_losses.py`, `decoding/keypoints.py`.

Source: VoxelKP (Shi and Wonka, ICCV 2025, arXiv 2312.08871), and its code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from mmengine.structures import InstanceData
from torch import Tensor, nn

from sparse3d.decoding.center import CenterDecoder, decode_boxes
from sparse3d.decoding.keypoints import CellValues, decode_people
from sparse3d.registry import MODELS
from sparse3d.structures import Grid, Sample
from sparse3d.structures.skeleton import NUM_KEYPOINTS
from sparse3d_ops import iou_3d_paired
from sparse3d_ops.sparse import SparseSequential, SparseTensor, SubMConv2d

from ..features import Features
from ..keypoint_losses import bone_loss, keypoint_l1_loss, visibility_loss
from ..layers.norm import RowNorm
from ..layers.precision import full_precision
from ..losses import code_l1_loss, diou_loss, gaussian_focal_loss, mean_count
from ..targets.keypoint_targets import CODES, KeypointTargetAssigner, KeypointTargets, PeopleTruth
from .center_head import HEATMAP_BIAS

AXES = ("x", "y", "z")
COMMON_BRANCHES = {"hm": 1, "dim": 3, "rot": 2, "iou": 1, "kp_vis": NUM_KEYPOINTS}
MERGED_BRANCHES = {**COMMON_BRANCHES, **{f"loc_{axis}": 1 + NUM_KEYPOINTS for axis in AXES}}
SEPARATE_BRANCHES = {
    **COMMON_BRANCHES,
    "center": 2,
    "center_z": 1,
    **{f"kp_{axis}": NUM_KEYPOINTS for axis in AXES},
}
# As published: box and keypoints weigh 2 and are averaged.
LOSS_WEIGHTS = {
    "heatmap": 1.0,
    "box": 1.0,
    "keypoints": 1.0,
    "visibility": 1.0,
    "bones": 1.0,
    "iou": 1.0,
    "diou": 2.0,
}
MAX_LOG_SIZE = 5.0  # of boxes that losses are computed of


@MODELS.register_module()
class KeypointHead(BaseModule):
    """The keypoint head. Who walks and who rides is not told apart: all people have the label 0.

    Args:
        grid: the grid; its stride gives the cells.
        in_channels: channels of the map, and width of the branches.
        decoder: arguments of ``CenterDecoder``, for one class.
        separate_branches: give centre and keypoints branches of their own; False loads published weights.
        targets: arguments of ``KeypointTargetAssigner`` besides the grid.
        loss_weights: weights of ``heatmap``, ``box``, ``keypoints``, ``visibility``, ``bones``, ``iou`` and ``diou``
            where they differ from ``LOSS_WEIGHTS``.

    Raises:
        ValueError: if a weight is unknown.
    """

    def __init__(
        self,
        grid: Grid | Mapping[str, Any],
        in_channels: int,
        decoder: Mapping[str, Any],
        separate_branches: bool = False,
        targets: Mapping[str, Any] | None = None,
        loss_weights: Mapping[str, float] | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        unknown = sorted(set(loss_weights or {}) - set(LOSS_WEIGHTS))
        if unknown:
            raise ValueError(f"loss_weights: unknown {unknown}; known are {sorted(LOSS_WEIGHTS)}")
        self.grid = Grid.build(grid)
        self.decoder = CenterDecoder(**decoder)
        self.assigner = KeypointTargetAssigner(self.grid, **(targets or {}))
        self.loss_weights = {**LOSS_WEIGHTS, **(loss_weights or {})}
        widths = SEPARATE_BRANCHES if separate_branches else MERGED_BRANCHES
        self.branches = nn.ModuleDict({name: _branch(in_channels, width) for name, width in widths.items()})
        nn.init.constant_(self.branches["hm"][-1].bias, HEATMAP_BIAS)

    # -- values ------------------------------------------------------------------------------------------------------

    def forward(self, features: Features) -> CellValues:
        """Return the raw values on the occupied cells.

        Raises:
            ValueError: if there is no sparse bird's-eye map, or it does not have the size of the grid's cells.
        """
        x = features.sparse_bev
        if x is None or x.spatial_shape != self.grid.out_shape:
            came = "None" if x is None else list(x.spatial_shape)
            raise ValueError(f"features.sparse_bev: expected cells {list(self.grid.out_shape)} (y, x), got {came}")
        return CellValues(name_values(self.run_branches(x)), x.sites.keys, x.batch_size)

    def run_branches(self, x: SparseTensor) -> dict[str, Tensor]:
        """Return what each branch regresses ``[N, width]``."""
        return {name: branch(x).features for name, branch in self.branches.items()}

    # -- training ----------------------------------------------------------------------------------------------------

    def loss(self, features: Features, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Return the weighted losses of a batch (scalars).

        Args:
            features: with a sparse bird's-eye map of B samples.
            samples: B samples whose ``gt`` has ``keypoints`` and ``keypoint_visibility``.

        Raises:
            ValueError: if a sample has no ``gt``, or it has no keypoints.
        """
        return self.loss_from_values(self(features), PeopleTruth.gather(samples))

    @full_precision
    def loss_from_values(self, found: CellValues, truth: PeopleTruth) -> dict[str, Tensor]:
        """Return ``loss`` for values that ``forward`` made."""
        targets = self.assigner(truth, found.cells, found.batch_size)
        losses = self.losses(_float(found), targets)
        return {f"loss_{name}": self.loss_weights[name] * value for name, value in losses.items()}

    def losses(self, found: CellValues, targets: KeypointTargets) -> dict[str, Tensor]:
        """Return the losses without their weights."""
        values = found.take(targets.rows)
        codes = torch.cat([values[name] for name in CODES], dim=1)
        bounded = {**values, "dim": values["dim"].clamp(-MAX_LOG_SIZE, MAX_LOG_SIZE)}
        boxes = decode_boxes(bounded, found.cells[targets.rows], self.grid)
        achieved = iou_3d_paired(boxes.detach(), targets.boxes)[:, None]
        return {
            "heatmap": gaussian_focal_loss(found.values["hm"], targets.heatmap),
            "box": code_l1_loss(codes, targets.box_codes, codes.new_ones(codes.shape[1])),
            "keypoints": keypoint_l1_loss(values["keypoints"], targets.keypoints),
            "visibility": visibility_loss(values["visibility"], targets.visibility),
            "bones": bone_loss(values["keypoints"], targets.keypoints, found.batch_size * self.assigner.max_objects),
            "iou": (values["iou"] - (2 * achieved - 1)).abs().sum() / mean_count(len(achieved)),
            "diou": diou_loss(boxes, targets.boxes),
        }

    # -- inference ---------------------------------------------------------------------------------------------------

    def predict(self, features: Features, samples: Sequence[Sample]) -> list[InstanceData]:
        """Return each sample's people, in descending order of score.

        They have ``boxes``, ``scores``, ``labels``, ``keypoints`` ``[M, 14, 3]`` and ``keypoint_visibility``
        ``[M, 14]``, as ``decoding.keypoints.People``.
        """
        return self.predict_from_values(self(features))

    @full_precision
    def predict_from_values(self, found: CellValues) -> list[InstanceData]:
        """Return ``predict`` for values that ``forward`` made."""
        return [InstanceData(**vars(each)) for each in decode_people(_float(found), self.grid, self.decoder)]


def name_values(raw: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the values of ``CellValues`` for what the branches of either kind of head regress."""
    values = {name: raw[name] for name in ("hm", "dim", "rot", "iou")}
    if "center" in raw:
        return {
            **values,
            "center": raw["center"],
            "center_z": raw["center_z"],
            "keypoints": torch.stack([raw[f"kp_{axis}"] for axis in AXES], dim=-1),
            "visibility": raw["kp_vis"],
        }
    places = torch.stack([raw[f"loc_{axis}"] for axis in AXES], dim=-1)  # [N, 15, 3]
    return {
        **values,
        "center": places[:, 0, :2],
        "center_z": places[:, 0, 2:],
        "keypoints": places[:, 1:],
        "visibility": raw["kp_vis"],
    }


def _branch(channels: int, width: int) -> SparseSequential:
    hidden = SparseSequential(SubMConv2d(channels, channels, 3), RowNorm(channels), nn.ReLU(inplace=True))
    return SparseSequential(hidden, SubMConv2d(channels, width, 1))


def _float(found: CellValues) -> CellValues:
    return CellValues({name: each.float() for name, each in found.values.items()}, found.cells, found.batch_size)
