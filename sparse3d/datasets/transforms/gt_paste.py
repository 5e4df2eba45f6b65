"""Ground-truth paste: objects of other frames, with their points, where they were recorded.

For each class, as many objects are drawn as the scene lacks to the wanted count. In the order of the classes, an object
is pasted unless it overlaps, seen from above, a box of the scene or one pasted before. Points of the scene inside a
pasted box are removed.

With images, an object is pasted into them as well (`datasets/object_crops.py`), unless an object of the scene or one
drawn before it hides too much of it, or it of that.

Source: SECOND (Yan et al., Sensors 2018, section 3.4.1); counts that shrink by what the scene shows are those of the
published nuScenes and Waymo recipes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from sparse3d_ops import iou_2d, iou_bev, nms_bev, points_in_boxes

from ...registry import TRANSFORMS
from ...structures import Boxes3D, InstanceData, Sample
from .. import point_kernels
from ..object_crops import Appearances, paste_crops
from ..object_database import ObjectDatabase, Objects
from .loading import require_unmoved


@TRANSFORMS.register_module()
class PasteGroundTruth:
    """Paste annotated objects of other frames into ``points`` and ``gt``.

    It comes after the loaders and before anything moves the sample.

    Args:
        data_root: the data root.
        database: the object database, relative to ``data_root``; ``tools/create_data.py objects`` writes it.
        class_names: the classes; a label is a position in them.
        counts: objects of each class that a scene should have, by class name; classes that are not named get none.
        min_points: objects with fewer points in the database are not pasted.
        images: paste into the images too; False leaves them as they are, for detectors that do not see them.
        max_image_overlap: largest IoU of boxes in an image, for ``images``.
        keypoints_only: paste only objects with a keypoint, for detectors of people.

    Raises:
        FileNotFoundError: if there is no database.
        ValueError: if it cannot be read or lacks the crops for ``images``, ``counts`` names another class or a negative
            number, or (when called) its points have other columns than the sample's, or its images have been moved.
    """

    def __init__(
        self,
        data_root: str | os.PathLike,
        database: str | os.PathLike,
        class_names: Sequence[str],
        counts: Mapping[str, int],
        min_points: int = 5,
        images: bool = False,
        max_image_overlap: float = 0.5,
        keypoints_only: bool = False,
    ) -> None:
        unknown = [name for name, count in counts.items() if name not in class_names or count < 0]
        if unknown:
            raise ValueError(
                f"PasteGroundTruth: counts need a class of {tuple(class_names)} and a number of 0 or more, "
                f"got { ({name: counts[name] for name in unknown}) }"
            )
        self.database = ObjectDatabase(Path(data_root) / database)
        if images and not self.database.has_crops:
            raise ValueError(
                f"{self.database.path}: it holds no image crops; create it again with "
                "python tools/create_data.py objects --images"
            )
        self.images, self.max_image_overlap = images, max_image_overlap
        self.wanted = {label: counts[name] for label, name in enumerate(class_names) if counts.get(name)}
        self.rows = {label: self.database.rows(class_names[label], min_points, keypoints_only) for label in self.wanted}

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return the sample with more objects."""
        require_unmoved(sample, "PasteGroundTruth")
        if sample.points.shape[1] != self.database.columns:
            raise ValueError(
                f"{self.database.path}: its points have {self.database.columns} columns, the sample's "
                f"{sample.points.shape[1]}; create the database again with the columns of LoadPoints"
            )
        rows, labels = self._draw(sample.gt.labels.numpy(), rng)
        free = _free(self.database.boxes(rows), sample.gt.boxes.tensor)
        if self.images:
            _require_recorded_images(sample)
            free = free[self._unhidden(self.database.boxes(rows[free]), sample)]
        if not len(free):
            return sample
        objects = self.database.take(rows[free])
        gt = _paste_boxes(sample.gt, objects, labels[free])
        pasted = sample.replace(points=_paste_points(sample.points.numpy(), objects), gt=gt)
        if not self.images:
            return pasted
        images = paste_crops(sample.images, sample.cameras, gt.boxes, self.database.crops(rows[free]))
        return pasted.replace(images=torch.stack(images) if isinstance(sample.images, torch.Tensor) else images)

    def _unhidden(self, candidates: np.ndarray, sample: Sample) -> np.ndarray:
        """Return which candidates ``[K]`` overlap no object before them too much in any image."""
        both = Boxes3D.cat([sample.gt.boxes, Boxes3D(torch.from_numpy(candidates))])
        seen = Appearances.find(both, sample.cameras)
        overlaps = torch.stack([iou_2d(each, each) for each in seen.rectangles.float()]).amax(dim=0)
        first = len(sample.gt.boxes)
        return (overlaps.tril(diagonal=-1)[first:] <= self.max_image_overlap).all(dim=1).numpy()

    def _draw(self, present: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return rows of the database ``[K]`` and their labels ``[K]``, class after class."""
        rows = [np.zeros(0, dtype=np.int64)]
        for label, wanted in self.wanted.items():
            missing = max(0, wanted - int((present == label).sum()))
            candidates = self.rows[label]
            rows.append(rng.choice(candidates, min(missing, len(candidates)), replace=False))
        labels = np.repeat(np.array([0, *self.wanted]), [len(each) for each in rows])
        return np.concatenate(rows), labels


def _free(candidates: np.ndarray, present: torch.Tensor) -> np.ndarray:
    """Return the candidates ``[K]`` that overlap neither a present box nor a free candidate before them."""
    boxes = torch.from_numpy(candidates)
    rows = (iou_bev(boxes[:, :7], present[:, :7]) == 0).all(dim=1).nonzero()[:, 0]
    in_order = -torch.arange(len(rows), dtype=torch.float32)
    kept = nms_bev(boxes[rows, :7], in_order, threshold=0.0)  # no overlap is small enough
    return rows[kept].numpy()


def _require_recorded_images(sample: Sample) -> None:
    if "images" not in sample:
        raise ValueError("PasteGroundTruth(images=True): the sample has no images; LoadImages comes first")
    if not torch.equal(
        sample.cameras.image_aug, torch.eye(4).to(sample.cameras.image_aug).expand(len(sample.cameras), 4, 4)
    ):
        raise ValueError("PasteGroundTruth(images=True) must come before every transform that moves the images")


def _paste_points(points: np.ndarray, objects: Objects) -> torch.Tensor:
    near = point_kernels.near_boxes(points, objects.boxes)
    xyz = torch.from_numpy(np.ascontiguousarray(points[near, :3]))
    inside = points_in_boxes(xyz, torch.from_numpy(objects.boxes[:, :7])).numpy() >= 0
    outside = np.delete(np.arange(len(points)), near[inside])
    return torch.from_numpy(np.concatenate([objects.points, points.take(outside, axis=0)]))


def _paste_boxes(gt: InstanceData, objects: Objects, labels: np.ndarray) -> InstanceData:
    pasted = dict(
        labels=torch.from_numpy(labels),
        num_points=torch.from_numpy(objects.num_lidar_points),
    )
    if "keypoints" in gt:
        pasted["keypoints"] = torch.from_numpy(objects.keypoints)
        pasted["keypoint_visibility"] = torch.from_numpy(objects.keypoint_visibility)
    return InstanceData(
        boxes=Boxes3D.cat([gt.boxes, Boxes3D(torch.from_numpy(objects.boxes))]),
        **{name: torch.cat([getattr(gt, name), values]) for name, values in pasted.items()},
    )
