"""Centre head: boxes as points of a heat map (CenterPoint, Yin et al., CVPR 2021), as published with DSVT.

One shared convolution; for each task group of classes one small convolutional branch for each of

    hm        heat map, one channel a class             center    offset of the centre in its cell (x, y)
    center_z  height of the centre                      dim       log (l, w, h)
    rot       (cos yaw, sin yaw)                        vel       (vx, vy)
    iou       2 IoU - 1 of the predicted box            axis      (cos 2 yaw, sin 2 yaw)

Targets, losses and decoding are computed in float32: `targets/center_targets.py`, `losses.py`, `decoding/center.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmengine.structures import InstanceData
from torch import Tensor, nn

from sparse3d.decoding.center import Candidates, CenterDecoder, decode_boxes, gather_cells
from sparse3d.registry import MODELS
from sparse3d.structures import Grid, Sample
from sparse3d_ops import iou_3d_paired

from ..features import Features
from ..layers.precision import full_precision
from ..losses import code_l1_loss, diou_loss, gaussian_focal_loss, mean_count
from ..targets.center_targets import CenterTargetAssigner, CenterTargets
from ..targets.ground_truth import GroundTruth

HEATMAP_BIAS = -2.19  # an untrained heat map says 0.1
BOX_BRANCHES = {"center": 2, "center_z": 1, "dim": 3, "rot": 2}
EXTRA_BRANCHES = {"vel": 2, "axis": 2, "iou": 1}
UNCODED = ("iou", "hm")  # branches without a regression code
LOSS_WEIGHTS = {"heatmap": 1.0, "box": 2.0, "iou": 1.0, "diou": 0.0}

Maps = dict[str, Tensor]


@MODELS.register_module()
class CenterHead(BaseModule):
    """The centre head.

    Args:
        grid: the grid; its stride gives the head's cells.
        class_names: names of all classes; labels are positions in it.
        tasks: the classes of each task group; every class belongs to exactly one.
        in_channels: channels of the bird's-eye map.
        decoder: arguments of ``CenterDecoder``.
        shared_channels: width of the shared convolution and the branches.
        extra_branches: any of ``"vel"``, ``"iou"`` (both published) and ``"axis"``: a heading up to a half turn that
            ambiguous fronts cannot average away, for short schedules.
        num_convs: convolutions of a box branch.
        num_heatmap_convs: convolutions of the heat-map branch.
        bias_before_norm: give the convolutions before a norm a bias.
        norm: arguments of the BatchNorms.
        targets: arguments of ``CenterTargetAssigner`` besides the grid.
        loss_weights: weights of ``heatmap``, ``box``, ``iou`` and ``diou`` where they differ from 1, 2, 1, 0.
        code_weights: weight of each number that ``center, center_z, dim, rot, vel, axis`` regress; None means 1.
        smooth_codes: errors of a branch are squared below this bound, e.g. ``{"vel": 4.0}`` in m/s. The plain L1 loss,
            as published, seeks the median, and where most things stand that is no velocity at all for long.

    Raises:
        ValueError: if the task groups do not cover the classes once each, or a branch or weight is unknown.
    """

    def __init__(
        self,
        grid: Grid | Mapping[str, Any],
        class_names: Sequence[str],
        tasks: Sequence[Sequence[str]],
        in_channels: int,
        decoder: Mapping[str, Any],
        shared_channels: int = 64,
        extra_branches: Sequence[str] = (),
        num_convs: int = 2,
        num_heatmap_convs: int = 2,
        bias_before_norm: bool = False,
        norm: Mapping[str, float] | None = None,
        targets: Mapping[str, Any] | None = None,
        loss_weights: Mapping[str, float] | None = None,
        code_weights: Sequence[float] | None = None,
        smooth_codes: Mapping[str, float] | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        _check_options(class_names, tasks, extra_branches, loss_weights or {})
        self.grid = Grid.build(grid)
        self.num_classes = len(class_names)
        self.class_indices = [[list(class_names).index(name) for name in task] for task in tasks]
        branches = {**BOX_BRANCHES, **{name: EXTRA_BRANCHES[name] for name in EXTRA_BRANCHES if name in extra_branches}}
        self.coded = [name for name in branches if name not in UNCODED]
        self.register_buffer("code_weights", self._code_weights(code_weights, branches), persistent=False)
        self.register_buffer("code_betas", self._code_betas(smooth_codes or {}, branches), persistent=False)
        self.loss_weights = {**LOSS_WEIGHTS, **(loss_weights or {})}
        self.assigner = CenterTargetAssigner(self.grid, **(targets or {}))
        self.decoder = CenterDecoder(**decoder)

        block = partial(_ConvBlock, bias=bias_before_norm, norm=dict(norm or {"eps": 1e-3, "momentum": 0.01}))
        self.shared = block(in_channels, shared_channels)
        self.tasks = nn.ModuleList()
        for task in tasks:
            box_branches = {
                name: _box_branch(block, shared_channels, channels, num_convs) for name, channels in branches.items()
            }
            heatmap = _heatmap_branch(block, shared_channels, len(task), num_heatmap_convs)
            self.tasks.append(nn.ModuleDict({**box_branches, "hm": heatmap}))

    def _code_weights(self, weights: Sequence[float] | None, branches: Mapping[str, int]) -> Tensor:
        count = sum(branches[name] for name in self.coded)
        if weights is None:
            return torch.ones(count)
        if len(weights) != count:
            raise ValueError(f"code_weights: {self.coded} need {count} numbers, got {len(weights)}")
        return torch.tensor(weights, dtype=torch.float32)

    def _code_betas(self, smooth: Mapping[str, float], branches: Mapping[str, int]) -> Tensor | None:
        unknown = sorted(set(smooth) - set(self.coded))
        if unknown or any(beta <= 0 for beta in smooth.values()):
            raise ValueError(f"smooth_codes: expected positive bounds for any of {self.coded}, got {dict(smooth)}")
        if not smooth:
            return None
        return torch.cat([torch.full((branches[name],), float(smooth.get(name, 0.0))) for name in self.coded])

    # -- maps --------------------------------------------------------------------------------------------------------

    def forward(self, features: Features) -> list[Maps]:
        """Return each task group's raw maps ``[B, channels, Y, X]`` by branch.

        Raises:
            ValueError: if there is no bird's-eye map, or it does not have the size of the grid's cells.
        """
        bev = features.bev
        if bev is None or tuple(bev.shape[-2:]) != self.grid.out_shape:
            came = "None" if bev is None else list(bev.shape)
            raise ValueError(f"features.bev: expected [B, C, *{list(self.grid.out_shape)}], got {came}")
        shared = self.shared(bev)
        return [_run_branches(task, shared) for task in self.tasks]

    # -- training ----------------------------------------------------------------------------------------------------

    def loss(self, features: Features, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Return the losses of a batch (scalars), each summed over the task groups.

        Args:
            features: with a bird's-eye map of B samples.
            samples: B samples with ``gt``; one without objects is all background, labels of -1 are left out.

        Raises:
            ValueError: if a sample has no ``gt``, or a label exceeds the classes.
        """
        return self.loss_from_maps(self(features), samples)

    @full_precision
    def loss_from_maps(self, maps: Sequence[Maps], samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Return ``loss`` for maps that ``forward`` made."""
        targets = self.assign(samples)
        losses = [self.task_losses(_float(own), target) for own, target in zip(maps, targets, strict=True)]
        return {f"loss_{name}": sum(each[name] for each in losses) for name in losses[0]}

    def assign(self, samples: Sequence[Sample]) -> list[CenterTargets]:
        """Return each task group's targets, on the device of the ground truth."""
        truth = GroundTruth.gather(samples, self.num_classes)
        targets = []
        for classes in self.class_indices:
            own_label = truth.labels.new_full((self.num_classes,), -1)
            own_label[classes] = torch.arange(len(classes), device=own_label.device)
            labels = own_label[truth.labels]
            use = labels >= 0
            own = truth[use]
            targets.append(
                self.assigner(
                    own.boxes, labels[use], own.batch_index, num_classes=len(classes), batch_size=len(samples)
                )
            )
        return targets

    def task_losses(self, maps: Maps, targets: CenterTargets) -> dict[str, Tensor]:
        """Return the weighted losses of one task group from its float32 maps."""
        values = {name: gather_cells(each, targets.cells) for name, each in maps.items() if name != "hm"}
        codes, wanted = (torch.cat([part[name] for name in self.coded], dim=1) for part in (values, targets.codes))
        losses = {
            "heatmap": gaussian_focal_loss(maps["hm"], targets.heatmap),
            "box": code_l1_loss(codes, wanted, self.code_weights, self.code_betas),
        }
        if "iou" in values or self.loss_weights["diou"]:
            boxes = decode_boxes(values, targets.cells, self.grid)
        if "iou" in values:
            achieved = iou_3d_paired(boxes.detach(), targets.boxes)[:, None]
            losses["iou"] = (values["iou"] - (2 * achieved - 1)).abs().sum() / mean_count(len(achieved))
        if self.loss_weights["diou"]:
            losses["diou"] = diou_loss(boxes, targets.boxes)
        return {name: self.loss_weights[name] * value for name, value in losses.items()}

    # -- inference ---------------------------------------------------------------------------------------------------

    def predict(self, features: Features, samples: Sequence[Sample]) -> list[InstanceData]:
        """Return ``boxes``, ``scores`` and ``labels`` of each sample, in descending order of score."""
        return self.predict_from_maps(self(features))

    @full_precision
    def predict_from_maps(self, maps: Sequence[Maps]) -> list[InstanceData]:
        """Return ``predict`` for maps that ``forward`` made."""
        found = self.decoder.decode(maps, self.grid, self.class_indices)
        return [InstanceData(**vars(each)) for each in found]

    @full_precision
    def candidates(self, maps: Sequence[Maps]) -> Candidates:
        """Return the boxes of all task groups before suppression."""
        return self.decoder.candidates(maps, self.grid, self.class_indices)


class _ConvBlock(nn.Sequential):
    """conv3x3 - BN - ReLU."""

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool, norm: Mapping[str, float]) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=bias),
            nn.BatchNorm2d(out_channels, **norm),
            nn.ReLU(inplace=True),
        )


def _run_branches(task: nn.ModuleDict, shared: Tensor) -> Maps:
    """Run a task group's branches; those that are a single convolution run as one.

    On a CPU, convolutions to one or two channels cost several times what one convolution to all of them does.
    """
    maps = {name: branch(shared) for name, branch in task.items() if len(branch) > 1}
    single = {name: branch[0] for name, branch in task.items() if len(branch) == 1}
    if single:
        weight = torch.cat([layer.weight for layer in single.values()])
        bias = torch.cat([layer.bias for layer in single.values()])
        widths = [layer.out_channels for layer in single.values()]
        parts = F.conv2d(shared, weight, bias, padding=1).split(widths, dim=1)
        maps.update(zip(single, parts, strict=True))
    return maps


def _branch(block: Any, width: int, out_channels: int, num_convs: int) -> nn.Sequential:
    hidden = [block(width, width) for _ in range(num_convs - 1)]
    return nn.Sequential(*hidden, nn.Conv2d(width, out_channels, 3, padding=1))


def _box_branch(block: Any, width: int, out_channels: int, num_convs: int) -> nn.Sequential:
    branch = _branch(block, width, out_channels, num_convs)
    for module in branch.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return branch


def _heatmap_branch(block: Any, width: int, num_classes: int, num_convs: int) -> nn.Sequential:
    branch = _branch(block, width, num_classes, num_convs)
    nn.init.constant_(branch[-1].bias, HEATMAP_BIAS)
    return branch


def _float(maps: Maps) -> Maps:
    return {name: each.float() for name, each in maps.items()}


def _check_options(
    class_names: Sequence[str], tasks: Sequence[Sequence[str]], extra: Sequence[str], weights: Mapping[str, float]
) -> None:
    grouped = list(chain.from_iterable(tasks))
    if sorted(grouped) != sorted(class_names):
        raise ValueError(f"tasks: expected every one of {list(class_names)} exactly once, got {grouped}")
    for what, names, known in (("extra_branches", extra, EXTRA_BRANCHES), ("loss_weights", weights, LOSS_WEIGHTS)):
        unknown = sorted(set(names) - set(known))
        if unknown:
            raise ValueError(f"{what}: unknown {unknown}; known are {sorted(known)}")
