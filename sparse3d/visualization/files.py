"""Files that are never seen half written."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np


def save_image(path: str | Path, image: np.ndarray) -> None:
    """Write an image.

    Args:
        path: its suffix chooses the format (``.png``, ``.jpg``); missing folders are made.
        image: ``[H, W, 3]`` uint8 RGB.

    Raises:
        ValueError: if the image is of another shape or type, or the suffix is unknown.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise ValueError(f"save_image: image must be [H, W, 3] uint8, got {list(image.shape)} {image.dtype}")
    suffix = Path(path).suffix
    if not suffix or not cv2.haveImageWriter(f"image{suffix}"):
        raise ValueError(f"save_image: no image format is called {suffix!r} (path {path}); use .png or .jpg")
    _, data = cv2.imencode(suffix, np.ascontiguousarray(image[..., ::-1]))
    write_file(path, data.tobytes())


def write_file(path: str | Path, data: bytes) -> None:
    """Write ``data`` beside its final place, then move it there; missing folders are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_bytes(data)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
