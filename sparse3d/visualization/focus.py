"""What a focal convolution did with its voxels, seen from above.

A column of voxels shows the most telling of its voxels: kept as foreground, then grown, then background.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb
from mmengine.structures import InstanceData
from torch import Tensor

from .canvas import DASHES, Canvas
from .colors import BACKGROUND, GROUND_TRUTH, TEXT
from .objects import read_ground_truth

KINDS = ("background", "grown", "kept as foreground")  # later ones cover earlier ones
COLORS = ("#55607a", "#2fd6ee", "#ff9d2e")
GAP = 12  # units between panels


@dataclass(frozen=True)
class Focus:
    """The voxels of one sample around a focal convolution; indices are ``[N, 3]`` integer ``(z, y, x)``.

    Args:
        title: what the convolution is called.
        background: voxels that were there and are no foreground.
        foreground: voxels that were there and are foreground.
        grown: voxels that are new.
        shape: voxels ``(y, x)`` of the grid.
        stride: cells of the model's grid along a voxel's side.
    """

    title: str
    background: Tensor
    foreground: Tensor
    grown: Tensor
    shape: tuple[int, int]
    stride: int


def draw_focus(
    layers: Sequence[Focus],
    gt: InstanceData | None,
    extent: tuple[float, float, float, float],
    zoom: tuple[float, float, float, float],
    *,
    class_names: Sequence[str],
    size: int = 500,
    title: str = "",
) -> np.ndarray:
    """Draw focal convolutions side by side.

    Args:
        layers: one a panel.
        gt: ``boxes`` and ``labels`` of the objects, or None.
        extent: ``(x0, y0, x1, y1)`` in metres that the grids cover.
        zoom: ``(x0, y0, x1, y1)`` in metres to show, of the same proportions as a panel.
        class_names: names in the order of the labels.
        size: width and height of a panel in pixels.
        title: heading of the picture.

    Returns:
        ``[H, W, 3]`` uint8 RGB.
    """
    unit = size / 500
    gap = round(GAP * unit)
    canvas = Canvas(len(layers) * (size + gap) - gap, size, KINDS, unit=unit)
    truth = read_ground_truth(gt, class_names)
    outlines = truth.corners()[:, [0, 1, 5, 4], :2]
    x0, y0, x1, y1 = extent
    for number, layer in enumerate(layers):
        axes = canvas.view((number * (size + gap), 0, size, size), zoom[::2], zoom[1::2])
        axes.imshow(_paint(layer), extent=(x0, x1, y0, y1), origin="lower", interpolation="nearest", zorder=1)
        axes.set(xlim=zoom[::2], ylim=zoom[1::2])
        axes.add_collection(
            PolyCollection(outlines, facecolors="none", edgecolors=GROUND_TRUTH, linewidths=unit, linestyles=[DASHES])
        )
        _label(axes, layer, unit)
    canvas.header(title, "")
    canvas.legend(np.array([to_rgb(color) for color in COLORS]), [True] * len(KINDS), bool(len(truth)))
    return canvas.image()


def _paint(layer: Focus) -> np.ndarray:
    """Return the picture ``[Y, X, 3]`` of a layer, one pixel a column of voxels."""
    picture = np.tile(np.array(to_rgb(BACKGROUND)), (*layer.shape, 1))
    for voxels, color in zip((layer.background, layer.grown, layer.foreground), COLORS, strict=True):
        _, y, x = voxels.cpu().numpy().T
        picture[y, x] = to_rgb(color)
    return picture


def _label(axes: Axes, layer: Focus, unit: float) -> None:
    """Write the layer's name and its counts into the upper left corner."""
    style = dict(transform=axes.transAxes, va="top", bbox=dict(facecolor=BACKGROUND, edgecolor="none", pad=2 * unit))
    counts = f"{len(layer.background):,} background, {len(layer.foreground):,} foreground, {len(layer.grown):,} grown"
    axes.text(0.02, 0.975, layer.title, fontsize=12 * unit, color=TEXT, weight="bold", zorder=5, **style)
    axes.text(0.02, 0.93, counts, fontsize=10 * unit, color=TEXT, zorder=5, **style)
