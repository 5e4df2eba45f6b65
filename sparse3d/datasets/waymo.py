"""The Waymo Open Dataset as a torch data set."""

from __future__ import annotations

from typing import ClassVar

from ..registry import DATASETS
from .frame_dataset import FrameDataset


@DATASETS.register_module()
class WaymoDataset(FrameDataset):
    """Samples of the Waymo Open Dataset, v1 or v2, or of a data set in its format; arguments are ``FrameDataset``'s."""

    kind: ClassVar[str] = "waymo"
