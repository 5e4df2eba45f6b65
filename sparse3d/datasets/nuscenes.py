"""nuScenes as a torch data set."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, ClassVar

from ..registry import DATASETS
from .frame_dataset import FrameDataset
from .nuscenes_schema import DETECTION_CLASSES


@DATASETS.register_module()
class NuScenesDataset(FrameDataset):
    """Samples of nuScenes, or of a data set in its format.

    Args:
        data_root: folder that holds `samples/` and `sweeps/`.
        index: the Arrow index, or an mmdetection3d v1.1 info file (`.pkl`), relative to ``data_root``.
        class_names: classes in the order of the labels.
        options: those of ``FrameDataset``.
    """

    kind: ClassVar[str] = "nuscenes"

    def __init__(
        self,
        data_root: str | os.PathLike,
        index: str | os.PathLike,
        class_names: Sequence[str] = DETECTION_CLASSES,
        **options: Any,
    ) -> None:
        super().__init__(data_root, index, class_names, **options)
