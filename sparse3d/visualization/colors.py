"""Colours: one for each class, and maps from a point's height, intensity or age to a colour.

Everything is drawn on a dark background. Points are kept cool and quiet, classes bright and saturated, so that boxes
stand out from the cloud. Ground truth is white in every picture: a class colour always means a prediction.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, to_rgb

BACKGROUND = "#0d1117"
PANEL = "#161b22"
TEXT = "#e6edf3"
MUTED = "#8b949e"
GROUND_TRUTH = "#ffffff"

# Hues in the order of danger and frequency on the road; pairs that are often neighbours in traffic lie far apart.
CLASS_COLORS = {
    "car": "#ff9d2e",
    "truck": "#ff5a4f",
    "trailer": "#c792ff",
    "bus": "#ffe45c",
    "construction_vehicle": "#c58a5a",
    "bicycle": "#2fd6ee",
    "motorcycle": "#ff6ad5",
    "pedestrian": "#4d8bff",
    "traffic_cone": "#b6f23c",
    "barrier": "#2bd48f",
}
GOLDEN_RATIO = 0.618034  # steps of this fraction of the colour circle never come close to an earlier one

POINT_MAPS = {
    "height": ("#3d5a80", "#4682a9", "#62b6b7", "#b5dfa7", "#f6f1cf"),
    "intensity": ("#54588a", "#7d5fa6", "#c2679a", "#f4a582", "#fff3d6"),
    "time": ("#f4f7fb", "#6fb7e9", "#3b6fb0", "#41549a", "#4d4a80"),
}
MAP_LEVELS = 256


def class_colors(class_names: Sequence[str]) -> np.ndarray:
    """Return one colour a class.

    Args:
        class_names: nuScenes' ten detection classes have fixed colours; any other name gets one that follows from its
            position.

    Returns:
        ``[K, 3]`` float64 RGB in ``[0, 1]``.
    """
    colors = [_class_color(name, position) for position, name in enumerate(class_names)]
    return np.array(colors, dtype=np.float64).reshape(-1, 3)


def _class_color(name: str, position: int) -> tuple[float, float, float]:
    if name in CLASS_COLORS:
        return to_rgb(CLASS_COLORS[name])
    return colorsys.hls_to_rgb((position * GOLDEN_RATIO) % 1, 0.65, 0.85)


def point_map(name: str) -> np.ndarray:
    """Return the colour map ``"height"``, ``"intensity"`` or ``"time"``: ``[256, 3]`` uint8 RGB, low to high."""
    if name not in POINT_MAPS:
        raise ValueError(f"point_map: name must be one of {sorted(POINT_MAPS)}, got {name!r}")
    table = LinearSegmentedColormap.from_list(name, POINT_MAPS[name], N=MAP_LEVELS)(np.arange(MAP_LEVELS))
    return np.round(table[:, :3] * 255).astype(np.uint8)


def to_levels(
    values: np.ndarray,  # [N]
    low: float,
    high: float,
) -> np.ndarray:  # [N] uint8
    """Scale ``[low, high]`` to the levels 0 to 255 of a point map; what lies outside takes the nearest end."""
    span = max(high - low, np.finfo(np.float32).tiny)
    return np.round(np.clip((values - low) / span, 0, 1) * (MAP_LEVELS - 1)).astype(np.uint8)


def spread(
    values: np.ndarray,  # [N]
    share: float = 0.02,
) -> tuple[float, float]:
    """Return the values between which all but ``share`` of ``values`` lie at either end; ``(0, 1)`` for none."""
    if not len(values):
        return 0.0, 1.0
    low, high = np.quantile(values, [share, 1 - share])
    return float(low), float(high)
