"""What flows through everything: grid, boxes, cameras, frames, samples, batches and detections.

``Sample`` and ``InstanceData`` are mmengine's kind of data. They are imported when they are first asked for, so that a
deployed model, which has no samples, needs no mmengine.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .batch import Batch, Voxels
from .boxes import Boxes3D
from .cameras import Cameras
from .detections import Detections
from .frame import Annotations, CameraImage, Frame, LidarScan, WaymoLabels
from .grid import Grid

if TYPE_CHECKING:
    from .sample import InstanceData, Sample

__all__ = [
    "Annotations",
    "Batch",
    "Boxes3D",
    "CameraImage",
    "Cameras",
    "Detections",
    "Frame",
    "Grid",
    "InstanceData",
    "LidarScan",
    "Sample",
    "Voxels",
    "WaymoLabels",
]


def __getattr__(name: str) -> Any:
    if name in ("InstanceData", "Sample"):
        return getattr(import_module(".sample", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
