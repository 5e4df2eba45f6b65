"""Layers: points that a viewer shows over a scene, each layer to be switched on and off by its name.

What models looked at becomes layers in `sparse3d/analysis`. A sample carries them as its field ``layers``. Their
colours are pale: a bright one always means the class of a prediction.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.colors import is_color_like

from .objects import read_points


@dataclass(frozen=True, eq=False)
class PointLayer:
    """Points of one colour.

    Args:
        name: what the layer is called, once in a sample.
        points: ``[N, 3]`` float32 ``(x, y, z)`` in metres, in the frame of the sample's points.
        color: ``"#rrggbb"``.
        size: of a point, in metres.

    Raises:
        ValueError: if the points are no finite ``[N, 3]``, the colour is none, or the size is not positive.
    """

    name: str
    points: np.ndarray
    color: str
    size: float

    def __post_init__(self) -> None:
        """Bring the points to an array, and check."""
        object.__setattr__(self, "points", read_points(self.points)[:, :3])
        if not is_color_like(self.color) or self.size <= 0:
            got = f"{self.color!r} and {self.size}"
            raise ValueError(f"layer {self.name!r}: expected a colour and a size above 0, got {got}")
