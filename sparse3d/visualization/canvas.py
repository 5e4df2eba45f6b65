"""Canvas: a dark picture with a header, views that are placed by the pixel, and a legend.

It draws with matplotlib's Agg renderer alone (no pyplot, hence no window, no global state, any thread). Line widths and
fonts are given in units, and the picture says how many pixels a unit has.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch

from .colors import BACKGROUND, GROUND_TRUTH, MUTED, TEXT

DPI = 72.0  # one point of matplotlib is then one pixel
HEADER, LEGEND_ROW, MARGIN = 44, 22, 14  # units
LETTER, SWATCH = 6.3, 28  # width of a letter of the legend and of what stands before the name, units
GROUND_TRUTH_LABEL = "ground truth"
DASHES = (0, (3.0, 1.6))


class Canvas:
    """A picture of ``width`` pixels with room for a view of ``view_height`` pixels between header and legend.

    Args:
        width: width of the picture in pixels.
        view_height: height of the middle part in pixels.
        class_names: names in the legend.
        unit: pixels a unit; 1 suits a picture of 1000 pixels.
    """

    def __init__(self, width: int, view_height: int, class_names: Sequence[str], *, unit: float) -> None:
        self.unit = unit
        self.width = width
        self.top = round(HEADER * self.unit)
        self.entries = (*class_names, GROUND_TRUTH_LABEL)
        column = max(map(len, self.entries)) * LETTER + SWATCH
        most = max(1, int((width / unit - 2 * MARGIN) / column))
        rows = -(-len(self.entries) // most)
        self.columns = -(-len(self.entries) // rows)
        self.bottom = round((rows * LEGEND_ROW + MARGIN) * self.unit)
        self.height = self.top + view_height + self.bottom
        self.figure = Figure(figsize=(width / DPI, self.height / DPI), dpi=DPI, facecolor=BACKGROUND)
        self.renderer = FigureCanvasAgg(self.figure)
        self.overlay = self._axes((0, 0, width, self.height), (0, width), (self.height, 0))
        self.overlay.set_zorder(10)
        self.overlay.patch.set_alpha(0)

    def view(
        self,
        box: tuple[int, int, int, int],  # left, top, width, height in pixels; top counts from below the header
        x_limits: tuple[float, float],
        y_limits: tuple[float, float],  # bottom, top
    ) -> Axes:
        """Return axes that fill exactly ``box`` and run over the given limits."""
        left, top, width, height = box
        return self._axes((left, top + self.top, width, height), x_limits, y_limits)

    def _axes(self, box: Sequence[float], x_limits: tuple[float, float], y_limits: tuple[float, float]) -> Axes:
        left, top, width, height = box
        axes = self.figure.add_axes(
            (left / self.width, 1 - (top + height) / self.height, width / self.width, height / self.height)
        )
        axes.set(xlim=x_limits, ylim=y_limits, xticks=[], yticks=[], facecolor=BACKGROUND, autoscale_on=False)
        axes.spines[:].set_visible(False)
        return axes

    def header(self, title: str, facts: str) -> None:
        """Write the title at the left and facts at the right."""
        middle, margin = self.top / 2, MARGIN * self.unit
        size = 16 * self.unit
        self.write(margin, middle, title, size, color=TEXT, weight="bold")
        self.write(self.width - margin, middle, facts, 0.8 * size, color=MUTED, align="right")

    def legend(self, colors: np.ndarray, present: Sequence[bool], ground_truth: bool) -> None:
        """Name the classes, ``present`` ones bright; ``colors`` is ``[K, 3]`` RGB in ``[0, 1]``."""
        step = (self.width - 2 * MARGIN * self.unit) / self.columns
        for index, (name, shown) in enumerate(zip(self.entries, (*present, ground_truth), strict=True)):
            row, column = divmod(index, self.columns)
            left = MARGIN * self.unit + column * step
            middle = self.height - self.bottom + (MARGIN / 2 + (row + 0.5) * LEGEND_ROW) * self.unit
            if index < len(colors):
                self._swatch(left, middle, colors[index], shown)
            else:
                self._dashed_swatch(left, middle, shown)
            text = name.replace("_", " ")
            self.write(left + 24 * self.unit, middle, text, 12 * self.unit, color=TEXT if shown else MUTED)

    def _swatch(self, left: float, middle: float, color: np.ndarray, shown: bool) -> None:
        width, height = 15 * self.unit, 9 * self.unit
        patch = FancyBboxPatch(
            (left, middle - height / 2),
            width,
            height,
            boxstyle=f"round,pad=0,rounding_size={2 * self.unit}",
            facecolor=(*color, 0.3 if shown else 0.1),
            edgecolor=(*color, 1.0 if shown else 0.4),
            linewidth=1.3 * self.unit,
        )
        self.overlay.add_patch(patch)

    def _dashed_swatch(self, left: float, middle: float, shown: bool) -> None:
        line = Line2D(
            [left, left + 16 * self.unit],
            [middle, middle],
            color=GROUND_TRUTH if shown else MUTED,
            linewidth=1.5 * self.unit,
            linestyle=DASHES,
        )
        self.overlay.add_line(line)

    def write(
        self,
        left: float,
        middle: float,
        text: str,
        size: float,
        *,
        color: str,
        weight: str = "normal",
        align: str = "left",
    ) -> None:
        """Write ``text`` at a pixel of the picture; it is never read as mathematics."""
        self.overlay.text(
            left,
            middle,
            text,
            fontsize=size,
            color=color,
            weight=weight,
            ha=align,
            va="center_baseline",
            parse_math=False,
            clip_on=True,
        )

    def image(self) -> np.ndarray:
        """Render: ``[H, W, 3]`` uint8 RGB."""
        self.renderer.draw()
        return np.asarray(self.renderer.buffer_rgba())[..., :3].copy()
