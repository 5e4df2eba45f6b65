"""An image branch with a 2D detector: feature pyramids, and the boxes of objects in every image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import Tensor

from sparse3d.checkpoints.detectors_2d import load_detector
from sparse3d.decoding.image_boxes import ImageBoxes, ImageDetections, join
from sparse3d.registry import MODELS
from sparse3d.structures import Batch, Sample
from sparse3d.structures.image_objects import objects_in_images
from sparse3d_ops import iou_2d

from ..features import Features
from ..targets.ground_truth import GroundTruth
from .branch import ImageBranch
from .detector_2d import Detector2D

MISSED_IOU = 0.4  # an object that no detection overlaps more is added to them in training
MIN_SIDE = 8.0  # pixels, of what is added


@MODELS.register_module()
class DetectorBranch(ImageBranch):
    """Backbone, neck and 2D detector on every image of a batch.

    In training the detector learns the boxes of the present objects (`structures/image_objects.py`), and objects
    that it misses are added to what it finds.

    Args:
        detector: a ``Detector2D``.
        options: arguments of ``ImageBranch``; ``pretrained`` may be any of the files that ``load_detector`` reads.

    Source: MV2D (Wang et al., ICCV 2023), section 3.2.
    """

    def __init__(self, detector: dict, **options: Any) -> None:
        super().__init__(**options)
        self.detector: Detector2D = MODELS.build(detector)

    def init_weights(self) -> None:
        """Load what the file ``pretrained`` knows of backbone, neck and detector, and report what that was."""
        BaseModule.init_weights(self)
        if self.pretrained is not None:
            print_log(f"{self.pretrained}: {load_detector(self, self.pretrained)}", "current")

    def forward(self, batch: Batch, samples: Sequence[Sample] = ()) -> Features:
        """Return the pyramids and ``detections`` of a batch, with ``samples`` the detector's losses too.

        Raises:
            ValueError: if the batch has no images, or in training its cameras are not ``num_frames`` frames of as many.
        """
        features = super().forward(batch, samples)
        if not samples:
            return replace(features, detections=self._detect(features, slice(None))[0])
        count, rest = divmod(len(batch.cameras[0]), self.num_frames)
        if rest:
            raise ValueError(
                f"DetectorBranch: {len(batch.cameras[0])} images are not {self.num_frames} frames of as many"
            )
        present = slice(0, count)
        detections, losses = self._detect(features, present, objects_of(samples, present))
        if self.num_frames > 1:
            past, _ = self._detect(features, slice(count, None))
            detections = join(detections, past, batch.batch_size)
        return replace(features, detections=detections, losses={f"det_{name}": each for name, each in losses.items()})

    def _detect(
        self, features: Features, views: slice, objects: ImageBoxes | None = None
    ) -> tuple[ImageDetections, dict[str, Tensor]]:
        maps = [level[:, views].flatten(0, 1) for level in features.images]
        sizes = torch.cat([cameras.image_sizes[views] for cameras in features.cameras]).to(maps[0].device)
        detections, losses = self.detector(maps, sizes, objects)
        return detections if objects is None else with_missed(detections, objects), losses


def objects_of(samples: Sequence[Sample], views: slice) -> ImageBoxes:
    """Return the objects that appear in some cameras of each sample, with its ``gt``."""
    truth = GroundTruth.gather(samples)
    boxes, labels, images = [], [], []
    for number, sample in enumerate(samples):
        own = truth[truth.batch_index == number]
        cameras = sample.cameras[views]
        found, appears = objects_in_images(own.boxes, cameras)
        camera, row = appears.nonzero(as_tuple=True)
        boxes.append(found[camera, row])
        labels.append(own.labels[row])
        images.append(camera + number * len(cameras))
    num_images = sum(len(sample.cameras[views]) for sample in samples)
    return ImageBoxes(torch.cat(boxes), torch.cat(labels), torch.cat(images), num_images)


def with_missed(detections: ImageDetections, objects: ImageBoxes) -> ImageDetections:
    """Return the detections and, with score 1, the objects that they miss."""
    ious = iou_2d(objects.boxes, detections.boxes)
    ious = ious.where(objects.images[:, None] == detections.images, 0)
    best = torch.cat([ious, ious.new_zeros(len(ious), 1)], dim=1).amax(dim=1)
    large = ((objects.boxes[:, 2:] - objects.boxes[:, :2]) >= MIN_SIDE).all(dim=1)
    missed = (large & (best < MISSED_IOU)).nonzero()[:, 0]
    features = detections.features
    added = ImageDetections(
        boxes=objects.boxes[missed],
        labels=objects.labels[missed],
        images=objects.images[missed],
        num_images=objects.num_images,
        scores=objects.boxes.new_ones(len(missed)),
        features=None if features is None else features.new_zeros(len(missed), features.shape[1]),
    )
    return detections.add(added)
