"""The Waymo Open Dataset as a torch data set."""

from __future__ import annotations

from typing import Any, ClassVar

from ..registry import DATASETS
from .frame_dataset import FrameDataset
from .index import FrameIndex


@DATASETS.register_module()
class WaymoDataset(FrameDataset):
    """Samples of the Waymo Open Dataset, v1 or v2, or of a data set in its format.

    Arguments are ``FrameDataset``'s, and

    Args:
        keypoints_only: take only the frames where somebody has a keypoint; in Waymo these are few.

    Raises:
        FileNotFoundError: as ``FrameDataset``.
        ValueError: as ``FrameDataset``, and for keypoints where nobody has any, or of an mmdetection3d info file.
    """

    kind: ClassVar[str] = "waymo"

    def __init__(self, *args: Any, keypoints_only: bool = False, **options: Any) -> None:
        super().__init__(*args, **options)
        if keypoints_only and not isinstance(self.frames, FrameIndex):
            raise ValueError("WaymoDataset: keypoints_only needs an Arrow index; info files hold no keypoints")
        if keypoints_only:
            self.positions = self.positions[self.frames.shows_keypoints()[self.positions]]
            if not len(self.positions):
                raise ValueError(f"WaymoDataset: nobody has keypoints in the chosen frames of {self.frames.path}")
