"""mmdetection3d in configs of sparse3d: its bird's-eye backbones, necks and heads in our branches and detectors.

Modules whose conventions are ours need no adapter: `type="mmdet3d.<class>"` names them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.model import BaseModule
from mmengine.structures import InstanceData
from torch import Tensor

from ..models.features import Features
from ..registry import MODELS
from ..structures import Sample
from .scopes import theirs
from .structures import detections_from_mmdet3d, to_data_sample


@MODELS.register_module()
class MMDet3DBEVBackbone(BaseModule):
    """A backbone of mmdetection3d with its neck as the ``bev_backbone`` of a point branch.

    Args:
        backbone: e.g. of ``SECOND``; bare names are theirs.
        neck: e.g. of ``SECONDFPN``; None where the backbone makes a single map.
    """

    def __init__(
        self, backbone: Mapping[str, Any], neck: Mapping[str, Any] | None = None, init_cfg: Any = None
    ) -> None:
        super().__init__(init_cfg)
        self.backbone = MODELS.build(theirs(backbone))
        self.neck = None if neck is None else MODELS.build(theirs(neck))

    def forward(self, bev: Tensor) -> Tensor:
        """Map ``[B, C, Y, X]`` to ``[B, C', Y', X']``.

        Raises:
            ValueError: if there are several maps at the end.
        """
        maps = self.backbone(bev)
        if self.neck is not None:
            maps = self.neck(maps)
        if isinstance(maps, Tensor):
            return maps
        if len(maps) != 1:
            raise ValueError(f"MMDet3DBEVBackbone: {len(maps)} maps came out, a neck has to make one of them")
        return maps[0]


@MODELS.register_module()
class MMDet3DHead(BaseModule):
    """A 3D head of mmdetection3d, e.g. ``CenterHead`` or ``Anchor3DHead``, on our bird's-eye map.

    Args:
        head: its config, with ``train_cfg`` and ``test_cfg``; bare names are theirs. Its classes stand in the order of
            our ``class_names``.
    """

    def __init__(self, head: Mapping[str, Any], init_cfg: Any = None) -> None:
        super().__init__(init_cfg)
        self.head = MODELS.build(theirs(head))

    def forward(self, features: Features) -> Any:
        """Return the head's raw output."""
        return self.head([features.bev])

    def loss(self, features: Features, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Return the head's losses (scalars), those of several levels summed; samples carry ``gt``."""
        losses = self.head.loss([features.bev], [to_data_sample(sample) for sample in samples])
        return {name: sum(value) if isinstance(value, (list, tuple)) else value for name, value in losses.items()}

    def predict(self, features: Features, samples: Sequence[Sample]) -> list[InstanceData]:
        """Return ``boxes``, ``scores`` and ``labels`` of each sample, in descending order of score."""
        found = self.head.predict([features.bev], [to_data_sample(sample) for sample in samples])
        return [detections_from_mmdet3d(each) for each in found]
