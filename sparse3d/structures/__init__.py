"""What flows through everything: grid, boxes, cameras, frames, samples and batches."""

from .boxes import Boxes3D
from .cameras import Cameras
from .frame import Annotations, CameraImage, Frame, LidarScan
from .grid import Grid
from .sample import Batch, InstanceData, Sample, Voxels

__all__ = [
    "Annotations",
    "Batch",
    "Boxes3D",
    "CameraImage",
    "Cameras",
    "Frame",
    "Grid",
    "InstanceData",
    "LidarScan",
    "Sample",
    "Voxels",
]
