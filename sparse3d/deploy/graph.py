"""The part of a detector that becomes a graph: named tensors in, named tensors out, the detector's own modules between.

A graph takes the tensors of `inputs.py` and returns those of `outputs.py`. In half precision the voxel encoder stays in
float32, which half precision cannot replace where metres are held to the centimetre, and so does a head that computes
with positions itself (TransFusion's).
"""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from sparse3d.models import DSVT, Detector3D, DynamicVoxelEncoder, Features, PointBranch
from sparse3d.models.bev.scatter import lay_out

from .inputs import Named, PointInputs, stages_of, tree_of
from .outputs import OUTPUTS

MAX_PILLARS, MAX_VOXELS, MAX_POINTS = 40_000, 120_000, 500_000
PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16}


class DetectorGraph(nn.Module):
    """What is exported of a LiDAR detector.

    Args:
        detector: in eval mode; the graph takes over its modules and casts them.
        precision: ``"fp32"`` or ``"fp16"``.

    Raises:
        ValueError: if a part of the detector has no way into a graph yet; it is named.
    """

    def __init__(self, detector: Detector3D, precision: str = "fp32") -> None:
        super().__init__()
        check_parts(detector)
        self.dtype = PRECISIONS[precision]
        self.encoder = detector.point_branch.voxel_encoder
        self.backbone = (
            None if detector.point_branch.backbone is None else detector.point_branch.backbone.to(self.dtype)
        )
        self.bev_backbone = detector.point_branch.bev_backbone.to(self.dtype)
        self.bev_shape = detector.point_branch.grid.bev_shape
        self.outputs = OUTPUTS[type(detector.head).__name__].of(detector.head)
        self.head_dtype = torch.float32 if self.outputs.computes_positions else self.dtype
        self.head = detector.head.to(self.head_dtype)

    def forward(self, named: Named) -> Named:
        """Run everything between the tensors of ``PointInputs`` and those of the head's outputs."""
        features = self.encoder.encode(named["point_descriptors"], tree_of(named)).to(self.dtype)
        if self.backbone is not None:
            volumes = [stage.volume for stage in self.backbone.specs]
            features = self.backbone.run(features, stages_of(named, volumes))
        bev = lay_out(features, named["bev_cells"].long(), 1, self.bev_shape)
        output = self.head(Features(bev=self.bev_backbone(bev).to(self.head_dtype)))
        return {name: _as_output(each) for name, each in self.outputs.name(output).items()}


def _as_output(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def check_parts(detector: Detector3D) -> None:
    """Raise ``ValueError`` for a detector with a part that cannot be exported."""
    branch = detector.point_branch
    if detector.image_branch is not None or not isinstance(branch, PointBranch):
        raise ValueError("export: only detectors with a PointBranch and no image branch can be exported yet")
    parts: list[tuple[str, Any, tuple[type, ...]]] = [
        ("voxel_encoder", branch.voxel_encoder, (DynamicVoxelEncoder,)),
        ("backbone", branch.backbone, (DSVT, type(None))),
    ]
    for name, module, known in parts:
        if not isinstance(module, known):
            names = ", ".join(each.__name__ for each in known)
            raise ValueError(f"export: {name} is a {type(module).__name__}; known are {names}")
    if type(detector.head).__name__ not in OUTPUTS:
        raise ValueError(f"export: head is a {type(detector.head).__name__}; known are {', '.join(OUTPUTS)}")


def point_inputs(detector: Detector3D, max_voxels: int | None = None, max_points: int | None = None) -> PointInputs:
    """Describe how points become the inputs of a detector's graph.

    Args:
        detector: a detector that ``check_parts`` passes.
        max_voxels: voxels of a scan at most; None takes 40,000 for pillars and 120,000 for voxels, or what the grid
            has if that is less.
        max_points: points of a scan inside of the grid at most; None takes 500,000, which is well above ten sweeps of
            nuScenes (about 300,000).
    """
    branch, preprocessor = detector.point_branch, detector.data_preprocessor
    encoder, backbone, grid = branch.voxel_encoder, branch.backbone, detector.head.grid
    return PointInputs(
        grid=grid,
        num_features=encoder.num_features,
        max_voxels=max_voxels or min(prod(grid.shape), MAX_PILLARS if grid.shape[0] == 1 else MAX_VOXELS),
        max_points=max_points or MAX_POINTS,
        keep_outside_z=preprocessor.keep_outside_z,
        with_distance=encoder.with_distance,
        scales=None if encoder.scales is None else tuple(encoder.scales.tolist()),
        stages=() if backbone is None else tuple(stage.index_part for stage in backbone.specs),
    )
