"""Kernels of sparse 3D perception on plain tensors: torch and numba only.

Every operation is one public function that dispatches by the device of its tensors, and has a twin in plain torch,
``<name>_reference`` in the same file: the definition, the oracle of the tests, and the path of devices other than the
CPU.
"""

from . import _waiting  # noqa: F401
from .boxes import (
    count_points_in_boxes,
    iou_3d,
    iou_3d_paired,
    iou_bev,
    nms_bev,
    points_in_boxes,
    points_in_boxes_mask,
)
from .boxes_2d import giou_2d, giou_2d_paired, iou_2d, nms_2d
from .circle_nms import nms_circle
from .coords import bev_cells, lookup, num_cells, pack, unique, unpack
from .deform_conv import deform_conv2d
from .deformable import deformable_attention
from .descriptors import describe_points
from .means import mean_points
from .roi_align import roi_align
from .sampling import FeatureMaps, sample_views
from .segment import Segments, segment_gather, segment_max, segment_mean, segment_sum
from .segment_tree import SegmentTree
from .sets import (
    LayoutIndex,
    Pooling,
    Sets,
    SetStage,
    StageIndex,
    WindowLayout,
    index_layout,
    index_stages,
    pool_voxels,
)
from .voxelize import HardVoxelization, Voxelization, grid_shape, voxelize, voxelize_hard
from .windows import SetPartition, Windows, partition_sets, partition_windows

__all__ = [
    "FeatureMaps",
    "HardVoxelization",
    "LayoutIndex",
    "Pooling",
    "SegmentTree",
    "Segments",
    "SetPartition",
    "SetStage",
    "Sets",
    "StageIndex",
    "Voxelization",
    "WindowLayout",
    "Windows",
    "bev_cells",
    "count_points_in_boxes",
    "deform_conv2d",
    "deformable_attention",
    "describe_points",
    "giou_2d",
    "giou_2d_paired",
    "grid_shape",
    "index_layout",
    "index_stages",
    "iou_2d",
    "iou_3d",
    "iou_3d_paired",
    "iou_bev",
    "lookup",
    "mean_points",
    "nms_2d",
    "nms_bev",
    "nms_circle",
    "num_cells",
    "pack",
    "partition_sets",
    "partition_windows",
    "points_in_boxes",
    "points_in_boxes_mask",
    "pool_voxels",
    "roi_align",
    "sample_views",
    "segment_gather",
    "segment_max",
    "segment_mean",
    "segment_sum",
    "unique",
    "unpack",
    "voxelize",
    "voxelize_hard",
]
