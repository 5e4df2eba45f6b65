"""Transforms: callables ``(Sample, numpy Generator) -> Sample`` that return a changed copy of what they were given."""

from .compose import Compose, UntilEpoch, build_pipeline, build_transform
from .depth_maps import MakeDepthMaps
from .geometry import RandomFlip, RandomRotate, RandomScale, RandomTranslate, move_world
from .gt_paste import PasteGroundTruth
from .images import (
    CropImages,
    DistortColours,
    FlipImages,
    ResizeImages,
    RotateImages,
    move_images,
    warp_image,
)
from .keypoints import RemoveUnlabelledPeople
from .loading import LoadAnnotations, LoadCameras, LoadImages, LoadPoints, frame_cameras, read_points
from .object_moves import RandomObjectMoves
from .selection import RangeFilter, ShufflePoints, select_instances
from .vehicle_frame import ToVehicleFrame
from .waymo import LoadWaymoPoints
from .zoom import MarkVisible, MirrorImagesWithWorld, ZoomImages

__all__ = [
    "Compose",
    "CropImages",
    "DistortColours",
    "FlipImages",
    "LoadAnnotations",
    "LoadCameras",
    "LoadImages",
    "LoadPoints",
    "LoadWaymoPoints",
    "MakeDepthMaps",
    "MarkVisible",
    "MirrorImagesWithWorld",
    "PasteGroundTruth",
    "RandomFlip",
    "RandomObjectMoves",
    "RandomRotate",
    "RandomScale",
    "RandomTranslate",
    "RangeFilter",
    "RemoveUnlabelledPeople",
    "ResizeImages",
    "RotateImages",
    "ShufflePoints",
    "ToVehicleFrame",
    "UntilEpoch",
    "ZoomImages",
    "build_pipeline",
    "build_transform",
    "frame_cameras",
    "move_images",
    "move_world",
    "read_points",
    "select_instances",
    "warp_image",
]
