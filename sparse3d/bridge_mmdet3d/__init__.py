"""The bridge to mmdetection3d 1.4: components of either in configs of the other; boxes and samples both ways.

Nothing else of sparse3d imports this package. A config of either side loads it with

    custom_imports = dict(imports=["sparse3d.bridge_mmdet3d"])

Info files need none of this: see `datasets/infos.py` and `datasets/infos_writing.py`.
"""

try:
    import mmdet3d  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"sparse3d.bridge_mmdet3d needs mmdetection3d 1.4: {error}. docs/bridge_mmdet3d.md says how to install it, "
        "in short: pip install --no-build-isolation --no-deps mmcv==2.1.0; "
        "pip install --no-deps mmdet==3.3.0 mmdet3d==1.4.0"
    ) from error

from .in_mmdet3d import ENCODER_NAMES, BridgedDetector, PackedDataset, PillarMiddleEncoder, SparseMiddleEncoder
from .of_mmdet3d import MMDet3DBEVBackbone, MMDet3DHead
from .structures import (
    boxes_from_mmdet3d,
    boxes_to_mmdet3d,
    detections_from_mmdet3d,
    detections_to_mmdet3d,
    pack,
    to_data_sample,
    unpack,
)

__all__ = [
    "ENCODER_NAMES",
    "BridgedDetector",
    "MMDet3DBEVBackbone",
    "MMDet3DHead",
    "PackedDataset",
    "PillarMiddleEncoder",
    "SparseMiddleEncoder",
    "boxes_from_mmdet3d",
    "boxes_to_mmdet3d",
    "detections_from_mmdet3d",
    "detections_to_mmdet3d",
    "pack",
    "to_data_sample",
    "unpack",
]
