"""Data sets: from raw tables to an index, and from the index to samples."""

from .index import FrameIndex, write_index
from .infos import read_mmdet3d_infos
from .nuscenes import NuScenesDataset, SampleError
from .sampling import DefaultSampler, Draw, InfiniteSampler

__all__ = [
    "DefaultSampler",
    "Draw",
    "FrameIndex",
    "InfiniteSampler",
    "NuScenesDataset",
    "SampleError",
    "read_mmdet3d_infos",
    "write_index",
]
