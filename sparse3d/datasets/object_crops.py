"""Image crops of objects: what paste puts into the images along with the points.

A crop is what lies in the box that an object appears in (`structures/image_objects.py`), as JPEG, with its place in the
image as recorded. Rigs hardly differ between scenes, so an object that keeps its place in the LiDAR frame keeps it in
the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from ..structures import Boxes3D, Cameras, Sample
from ..structures.image_objects import objects_in_images

QUALITY = 95
CROPS = pa.list_(
    pa.struct({"camera": pa.string(), "left": pa.int32(), "top": pa.int32(), "jpeg": pa.binary()})
)  # of an object, at most one a camera


@dataclass(frozen=True)
class Appearances:
    """Where objects appear in images.

    Args:
        rectangles: ``[C, N, 4]`` int64 ``(x1, y1, x2, y2)``, whole pixels; empty where an object does not appear.
        depths: ``[C, N]`` of the objects' centres in metres.
        appears: ``[C, N]``.
    """

    rectangles: Tensor
    depths: Tensor
    appears: Tensor

    @classmethod
    def find(cls, boxes: Boxes3D, cameras: Cameras) -> Appearances:
        """Return where boxes appear in the images of cameras."""
        found, appears = objects_in_images(boxes, cameras)
        size = cameras.image_sizes.to(found).flip(-1)[:, None]  # [C, 1, 2] width, height
        low, high = found[..., :2].floor().clamp(min=0), torch.minimum(found[..., 2:].ceil(), size)  # rounding apart
        depths = cameras.project(boxes.centers)[1]
        return cls(torch.cat([low, high], dim=-1).long(), depths, appears)


def cut_crops(sample: Sample) -> list[list[dict[str, Any]]]:
    """Return the crops of each object of a sample with ``images`` as recorded, one list an object."""
    seen = Appearances.find(sample.gt.boxes, sample.cameras)
    crops: list[list[dict[str, Any]]] = [[] for _ in range(len(sample.gt.boxes))]
    for camera, row in seen.appears.nonzero().tolist():
        left, top, right, bottom = seen.rectangles[camera, row].tolist()
        pixels = sample.images[camera][:, top:bottom, left:right].numpy()
        name = sample.cameras.names[camera]
        crops[row].append(dict(camera=name, left=left, top=top, jpeg=encode(pixels)))
    return crops


def encode(pixels: np.ndarray) -> bytes:
    """Return ``[3, H, W]`` uint8 RGB as JPEG."""
    bgr = np.ascontiguousarray(pixels.transpose(1, 2, 0)[..., ::-1])
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()


def decode(jpeg: bytes) -> np.ndarray:
    """Return the pixels ``[3, H, W]`` uint8 RGB of a crop."""
    bgr = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    return np.ascontiguousarray(bgr[..., ::-1].transpose(2, 0, 1))


def paste_crops(
    images: Sequence[Tensor],  # C times [3, H, W]
    cameras: Cameras,
    boxes: Boxes3D,
    crops: Sequence[Sequence[dict[str, Any]]],
) -> list[Tensor]:
    """Paste the crops of the last objects into images, the farther ones first.

    Objects of the scene that are nearer than a pasted one are painted over it again, so what is in front stays there.

    Args:
        images: uint8, as recorded; they are left as they are.
        cameras: of the images.
        boxes: N objects: those of the scene, then the pasted ones.
        crops: of each pasted object.

    Returns:
        The new images.
    """
    seen, own = Appearances.find(boxes, cameras), len(boxes) - len(crops)
    places = [{crop["camera"]: crop for crop in each} for each in crops]
    return [_paste(image, own, seen, camera, cameras.names[camera], places) for camera, image in enumerate(images)]


def _paste(
    image: Tensor, own: int, seen: Appearances, camera: int, name: str, places: Sequence[dict[str, Any]]
) -> Tensor:
    painted = image.clone()
    for row in seen.depths[camera].argsort(descending=True).tolist():
        if row < own and seen.appears[camera, row]:
            left, top, right, bottom = seen.rectangles[camera, row].tolist()
            painted[:, top:bottom, left:right] = image[:, top:bottom, left:right]
        elif row >= own and name in places[row - own]:
            crop = places[row - own][name]
            room = painted[:, crop["top"] :, crop["left"] :]
            pixels = torch.from_numpy(decode(crop["jpeg"]))[:, : room.shape[1], : room.shape[2]]
            room[:, : pixels.shape[1], : pixels.shape[2]] = pixels
    return painted
