"""Boxes3D: oriented boxes, and every conversion between the box conventions of the field.

    box = [x, y, z, l, w, h, yaw(, vx, vy)]     gravity centre, metres, radians, yaw counter-clockwise from +x

A corner is `centre + R(yaw) (±l/2, ±w/2, ±h/2)`. Velocities are in m/s in the frame of the box.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

BOX_DIM = 7
BOX_DIM_WITH_VELOCITY = 9

# Signs (along l, w, h) of the corners in the order of the nuScenes devkit: the front face first, then the back face.
CORNER_SIGNS = (
    (1, 1, 1), (1, -1, 1), (1, -1, -1), (1, 1, -1),
    (-1, 1, 1), (-1, -1, 1), (-1, -1, -1), (-1, 1, -1),
)  # fmt: skip
# Pairs of corners that an edge connects: front face, back face, and the four edges along the heading.
EDGES = ((0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7))


class Boxes3D:
    """A set of oriented 3D boxes; operations return new sets.

    Args:
        data: ``[N, 7]`` ``(x, y, z, l, w, h, yaw)`` or ``[N, 9]`` with ``(vx, vy)`` appended; anything that
            ``torch.as_tensor`` takes. Integers become float32.

    Raises:
        ValueError: if the shape is another one.
    """

    def __init__(self, data: Tensor | np.ndarray | Sequence[Sequence[float]]) -> None:
        tensor = torch.as_tensor(data)
        if not tensor.is_floating_point():
            tensor = tensor.float()
        if tensor.ndim != 2 or tensor.shape[1] not in (BOX_DIM, BOX_DIM_WITH_VELOCITY):
            if tensor.numel():
                raise ValueError(f"Boxes3D: expected [N, 7] or [N, 9], got {tuple(tensor.shape)}")
            tensor = tensor.reshape(0, BOX_DIM)
        self.tensor = tensor

    # -- parts -------------------------------------------------------------------------------------------------------

    @property
    def centers(self) -> Tensor:
        """Gravity centres ``[N, 3]`` in metres."""
        return self.tensor[:, :3]

    @property
    def sizes(self) -> Tensor:
        """Length, width, height ``[N, 3]`` in metres."""
        return self.tensor[:, 3:6]

    @property
    def yaws(self) -> Tensor:
        """Headings ``[N]`` in radians."""
        return self.tensor[:, 6]

    @property
    def has_velocity(self) -> bool:
        """Whether the boxes carry a velocity."""
        return self.tensor.shape[1] == BOX_DIM_WITH_VELOCITY

    @property
    def velocities(self) -> Tensor:
        """Velocities ``[N, 2]`` in m/s; NaN where the boxes carry none."""
        if self.has_velocity:
            return self.tensor[:, 7:9]
        return self.tensor.new_full((len(self), 2), math.nan)

    @property
    def bev(self) -> Tensor:
        """Rectangles seen from above ``[N, 5]``: ``(x, y, l, w, yaw)``."""
        return self.tensor[:, [0, 1, 3, 4, 6]]

    @property
    def volumes(self) -> Tensor:
        """Volumes ``[N]`` in cubic metres."""
        return self.sizes.prod(dim=1)

    def corners(self) -> Tensor:
        """Corners ``[N, 8, 3]`` in the order of ``CORNER_SIGNS`` (front face first)."""
        signs = self.tensor.new_tensor(CORNER_SIGNS)
        local = signs * self.sizes[:, None, :] / 2
        return local @ _yaw_matrices(self.yaws).transpose(1, 2) + self.centers[:, None, :]

    # -- movements of the world --------------------------------------------------------------------------------------

    def rotate(self, angle: float) -> Boxes3D:
        """Turn the world about the z axis, counter-clockwise, by ``angle`` radians."""
        turn = _yaw_matrices(self.tensor.new_tensor([angle]))[0]
        parts = [self.centers @ turn.T, self.sizes, (self.yaws + angle)[:, None]]
        if self.has_velocity:
            parts.append(self.velocities @ turn[:2, :2].T)
        return Boxes3D(torch.cat(parts, dim=1))

    def flip(self, axis: str) -> Boxes3D:
        """Mirror the world: ``axis="x"`` negates x, ``axis="y"`` negates y."""
        if axis not in ("x", "y"):
            raise ValueError(f"Boxes3D.flip: axis must be 'x' or 'y', got {axis!r}")
        tensor = self.tensor.clone()
        column = "xy".index(axis)
        tensor[:, column] = -tensor[:, column]
        tensor[:, 6] = math.pi - tensor[:, 6] if axis == "x" else -tensor[:, 6]
        if self.has_velocity:
            tensor[:, 7 + column] = -tensor[:, 7 + column]
        return Boxes3D(tensor)

    def scale(self, factor: float) -> Boxes3D:
        """Scale the world about its origin; velocities scale with it."""
        scales = self.tensor.new_full((self.tensor.shape[1],), factor)
        scales[6] = 1
        return Boxes3D(self.tensor * scales)

    def translate(self, offset: Sequence[float] | Tensor) -> Boxes3D:
        """Move the world by ``offset`` ``(x, y, z)`` metres."""
        tensor = self.tensor.clone()
        tensor[:, :3] += torch.as_tensor(offset).to(tensor)
        return Boxes3D(tensor)

    def transform(self, matrix: Tensor | np.ndarray) -> Boxes3D:
        """Express the boxes in another frame.

        Args:
            matrix: 4x4 similarity ``this frame -> other frame``; sizes and velocities are scaled with the world. Boxes
                stay upright: a box's heading in the new frame is the direction of its x axis seen from above, roll and
                pitch are dropped (nuScenes' convention).
        """
        pose = torch.as_tensor(matrix)
        scale = float(torch.linalg.det(pose[:3, :3].double()).abs() ** (1 / 3))
        pose = pose.to(self.tensor)
        turn = pose[:3, :3]
        heading = torch.stack([self.yaws.cos(), self.yaws.sin(), torch.zeros_like(self.yaws)], dim=1) @ turn.T
        yaws = torch.atan2(heading[:, 1], heading[:, 0])
        parts = [self.centers @ turn.T + pose[:3, 3], self.sizes * scale, yaws[:, None]]
        if self.has_velocity:
            velocity = torch.nn.functional.pad(self.velocities, (0, 1))
            parts.append((velocity @ turn.T)[:, :2])
        return Boxes3D(torch.cat(parts, dim=1))

    def wrap_yaw(self) -> Boxes3D:
        """Bring headings into ``[-pi, pi)``."""
        tensor = self.tensor.clone()
        tensor[:, 6] = torch.remainder(tensor[:, 6] + math.pi, 2 * math.pi) - math.pi
        return Boxes3D(tensor)

    def in_range(self, point_range: Sequence[float]) -> Tensor:
        """Return the mask ``[N]`` of boxes whose centre lies in ``(x0, y0, z0, x1, y1, z1)``, upper bound excluded."""
        low, high = self.tensor.new_tensor(point_range).split(3)
        return ((self.centers >= low) & (self.centers < high)).all(dim=1)

    # -- conventions of others ---------------------------------------------------------------------------------------

    @classmethod
    def from_nuscenes(
        cls,
        translations: np.ndarray,  # [N, 3]
        sizes_wlh: np.ndarray,  # [N, 3]
        rotations: np.ndarray,  # [N, 4] quaternions (w, x, y, z)
        velocities: np.ndarray | None = None,  # [N, 2]
    ) -> Boxes3D:
        """Build boxes from devkit records; the heading is the direction of the box's x axis seen from above."""
        w, x, y, z = np.asarray(rotations, dtype=np.float64).reshape(-1, 4).T
        yaws = np.arctan2(2 * (w * z + x * y), w * w + x * x - y * y - z * z)
        sizes = np.asarray(sizes_wlh, dtype=np.float64).reshape(-1, 3)[:, [1, 0, 2]]
        parts = [np.asarray(translations, dtype=np.float64).reshape(-1, 3), sizes, yaws[:, None]]
        if velocities is not None:
            parts.append(np.asarray(velocities, dtype=np.float64).reshape(-1, 2))
        return cls(np.concatenate(parts, axis=1))

    def to_nuscenes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return devkit arrays ``(translation [N, 3], size wlh [N, 3], quaternion wxyz [N, 4], velocity [N, 2])``."""
        array = self.numpy().astype(np.float64)
        half = array[:, 6] / 2
        rotation = np.stack([np.cos(half), np.zeros_like(half), np.zeros_like(half), np.sin(half)], axis=1)
        velocity = array[:, 7:9] if self.has_velocity else np.full((len(array), 2), np.nan)
        return array[:, :3], array[:, [4, 3, 5]], rotation, velocity

    @classmethod
    def from_mmdet3d(cls, data: Tensor | np.ndarray) -> Boxes3D:
        """Build boxes from mmdet3d's ``LiDARInstance3DBoxes.tensor``, whose z is the bottom face."""
        tensor = cls(data).tensor.clone()
        tensor[:, 2] += tensor[:, 5] / 2
        return cls(tensor)

    def to_mmdet3d(self) -> Tensor:
        """Return ``[N, 7 or 9]`` with z at the bottom face, as ``LiDARInstance3DBoxes`` stores it."""
        tensor = self.tensor.clone()
        tensor[:, 2] -= tensor[:, 5] / 2
        return tensor

    # -- container ---------------------------------------------------------------------------------------------------

    def to(self, *args: Any, **kwargs: Any) -> Boxes3D:
        """Move or cast like ``Tensor.to``."""
        return Boxes3D(self.tensor.to(*args, **kwargs))

    def detach(self) -> Boxes3D:
        """Return the boxes without their graph."""
        return Boxes3D(self.tensor.detach())

    def clone(self) -> Boxes3D:
        """Return a copy."""
        return Boxes3D(self.tensor.clone())

    def numpy(self) -> np.ndarray:
        """Return ``[N, 7 or 9]`` as a numpy array on the CPU."""
        return self.tensor.detach().cpu().numpy()

    @property
    def device(self) -> torch.device:
        """Device of the boxes."""
        return self.tensor.device

    @staticmethod
    def cat(boxes: Sequence[Boxes3D]) -> Boxes3D:
        """Concatenate sets of boxes of equal width."""
        if not boxes:
            return Boxes3D(torch.zeros(0, BOX_DIM))
        return Boxes3D(torch.cat([each.tensor for each in boxes]))

    @overload
    def __getitem__(self, item: int) -> Boxes3D: ...
    @overload
    def __getitem__(self, item: slice | Tensor | np.ndarray | list[int]) -> Boxes3D: ...
    def __getitem__(self, item: Any) -> Boxes3D:
        """Select boxes; an integer selects a set of one."""
        selected = self.tensor[item]
        return Boxes3D(selected[None] if selected.ndim == 1 else selected)

    def __len__(self) -> int:
        return len(self.tensor)

    def __repr__(self) -> str:
        return f"Boxes3D({self.tensor!r})"


def _yaw_matrices(yaws: Tensor) -> Tensor:
    """Return rotations about z ``[N, 3, 3]`` by ``yaws`` ``[N]``."""
    cos, sin = yaws.cos(), yaws.sin()
    zero, one = torch.zeros_like(cos), torch.ones_like(cos)
    return torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], dim=1).view(-1, 3, 3)
