"""The parts of a detector that become graphs: named tensors in, named tensors out, the detector's own modules between.

A graph takes the tensors of one of the `*_inputs.py` and returns those of `outputs.py`. In half precision what reads
points stays in float32 (the voxel encoder, the first layer of a sparse encoder): half precision cannot hold metres to
the centimetre.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import nn

from sparse3d.models import (
    DSVT,
    DepthAwareImageBranch,
    Detector3D,
    DetectorBranch,
    DynamicVoxelEncoder,
    FasterRCNN,
    FocalEncoder,
    FocalFusionBranch,
    HeightAwareBranch,
    ImageBEVBranch,
    ImageBranch,
    MeanVoxelEncoder,
    PointBranch,
    SparseConvBranch,
    SparseEncoder,
)
from sparse3d.models.bev.scatter import lay_out
from sparse3d_ops.sparse import SparseModule
from sparse3d_ops.sparse.modules import Convolution

from .autoware_graph import PluginConvolution, PluginGraph
from .camera_graph import CameraGraph, camera_inputs
from .coord_inputs import CoordIndexing
from .folding import fold_dense
from .frame_graph import FrameGraph, frame_inputs
from .fusion_graph import FusionGraph, fusion_inputs
from .inputs import DescribedPoints, MeanPoints, PointInputs, tree_of
from .look_graph import LookGraph, look_inputs
from .manifest import AUTOWARE, PLAIN
from .map_graph import MapGraph
from .named import Named, Preparation
from .outputs import OUTPUTS, Outputs
from .region_graph import BoxGraph, ImageGraph, QueryGraph, region_inputs
from .sensor_scan import CameraScan
from .set_inputs import SetIndexing, stages_of
from .sparse_graph import Piece, SparseGraph, Surveyor, TableConvolution, cut
from .table_inputs import Segment, TableIndexing

MAX_PILLARS, MAX_VOXELS, MAX_POINTS = 40_000, 120_000, 500_000
BRANCHES = (
    (PointBranch, type(None)),
    (SparseConvBranch, type(None)),
    (type(None), ImageBEVBranch),
    (type(None), ImageBranch),
    (HeightAwareBranch, DepthAwareImageBranch),
    (type(None), DetectorBranch),
    (FocalFusionBranch, ImageBranch),
)
PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "int8": torch.float32}  # of the graph as traced


@dataclass(frozen=True)
class Plan:
    """What is exported of a detector.

    Args:
        prepare: how a scan becomes inputs.
        graphs: the graphs, in the order in which they run.
        outputs: what the last one's outputs mean.
        dialect: which operators they are made of, one of ``DIALECTS``.
    """

    prepare: Preparation
    graphs: list[nn.Module]
    outputs: Outputs
    dialect: str = PLAIN


def plan(
    detector: Detector3D,
    precision: str = "fp32",
    max_voxels: int | None = None,
    max_points: int | None = None,
    dialect: str = PLAIN,
    scan: CameraScan | None = None,
) -> Plan:
    """Return what is exported of a detector, made of copies of its modules.

    Args:
        detector: of LiDAR, of cameras, or of both.
        precision: ``"fp32"``, ``"fp16"``, or ``"int8"``, whose graph is quantised once it is written.
        max_voxels: voxels of a scan at most; None takes 40,000 for pillars and 120,000 for voxels, or what the grid
            has if that is less.
        max_points: points of a scan inside of the grid at most, where a graph reads points; None takes 500,000, which
            is well above ten sweeps of nuScenes (about 300,000).
        dialect: ``"plain"``, standard operators, or ``"autoware"``, sparse convolutions as nodes of Autoware's plugins.
        scan: of the number of cameras and the size that a detector that sees images is exported for.

    Raises:
        ValueError: if a part of the detector has no way into a graph yet; it is named.
    """
    check_parts(detector)
    detector, dtype = deepcopy(detector).eval(), PRECISIONS[precision]
    if detector.point_branch is None:
        return _plan_cameras(detector, precision, dialect, scan)
    grid = detector.point_branch.grid
    voxels = max_voxels or min(prod(grid.shape), MAX_PILLARS if grid.shape[0] == 1 else MAX_VOXELS)
    fold_dense(detector)
    if detector.image_branch is not None:
        scan = _check_images(precision, dialect, scan)
        looks = type(detector.point_branch) is FocalFusionBranch
        return (_plan_looks if looks else _plan_fusion)(detector, dtype, voxels, scan)
    if type(detector.point_branch) is SparseConvBranch:
        return _plan_plugin(detector, dtype, voxels) if dialect == AUTOWARE else _plan_tables(detector, dtype, voxels)
    if dialect == AUTOWARE:
        raise ValueError(
            "export: the dialect of Autoware's plugins is one of sparse convolutions; this detector has none"
        )
    return _plan_sets(detector, dtype, voxels, max_points or MAX_POINTS)


def check_parts(detector: Detector3D) -> None:
    """Raise ``ValueError`` for a detector with a part that cannot be exported."""
    if type(detector.head).__name__ not in OUTPUTS:
        raise ValueError(f"export: head is a {type(detector.head).__name__}; known are {', '.join(OUTPUTS)}")
    branch, found = detector.point_branch, (type(detector.point_branch), type(detector.image_branch))
    if found not in BRANCHES:
        names = " and ".join(each.__name__ for each in found if each is not type(None))
        raise ValueError(f"export: a detector of {names} has no way into a graph yet")
    if branch is None:
        boxes_2d = getattr(detector.image_branch, "detector", None)
        if boxes_2d is not None and type(boxes_2d) is not FasterRCNN:
            raise ValueError(f"export: the 2D detector is a {type(boxes_2d).__name__}; known is FasterRCNN")
        return
    sparse = isinstance(branch, SparseConvBranch)
    parts = [
        ("voxel_encoder", branch.voxel_encoder, (MeanVoxelEncoder,) if sparse else (DynamicVoxelEncoder,)),
        ("backbone", branch.backbone, (SparseEncoder, FocalEncoder) if sparse else (DSVT, type(None))),
    ]
    for name, module, known in parts:
        if type(module) not in known:
            names = ", ".join(each.__name__ for each in known)
            raise ValueError(f"export: {name} is a {type(module).__name__}; known are {names}")


# -- pillars and DSVT --------------------------------------------------------------------------------------------------


class SetGraph(nn.Module):
    """Encoder, transformer, map and head.

    Args:
        detector: in eval mode; the graph takes over its modules and casts them.
        dtype: of everything behind the encoder.
    """

    def __init__(self, detector: Detector3D, dtype: torch.dtype) -> None:
        super().__init__()
        branch = detector.point_branch
        self.dtype = dtype
        self.encoder = branch.voxel_encoder
        self.backbone = None if branch.backbone is None else branch.backbone.to(dtype)
        self.bev_shape = branch.grid.bev_shape
        self.map_graph = MapGraph(detector.point_branch.bev_backbone, detector.head, dtype)

    def forward(self, named: Named) -> Named:
        """Run everything between the tensors of ``PointInputs`` and those of the head's outputs."""
        features = self.encoder.encode(named["point_descriptors"], tree_of(named)).to(self.dtype)
        if self.backbone is not None:
            volumes = [stage.volume for stage in self.backbone.specs]
            features = self.backbone.run(features, stages_of(named, volumes))
        return self.map_graph(lay_out(features, named["bev_cells"].long(), 1, self.bev_shape))


def _plan_sets(detector: Detector3D, dtype: torch.dtype, max_voxels: int, max_points: int) -> Plan:
    encoder, backbone = detector.point_branch.voxel_encoder, detector.point_branch.backbone
    scales = None if encoder.scales is None else tuple(encoder.scales.tolist())
    stages = () if backbone is None else tuple(stage.index_part for stage in backbone.specs)
    prepare = PointInputs(
        grid=detector.head.grid,
        num_features=encoder.num_features,
        max_voxels=max_voxels,
        keep_outside_z=detector.data_preprocessor.keep_outside_z,
        encoding=DescribedPoints(max_points, encoder.with_distance, scales),
        indexing=SetIndexing(detector.head.grid, max_voxels, stages),
    )
    graph = SetGraph(detector, dtype).eval()
    return Plan(prepare, [graph], graph.map_graph.outputs)


# -- sparse convolutions -----------------------------------------------------------------------------------------------


@torch.no_grad()
def _plan_tables(detector: Detector3D, dtype: torch.dtype, max_voxels: int) -> Plan:
    points, make, pieces = _tables(detector, max_voxels)
    end = MapGraph(detector.point_branch.bev_backbone, detector.head, dtype)
    ends = [(None, None)] * (len(pieces) - 1) + [(end, detector.point_branch.backbone.out_shape)]
    graphs = [
        SparseGraph(piece, make, dtype, number == 0, *tail).eval()
        for number, (piece, tail) in enumerate(zip(pieces, ends, strict=True))
    ]
    return Plan(points, graphs, end.outputs)


def _tables(
    detector: Detector3D, max_voxels: int
) -> tuple[PointInputs, Callable[[Convolution], SparseModule], list[Piece]]:
    """Return how points become inputs, what a convolution becomes in a graph, and the pieces of the encoder."""
    encoder = detector.point_branch.backbone
    pieces = cut(encoder)
    surveyor, segments = _survey(detector, pieces)
    points = _mean_inputs(detector, TableIndexing(encoder.spatial_shape, max_voxels, segments))
    return points, lambda each: TableConvolution(each, surveyor.table_of[each]), pieces


@torch.no_grad()
def _plan_plugin(detector: Detector3D, dtype: torch.dtype, max_voxels: int) -> Plan:
    pieces = cut(detector.point_branch.backbone)
    if len(pieces) > 1:
        raise ValueError("export: voxels that grow (Focals Conv) have no way into a graph of Autoware's plugins")
    surveyor, segments = _survey(detector, pieces)
    indexing = TableIndexing(detector.point_branch.backbone.spatial_shape, max_voxels, segments)
    end = MapGraph(detector.point_branch.bev_backbone, detector.head, dtype)
    shape = detector.point_branch.backbone.out_shape
    graph = SparseGraph(
        pieces[0], lambda each: PluginConvolution(each, surveyor.table_of[each]), dtype, True, end, shape
    )
    prepare = _mean_inputs(detector, CoordIndexing(max_voxels))
    return Plan(prepare, [PluginGraph(graph, indexing).eval()], end.outputs, AUTOWARE)


def _survey(detector: Detector3D, pieces: list[Piece]) -> tuple[Surveyor, tuple[Segment, ...]]:
    surveyor = Surveyor(detector.point_branch.backbone.spatial_shape)
    return surveyor, tuple(surveyor.survey(piece) for piece in pieces)


def _mean_inputs(detector: Detector3D, indexing: TableIndexing | CoordIndexing) -> PointInputs:
    encoder = detector.point_branch.voxel_encoder
    return PointInputs(
        grid=detector.head.grid,
        num_features=encoder.num_features,
        max_voxels=indexing.max_voxels,
        keep_outside_z=detector.data_preprocessor.keep_outside_z,
        encoding=MeanPoints(encoder.max_points),
        indexing=indexing,
    )


# -- cameras -----------------------------------------------------------------------------------------------------------


def _plan_cameras(detector: Detector3D, precision: str, dialect: str, scan: CameraScan | None) -> Plan:
    scan, dtype = _check_images(precision, dialect, scan), PRECISIONS[precision]
    if type(detector.image_branch) is DetectorBranch:
        return _plan_regions(detector, dtype, scan)
    if type(detector.image_branch) is ImageBranch:
        return _plan_frames(detector, dtype, scan)
    prepare = camera_inputs(detector, scan)
    fold_dense(detector)
    graph = CameraGraph(detector, dtype).eval()
    return Plan(prepare, [graph], graph.map_graph.outputs)


def _plan_frames(detector: Detector3D, dtype: torch.dtype, scan: CameraScan) -> Plan:
    prepare = frame_inputs(detector, scan)
    fold_dense(detector)
    graph = FrameGraph(detector, prepare.images.input_size, dtype).eval()
    return Plan(prepare, [graph], graph.outputs)


def _plan_regions(detector: Detector3D, dtype: torch.dtype, scan: CameraScan) -> Plan:
    prepare = region_inputs(detector, scan)
    fold_dense(detector)
    outputs, by_cells = OUTPUTS["MV2DHead"].of(detector.head), detector.head.by_cells
    images, boxes = ImageGraph(detector, dtype), BoxGraph(detector)
    return Plan(prepare, [images.eval(), boxes.eval(), QueryGraph(detector, by_cells=by_cells).eval()], outputs)


# -- points and cameras ------------------------------------------------------------------------------------------------


def _plan_looks(detector: Detector3D, dtype: torch.dtype, max_voxels: int, scan: CameraScan) -> Plan:
    encoder = _plan_tables(detector, dtype, max_voxels)
    prepare = look_inputs(detector, encoder.prepare, scan)
    return replace(encoder, prepare=prepare, graphs=[LookGraph(detector, dtype).eval(), *encoder.graphs])


@torch.no_grad()
def _plan_fusion(detector: Detector3D, dtype: torch.dtype, max_voxels: int, scan: CameraScan) -> Plan:
    points, make, (piece,) = _tables(detector, max_voxels)
    prepare = fusion_inputs(detector, points, scan)
    encoder = SparseGraph(piece, make, dtype, True, None, detector.point_branch.backbone.out_shape)
    graph = FusionGraph(encoder, detector, prepare.images.input_size, dtype).eval()
    return Plan(prepare, [graph], graph.outputs)


def _check_images(precision: str, dialect: str, scan: CameraScan | None) -> CameraScan:
    if precision == "int8" or dialect != PLAIN:
        raise ValueError(f"export: cameras take fp32 or fp16 and standard operators, got {precision}, {dialect}")
    if scan is None:
        raise ValueError("export: a camera detector is exported for the number and size of the images of a scan")
    return scan
