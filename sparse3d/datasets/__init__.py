"""Data sets: from raw tables to an index, and from the index to samples."""

from .frame_dataset import FrameDataset, SampleError
from .index import FrameIndex, write_index
from .infos import read_mmdet3d_infos
from .infos_writing import write_mmdet3d_infos
from .nuscenes import NuScenesDataset
from .object_database import ObjectDatabase
from .sampling import DefaultSampler, Draw, InfiniteSampler
from .skipped import SkippedSamplesHook, skipped_samples
from .waymo import WaymoDataset

__all__ = [
    "DefaultSampler",
    "Draw",
    "FrameDataset",
    "FrameIndex",
    "InfiniteSampler",
    "NuScenesDataset",
    "ObjectDatabase",
    "SampleError",
    "SkippedSamplesHook",
    "WaymoDataset",
    "read_mmdet3d_infos",
    "skipped_samples",
    "write_index",
    "write_mmdet3d_infos",
]
