"""Data sets: from raw tables to an index, and from the index to samples."""

from .index import FrameIndex, write_index
from .infos import read_mmdet3d_infos
from .nuscenes import NuScenesDataset, SampleError
from .object_database import ObjectDatabase
from .sampling import DefaultSampler, Draw, InfiniteSampler
from .skipped import SkippedSamplesHook, skipped_samples

__all__ = [
    "DefaultSampler",
    "Draw",
    "FrameIndex",
    "InfiniteSampler",
    "NuScenesDataset",
    "ObjectDatabase",
    "SampleError",
    "SkippedSamplesHook",
    "read_mmdet3d_infos",
    "skipped_samples",
    "write_index",
]
