"""The cameras of a batch as rotations, shifts and focal lengths: where points appear, and where pixels lie.

    (u d, v d, d) = K (R p + t)        p = Rᵀ (K⁻¹ (u d, v d, d) - t)

R is orthogonal and K has positive focal lengths, whatever augmentation did before:

    a scaled world    lidar2cam = [R / s | t] becomes [R | s t]: depths are in metres of the scaled world
    a mirrored image  its K = K' F with F = diag(-1, 1, 1) becomes K', and [R | t] becomes F [R | t]

The level frame of a camera has x to its right, y ahead of it and z up: (x, z, -y) of the usual camera frame. A box in
it is a box like any other (`Boxes3D`).

A camera that a sample lacks (see `LoadCameras`) has R = 0 and an image of no size: no point appears in it, and its
pixels all lie in the origin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparse3d.structures import Cameras
from sparse3d.structures.cameras import MIN_DEPTH

LEVEL = ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, -1.0, 0.0))  # usual camera frame -> level frame


@dataclass(frozen=True)
class CameraGeometry:
    """N cameras of each of B samples.

    Args:
        rotations: R ``[B, N, 3, 3]``, LiDAR -> camera (x right, y down, z ahead).
        shifts: t ``[B, N, 3]`` in metres.
        intrinsics: K ``[B, N, 3, 3]`` in pixels of the network's input.
        sizes: ``[B, N, 2]`` ``(height, width)`` of the images without padding, in pixels.
        image_size: ``(height, width)`` of the network's input, padding included.
    """

    rotations: Tensor
    shifts: Tensor
    intrinsics: Tensor
    sizes: Tensor
    image_size: tuple[int, int]

    @classmethod
    def of(
        cls, cameras: Sequence[Cameras], image_size: tuple[int, int], dtype: torch.dtype = torch.float32
    ) -> CameraGeometry:
        """Bring the rigs of B samples to this form.

        Raises:
            ValueError: if there is no rig, or the numbers of cameras differ.
        """
        counts = sorted({len(rig) for rig in cameras})
        if len(counts) != 1:
            raise ValueError(f"cameras: expected rigs of as many cameras each, got {counts or 'none'}")
        lidar2cam = torch.stack([rig.lidar2cam for rig in cameras])[..., :3, :]
        intrinsics = torch.stack([rig.image_aug[:, :3, :3] @ rig.intrinsics for rig in cameras])
        scale = torch.linalg.det(lidar2cam[..., :3]).abs().pow(1 / 3)
        lidar2cam = lidar2cam / scale.where(scale > 0, 1)[..., None, None]
        signs = intrinsics.diagonal(dim1=-2, dim2=-1).sign()
        signs = signs.where(signs != 0, 1)
        lidar2cam, intrinsics = signs[..., :, None] * lidar2cam, intrinsics * signs[..., None, :]
        return cls(
            lidar2cam[..., :3].to(dtype),
            lidar2cam[..., 3].to(dtype),
            intrinsics.to(dtype),
            torch.stack([rig.image_sizes for rig in cameras]).to(dtype) * (scale > 0)[..., None],
            image_size,
        )

    def __getitem__(self, samples: slice) -> CameraGeometry:
        """Return the cameras of some samples."""
        return CameraGeometry(
            self.rotations[samples],
            self.shifts[samples],
            self.intrinsics[samples],
            self.sizes[samples],
            self.image_size,
        )

    @property
    def seeing(self) -> Tensor:
        """Return ``[B, N]``: the sample has this camera."""
        return (self.sizes > 0).all(dim=-1)

    def project(
        self,
        points: Tensor,  # [B, P, 3]
    ) -> tuple[Tensor, Tensor]:  # [B, N, P, 2], [B, N, P]
        """Return pixels ``(u, v)`` and depths in metres; what is not ahead of a camera is divided by 1e-5 m."""
        places = torch.einsum("bnij,bpj->bnpi", self.rotations, points) + self.shifts[:, :, None]
        pixels = torch.einsum("bnij,bnpj->bnpi", self.intrinsics, places)
        return pixels[..., :2] / pixels[..., 2:].clamp(min=MIN_DEPTH), pixels[..., 2]

    def inside(
        self,
        pixels: Tensor,  # [B, N, P, 2]
        depths: Tensor,  # [B, N, P]
    ) -> Tensor:  # [B, N, P]
        """Return whether what ``project`` found lies in the image, its upper and left edges included."""
        size = self.sizes.flip(-1)[:, :, None]
        return ((pixels >= 0) & (pixels < size)).all(dim=-1) & (depths > MIN_DEPTH)

    def rays(
        self,
        pixels: Tensor,  # [B, Q, 2]
        depths: Tensor,  # [B, Q, 1]
        views: Tensor,  # [B, Q]
    ) -> Tensor:  # [B, Q, 3]
        """Return where pixels of the given cameras lie at the given depths, in the level frames of those cameras."""
        intrinsics = select(self.intrinsics, views)
        (a, b), (c, d) = (row.unbind(-1) for row in intrinsics[..., :2, :2].unbind(-2))
        u, v = (pixels - intrinsics[..., :2, 2]).unbind(-1)
        slopes = torch.stack([d * u - b * v, a * v - c * u], dim=-1) / (a * d - b * c)[..., None]
        places = torch.cat([slopes * depths, depths], dim=-1)
        return places @ places.new_tensor(LEVEL).T

    def to_lidar(
        self,
        vectors: Tensor,  # [B, Q, 3]
        views: Tensor,  # [B, Q]
        places: bool,
    ) -> Tensor:  # [B, Q, 3]
        """Bring places, or directions, from the level frames of the given cameras to the LiDAR frame."""
        vectors = vectors @ vectors.new_tensor(LEVEL)
        if places:
            vectors = vectors - select(self.shifts, views)
        return torch.einsum("bqji,bqj->bqi", select(self.rotations, views), vectors)

    def hidden(self, shapes: Sequence[tuple[int, int]], stride: int) -> list[Tensor]:
        """Return for each level ``[B, N, H, W]``: the pixel lies beyond the image, where padding is.

        Args:
            shapes: ``(H, W)`` of each level, the first at ``stride``, each further one at twice the stride.
            stride: input pixels per pixel of the first level.
        """
        masks = []
        for number, (height, width) in enumerate(shapes):
            last = (self.sizes / stride / 2**number).floor()[..., None, None]
            rows, columns = (torch.arange(count, device=self.sizes.device) for count in (height, width))
            masks.append((rows[:, None] >= last[:, :, 0]) | (columns >= last[:, :, 1]))
        return masks


def select(values: Tensor, views: Tensor) -> Tensor:
    """Return ``values`` ``[B, N, ...]`` of the given cameras ``[B, Q]`` as ``[B, Q, ...]``."""
    return values[torch.arange(len(views), device=views.device)[:, None], views]
