"""The objects of a batch as each camera sees them.

An object belongs to every camera whose image its centre lies in. Its box is given in the level frame of the camera
(`encoding/camera_geometry.py`), its extent in the image is that of its eight corners, cut off at the edges of it.

Source: SparseFusion (Xie et al., ICCV 2023), section 3.5, as in its published code.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparse3d.encoding.camera_geometry import LEVEL, CameraGeometry
from sparse3d.structures import Boxes3D
from sparse3d.structures.cameras import MIN_DEPTH

from .ground_truth import GroundTruth


@dataclass(frozen=True)
class CameraTruth:
    """M pairs of an object and a camera that sees it.

    Args:
        objects: ``[M]`` int64, rows of the ``GroundTruth``, ascending.
        views: ``[M]`` int64, the cameras.
        boxes: ``[M, 9]``, in the cameras' level frames.
        pixels: ``[M, 2]`` ``(u, v)`` of the centres.
        rectangles: ``[M, 4]`` ``(u0, v0, u1, v1)`` around the objects, in pixels.
        labels: ``[M]`` int64.
        batch_index: ``[M]`` int64, ascending.
    """

    objects: Tensor
    views: Tensor
    boxes: Boxes3D
    pixels: Tensor
    rectangles: Tensor
    labels: Tensor
    batch_index: Tensor

    @property
    def extents(self) -> Tensor:
        """Width and height ``[M, 2]`` in the image, in pixels."""
        return self.rectangles[:, 2:] - self.rectangles[:, :2]

    @classmethod
    def find(cls, truth: GroundTruth, cameras: CameraGeometry) -> CameraTruth:
        """Return what the cameras see of the objects."""
        owners = truth.batch_index
        rotations, shifts, intrinsics, sizes = (
            each[owners] for each in (cameras.rotations, cameras.shifts, cameras.intrinsics, cameras.sizes)
        )

        def project(points: Tensor) -> tuple[Tensor, Tensor]:  # [O, P, 3] -> [O, N, P, 3] in camera frames, pixels
            places = torch.einsum("onij,opj->onpi", rotations, points) + shifts[:, :, None]
            scaled = torch.einsum("onij,onpj->onpi", intrinsics, places)
            return places, scaled[..., :2] / scaled[..., 2:].clamp(min=MIN_DEPTH)

        places, pixels = (each[:, :, 0] for each in project(truth.boxes.centers[:, None]))
        image = sizes.flip(-1)
        seen = ((pixels >= 0) & (pixels < image)).all(dim=-1) & (places[..., 2] > MIN_DEPTH)
        objects, views = seen.nonzero().unbind(1)
        corners = project(truth.boxes.corners())[1][objects, views]
        last = image[objects, views]
        lowest, highest = (corner.clamp(min=0).minimum(last) for corner in (corners.amin(dim=1), corners.amax(dim=1)))
        return cls(
            objects,
            views,
            _turn(truth.boxes[objects], places[objects, views], rotations[objects, views]),
            pixels[objects, views],
            torch.cat([lowest, highest], dim=1),
            truth.labels[objects],
            owners[objects],
        )


def _turn(boxes: Boxes3D, places: Tensor, rotations: Tensor) -> Boxes3D:
    """Return boxes in level frames, at ``places`` ``[M, 3]`` of the usual camera frames."""
    level = places.new_tensor(LEVEL)
    turn = level @ rotations
    headings = torch.stack([boxes.yaws.cos(), boxes.yaws.sin()], dim=1)
    x, y = torch.einsum("mij,mj->mi", turn[:, :2, :2], headings).unbind(1)
    velocities = torch.einsum("mij,mj->mi", turn[:, :2, :2], boxes.velocities)
    return Boxes3D(torch.cat([places @ level.T, boxes.sizes, torch.atan2(y, x)[:, None], velocities], dim=1))
