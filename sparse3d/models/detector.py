"""Detector3D: branches make features, a head makes boxes of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmengine.model import BaseModel
from torch import Tensor

from sparse3d.registry import MODELS
from sparse3d.structures import Batch, Sample

from .features import Features

MODES = ("loss", "predict", "tensor")


@MODELS.register_module()
class Detector3D(BaseModel):
    """A detector of LiDAR points, camera images, or both.

    Args:
        data_preprocessor: list of ``Sample`` -> ``dict(batch, samples)``.
        head: ``Features`` -> losses and predictions.
        point_branch: ``(batch, image_features, samples)`` -> ``Features``, or None.
        image_branch: ``(batch, samples)`` -> ``Features``, or None; it runs first.

    Raises:
        ValueError: if there is no branch at all.
    """

    def __init__(
        self,
        data_preprocessor: dict,
        head: dict,
        point_branch: dict | None = None,
        image_branch: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        if point_branch is None and image_branch is None:
            raise ValueError("Detector3D needs a point_branch, an image_branch, or both")
        super().__init__(data_preprocessor=MODELS.build(data_preprocessor), init_cfg=init_cfg)
        self.point_branch = None if point_branch is None else MODELS.build(point_branch)
        self.image_branch = None if image_branch is None else MODELS.build(image_branch)
        self.head = MODELS.build(head)

    def forward(self, batch: Batch, samples: Sequence[Sample], mode: str = "tensor") -> Any:
        """Run the detector.

        Args:
            batch: what the preprocessor made.
            samples: the batch's samples; they carry ``gt`` in mode ``"loss"``.
            mode: ``"loss"`` returns scalars by name, ``"predict"`` the samples with ``pred``, ``"tensor"`` the head's
                raw output.

        Raises:
            ValueError: if the mode is unknown, or a branch and the head name a loss alike.
        """
        if mode not in MODES:
            raise ValueError(f"Detector3D: mode must be one of {', '.join(MODES)}, got {mode!r}")
        features = self.extract_features(batch, samples if mode == "loss" else ())
        if mode == "loss":
            return self._losses(features, samples)
        if mode == "predict":
            predictions = self.head.predict(features, samples)
            both = zip(samples, predictions, strict=True)
            return [sample.replace(pred=sample.as_recorded(pred)) for sample, pred in both]
        return self.head(features)

    def extract_features(self, batch: Batch, samples: Sequence[Sample] = ()) -> Features:
        """Run the branches, images first: the point branch may read the image branch's features.

        With ``samples``, which carry ``gt``, the branches make their auxiliary losses too.
        """
        image_features = None if self.image_branch is None else self.image_branch(batch, samples=samples)
        if self.point_branch is None:
            return image_features
        point_features = self.point_branch(batch, image_features=image_features, samples=samples)
        return point_features if image_features is None else point_features.merge(image_features)

    def _losses(self, features: Features, samples: Sequence[Sample]) -> dict[str, Tensor]:
        losses = self.head.loss(features, samples)
        shared = losses.keys() & features.losses.keys()
        if shared:
            raise ValueError(f"Detector3D: a branch and the head both made the losses {sorted(shared)}")
        return {**losses, **features.losses}
