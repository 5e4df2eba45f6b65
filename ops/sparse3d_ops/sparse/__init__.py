"""Sparse convolution and pooling in two and three dimensions: tensors, functions, modules, backends."""

from .backends import use_backend
from .functional import avg_pool, inverse_conv, max_pool, sparse_conv, sparse_conv_transpose, submanifold_conv
from .geometry import Geometry
from .growth import OFFSETS as FOCAL_OFFSETS
from .growth import FocalGrowth
from .kernel_map import KernelMap
from .modules import (
    SparseAvgPool2d,
    SparseAvgPool3d,
    SparseConv2d,
    SparseConv3d,
    SparseConvTranspose2d,
    SparseConvTranspose3d,
    SparseInverseConv2d,
    SparseInverseConv3d,
    SparseMaxPool2d,
    SparseMaxPool3d,
    SparseModule,
    SparseSequential,
    SubMConv2d,
    SubMConv3d,
)
from .sites import Sites
from .tensor import SparseTensor, union

__all__ = [
    "FOCAL_OFFSETS",
    "FocalGrowth",
    "Geometry",
    "KernelMap",
    "Sites",
    "SparseAvgPool2d",
    "SparseAvgPool3d",
    "SparseConv2d",
    "SparseConv3d",
    "SparseConvTranspose2d",
    "SparseConvTranspose3d",
    "SparseInverseConv2d",
    "SparseInverseConv3d",
    "SparseMaxPool2d",
    "SparseMaxPool3d",
    "SparseModule",
    "SparseSequential",
    "SparseTensor",
    "SubMConv2d",
    "SubMConv3d",
    "avg_pool",
    "inverse_conv",
    "max_pool",
    "sparse_conv",
    "sparse_conv_transpose",
    "submanifold_conv",
    "union",
    "use_backend",
]
