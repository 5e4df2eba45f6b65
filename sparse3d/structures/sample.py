"""Sample: one frame on its way through the framework."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from mmengine.structures import BaseDataElement, InstanceData

from .frame import Frame
from .skeleton import MIRRORED


class Sample(BaseDataElement):
    """One frame: inputs, ground truth, predictions.

    Data fields (each may be absent; use ``"gt" in sample``):
        points: ``[P, F]`` float32 tensor, columns ``x, y, z, intensity, ...`` in metres, LiDAR frame.
        images: ``[C, 3, H, W]`` tensor, or a list of ``[3, H, W]`` where sizes differ.
        cameras: ``Cameras``.
        gt: ``InstanceData`` with ``boxes`` (``Boxes3D`` with velocity), ``labels`` ``[N]`` int64 and
            ``num_points`` ``[N]`` int64 (LiDAR points inside, as annotated); of people also ``keypoints``
            ``[N, 14, 3]`` (see ``skeleton.py``) and ``keypoint_visibility`` ``[N, 14]`` int64.
        pred: ``InstanceData`` with ``boxes`` (``Boxes3D``), ``scores`` ``[M]`` and ``labels`` ``[M]``, in the LiDAR
            frame before augmentation; of people also ``keypoints`` and ``keypoint_visibility``, the latter float.
        layers: tuple of ``PointLayer``: points that viewers show besides, such as those that a model looked at.

    Metainfo:
        frame: the ``Frame`` of the index.
        lidar_aug: 4x4 float64 array, LiDAR coordinates as recorded -> coordinates of ``points``.
        epoch: the epoch that the sample was loaded for, from 0.
        past: earlier frames of the scene that the network sees too, the latest first.
        skipped: what was wrong with the samples that this one stands in for; empty where it is the one asked for.
    """

    @classmethod
    def from_frame(cls, frame: Frame, epoch: int = 0, past: tuple[Frame, ...] = ()) -> Sample:
        """Start a sample from its index record, and from those of earlier frames."""
        return cls(metainfo={"frame": frame, "past": past, "lidar_aug": np.eye(4), "epoch": epoch, "skipped": ()})

    def replace(self, **fields: Any) -> Sample:
        """Return a shallow copy with some data or metainfo fields replaced; ``self`` stays as it is."""
        changed = Sample()
        changed.set_metainfo({key: fields.pop(key, value) for key, value in self.metainfo_items()})
        changed.set_data({**dict(self.items()), **fields})
        return changed

    def as_recorded(self, instances: InstanceData) -> InstanceData:
        """Return objects that stand where ``points`` do in the LiDAR frame as recorded."""
        moved = self.get("lidar_aug")
        if moved is None or np.array_equal(moved, np.eye(4)):
            return instances
        return move_instances(instances, np.linalg.inv(moved))

    def move_lidar(self, matrix: np.ndarray) -> Sample:
        """Record a movement of the LiDAR frame (4x4, old -> new) in ``lidar_aug`` and in the cameras.

        Points and boxes are left to the caller, who knows the movement in closed form.
        """
        fields: dict[str, Any] = {"lidar_aug": matrix @ self.lidar_aug}
        if "cameras" in self:
            fields["cameras"] = self.cameras.move_lidar(torch.as_tensor(matrix))
        return self.replace(**fields)


def move_instances(instances: InstanceData, matrix: np.ndarray) -> InstanceData:
    """Return objects after a movement of the world: their boxes and, where they have them, their keypoints.

    A mirroring makes left limbs right ones.

    Args:
        instances: with ``boxes``; ``keypoints`` ``[N, 14, 3]`` come with ``keypoint_visibility`` ``[N, 14]``.
        matrix: 4x4 similarity, old coordinates -> new ones; it keeps the z axis upright.
    """
    moved = instances.clone()
    moved.boxes = instances.boxes.transform(matrix)
    if "keypoints" in instances:
        pose = torch.as_tensor(matrix, dtype=torch.float64, device=instances.keypoints.device)
        keypoints = (instances.keypoints.double() @ pose[:3, :3].T + pose[:3, 3]).to(instances.keypoints)
        order = list(MIRRORED) if np.linalg.det(matrix[:3, :3]) < 0 else slice(None)
        moved.keypoints = keypoints[:, order]
        moved.keypoint_visibility = instances.keypoint_visibility[:, order]
    return moved


__all__ = ["InstanceData", "Sample", "move_instances"]
