"""What a detector is given of one moment: points, what cameras see, or both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparse3d.structures import Cameras
from sparse3d.structures.cameras import TENSORS


@dataclass(frozen=True)
class CameraScan:
    """What cameras see at one time.

    Args:
        images: ``[N, 3, H, W]`` uint8, red, green, blue, resized and cropped as in training.
        cameras: their calibration, resizing and cropping included; boxes stand in the frame that ``lidar2cam`` takes
            points of, which must be that of training (for MatrixVT the vehicle's).
    """

    images: Tensor
    cameras: Cameras


@dataclass(frozen=True)
class FusionScan(CameraScan):
    """What cameras see, and points of the same time.

    Args:
        points: ``[P, F]`` float32 with the columns of training, in the frame that ``lidar2cam`` takes points of.
    """

    points: Tensor


Scan = Tensor | CameraScan  # points [P, F] alone are a tensor
KINDS = {Tensor: "points", CameraScan: "images and their cameras", FusionScan: "points and images"}


def check_kind(scan: Any, kind: type) -> None:
    """Raise ``ValueError`` unless a scan is of a kind, one of ``KINDS``."""
    if not isinstance(scan, kind):
        raise ValueError(f"scan: expected a {kind.__name__}, {KINDS[kind]}, got a {type(scan).__name__}")


def scan_to_arrays(scan: Scan) -> dict[str, np.ndarray]:
    """Return what ``golden.npz`` holds of a scan."""
    if isinstance(scan, Tensor):
        return {"points": scan.numpy()}
    rig = {f"cameras/{name}": getattr(scan.cameras, name).numpy() for name in TENSORS}
    points = {"points": scan.points.numpy()} if isinstance(scan, FusionScan) else {}
    return {**points, "images": scan.images.numpy(), "cameras/names": np.array(scan.cameras.names), **rig}


def scan_from_arrays(arrays: Mapping[str, np.ndarray]) -> Scan:
    """Build from what ``scan_to_arrays`` returned."""
    points = torch.from_numpy(arrays["points"]) if "points" in arrays else None
    if "images" not in arrays:
        return points
    rig = {name: torch.from_numpy(arrays[f"cameras/{name}"]) for name in TENSORS}
    cameras = Cameras(names=tuple(arrays["cameras/names"].tolist()), **rig)
    images = torch.from_numpy(arrays["images"])
    return CameraScan(images, cameras) if points is None else FusionScan(images, cameras, points)
