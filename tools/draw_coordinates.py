"""Draw the conventions of coordinates: frames, a box, a camera, voxels. The pictures of docs/coordinates.md.

python tools/draw_coordinates.py --out docs/images

What is drawn is computed by the package (corners, projections, voxel indices), so a picture cannot disagree with it.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Arc, Polygon, Rectangle

from sparse3d.analysis.samples import ring_of_cameras
from sparse3d.structures import Boxes3D
from sparse3d.structures.boxes import EDGES
from sparse3d.visualization import save_image
from sparse3d.visualization.colors import BACKGROUND, CLASS_COLORS, MUTED, TEXT
from sparse3d_ops import voxelize

AXIS_COLORS = {"x": "#ff5a4f", "y": "#3fb950", "z": "#4d8bff"}  # as in the viewers
CAR, ACCENT = CLASS_COLORS["car"], CLASS_COLORS["bicycle"]
PANEL, DPI, FONT = 4.2, 110, 9  # inches, pixels an inch, points
VEHICLE = Boxes3D([[0.0, 0.0, 0.0, 4.6, 1.9, 1.6, 0.0]])
BOX = Boxes3D([[3.0, 2.0, 0.5, 4.0, 2.0, 1.5, math.radians(35)]])
IMAGE = (90, 160)  # height, width
POINTS = torch.tensor([[0.15, 0.2, 0.0], [0.8, 0.0, 0.0], [0.39, 0.95, 0.0], [1.2, 1.1, 0.0]])
RANGE, VOXEL, SHAPE = (0.0, 0.0, -0.5, 1.6, 1.2, 0.5), (0.4, 0.4, 1.0), (3, 4)  # cells (y, x)


def main() -> None:
    """Draw all pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures")
    folder = parser.parse_args().out
    save_image(folder / "coordinate_frames.png", draw([lidar_frame, nuscenes_frame, camera_frame]))
    save_image(folder / "coordinate_boxes.png", draw([box_from_above, box_from_the_side, voxels]))
    print(f"pictures: {folder}")


def draw(panels: Sequence[Callable[[Axes], None]]) -> np.ndarray:
    """Return panels side by side, ``[H, W, 3]`` uint8 RGB."""
    figure = Figure(figsize=(PANEL * len(panels), PANEL), dpi=DPI, facecolor=BACKGROUND)
    figure.subplots_adjust(left=0.01, right=0.99, top=0.88, bottom=0.02, wspace=0.05)
    canvas = FigureCanvasAgg(figure)
    for number, panel in enumerate(panels, start=1):
        axes = figure.add_subplot(1, len(panels), number)
        axes.set(facecolor=BACKGROUND, xticks=[], yticks=[], aspect="equal")
        axes.spines[:].set_visible(False)
        panel(axes)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


# -- frames ----------------------------------------------------------------------------------------------------------


def lidar_frame(axes: Axes) -> None:
    """Draw the LiDAR frame from above, the vehicle driving up."""
    _vehicle(axes, "LiDAR frame, from above")
    _arrow(axes, (0, 0), (0, 4.2), "x", "x  forward")
    _arrow(axes, (0, 0), (-4.2, 0), "y", "y  left")


def nuscenes_frame(axes: Axes) -> None:
    """Draw the LiDAR frame that nuScenes keeps."""
    _vehicle(axes, "nuScenes' LiDAR frame, from above")
    _arrow(axes, (0, 0), (4.2, 0), "x", "x  right")
    _arrow(axes, (0, 0), (0, 4.2), "y", "y  forward")


def camera_frame(axes: Axes) -> None:
    """Draw an image with a box in it, the axes of the camera and those of the pixels."""
    cameras = ring_of_cameras(1, *IMAGE)
    corners = Boxes3D([[12.0, -3.6, -2.4, 4.0, 2.0, 1.5, 0.6]]).corners().numpy()[0]
    projected = np.pad(corners, ((0, 0), (0, 1)), constant_values=1) @ cameras.lidar2img[0].numpy().T
    pixels = projected[:, :2] / projected[:, 2:3]
    height, width = IMAGE
    axes.set(xlim=(-24, width + 24), ylim=(height + 44, -44))
    axes.set_title("camera and image", color=TEXT, fontsize=FONT + 2)
    axes.add_patch(Rectangle((0, 0), width, height, facecolor="none", edgecolor=MUTED))
    for start, end in EDGES:
        axes.plot(*pixels[[start, end]].T, color=CAR, linewidth=1.4)
    middle = (width / 2, height / 2)
    _arrow(axes, middle, (width / 2 + 34, height / 2), "x", "x  right")
    _arrow(axes, middle, (width / 2, height / 2 + 34), "y", "y  down")
    axes.plot(*middle, "o", color=AXIS_COLORS["z"], markersize=7)
    style = dict(color=AXIS_COLORS["z"], fontsize=FONT, ha="right", va="top")
    axes.text(width / 2 - 5, height / 2 + 4, "z  forward,\ninto the image", **style)
    for end, name in (((46, 0), "u"), ((0, 40), "v")):
        axes.annotate("", end, (0, 0), arrowprops=dict(arrowstyle="->", color=TEXT))
        axes.text(end[0] * 1.08 + 2, end[1] * 1.05 - 4, name, color=TEXT, fontsize=FONT)
    axes.text(0, -18, "(0, 0) is the corner of the first pixel", color=MUTED, fontsize=FONT - 1)


def _vehicle(axes: Axes, title: str) -> None:
    outline = VEHICLE.corners().numpy()[0][[0, 1, 5, 4], :2][:, ::-1]
    axes.set(xlim=(-6.4, 6.4), ylim=(-5.6, 5.6))
    axes.set_title(title, color=TEXT, fontsize=FONT + 2)
    axes.add_patch(Polygon(outline, facecolor=MUTED, alpha=0.25, edgecolor="none"))
    axes.add_patch(Polygon([(-0.5, 1.9), (0.5, 1.9), (0, 2.3)], facecolor=MUTED, edgecolor="none"))
    axes.plot(0, 0, "o", color=AXIS_COLORS["z"], markersize=8)
    axes.text(0.35, -0.9, "z  up, towards you", color=AXIS_COLORS["z"], fontsize=FONT)


# -- boxes -----------------------------------------------------------------------------------------------------------


def box_from_above(axes: Axes) -> None:
    """Draw a box, its sizes, its yaw, and the order of its corners; +x to the right, +y up."""
    corners, center, yaw = BOX.corners().numpy()[0], BOX.centers.numpy()[0], float(BOX.yaws[0])
    front, left = (np.array([math.cos(yaw + turn), math.sin(yaw + turn)]) for turn in (0, math.pi / 2))
    length, width, _ = BOX.sizes.numpy()[0]
    axes.set(xlim=(-1, 7), ylim=(-1.6, 6.4))
    axes.set_title("box, from above", color=TEXT, fontsize=FONT + 2)
    _arrow(axes, (0, -1), (1.2, -1), "x", "x")
    _arrow(axes, (0, -1), (0, 0.2), "y", "y")
    axes.add_patch(Polygon(corners[[0, 1, 5, 4], :2], facecolor=CAR, alpha=0.15, edgecolor="none"))
    axes.add_patch(Polygon(corners[[0, 1, 5, 4], :2], facecolor="none", edgecolor=CAR, linewidth=1.6))
    axes.plot(*corners[[0, 1], :2].T, color=CAR, linewidth=4)
    axes.plot(*center[:2], "o", color=TEXT, markersize=5)
    axes.text(*(center[:2] - [0.1, 0.45]), "(x, y)", color=TEXT, fontsize=FONT, ha="right")
    for above, below in ((0, 3), (1, 2), (4, 7), (5, 6)):  # corners that lie over each other
        place = center[:2] + 1.22 * (corners[above, :2] - center[:2])
        axes.text(*place, f"{above}, {below}", color=MUTED, fontsize=FONT, ha="center", va="center")
    axes.plot([center[0], center[0] + 2.6], [center[1]] * 2, "--", color=ACCENT, linewidth=1)
    axes.plot(*np.stack([center[:2], center[:2] + 2.6 * front]).T, "--", color=ACCENT, linewidth=1)
    axes.add_patch(Arc(center[:2], 3, 3, theta2=math.degrees(yaw), color=ACCENT, linewidth=1.4))
    axes.text(center[0] + 1.6, center[1] + 0.42, "yaw", color=ACCENT, fontsize=FONT)
    _measure(axes, center[:2] - 1.55 * left - length / 2 * front, length * front, "l")
    _measure(axes, center[:2] - 2.5 * front - width / 2 * left, width * left, "w")
    axes.text(*(center[:2] + 2.35 * front + 0.2 * left), "front", color=CAR, fontsize=FONT, rotation=35)


def box_from_the_side(axes: Axes) -> None:
    """Draw where a box's point is: ours in the middle, mmdetection3d's in the bottom face."""
    upright = Boxes3D([[0.0, 0.0, 0.0, *BOX.sizes.tolist()[0], 0.0]])
    corners, bottom = upright.corners().numpy()[0], upright.to_mmdet3d().numpy()[0]
    (low_x, _, low), (high_x, _, high) = corners.min(axis=0), corners.max(axis=0)
    axes.set(xlim=(-3.4, 3.4), ylim=(-3.4, 3.4))
    axes.set_title("box, from the side", color=TEXT, fontsize=FONT + 2)
    axes.add_patch(Rectangle((low_x, low), high_x - low_x, high - low, facecolor=CAR, alpha=0.15, edgecolor="none"))
    axes.add_patch(Rectangle((low_x, low), high_x - low_x, high - low, facecolor="none", edgecolor=CAR, linewidth=1.6))
    axes.plot([high_x, high_x], [low, high], color=CAR, linewidth=4)
    axes.plot(0, 0, "o", color=TEXT, markersize=6)
    axes.text(0, 0.25, "(x, y, z): the middle", color=TEXT, fontsize=FONT, ha="center")
    axes.plot(bottom[0], bottom[2], "s", color=MUTED, markersize=6)
    axes.text(0, low - 0.45, "mmdetection3d, KITTI: the bottom face", color=MUTED, fontsize=FONT, ha="center")
    _measure(axes, np.array([low_x - 0.4, low]), np.array([0, high - low]), "h")
    _arrow(axes, (-3.0, -2.8), (-3.0, -1.7), "z", "z")


def voxels(axes: Axes) -> None:
    """Draw cells with their indices, and to which of them points belong."""
    found = voxelize(POINTS, torch.zeros(len(POINTS), dtype=torch.int64), RANGE, VOXEL, 1)
    axes.set(xlim=(-0.25, 2.0), ylim=(-0.5, 1.75))
    axes.set_title("voxels (z, y, x)", color=TEXT, fontsize=FONT + 2)
    taken = {tuple(cell) for cell in found.coords[:, 2:].tolist()}
    for y, x in np.ndindex(*SHAPE):
        place = (RANGE[0] + x * VOXEL[0], RANGE[1] + y * VOXEL[1])
        color = ACCENT if (y, x) in taken else BACKGROUND
        axes.add_patch(Rectangle(place, *VOXEL[:2], facecolor=color, alpha=0.25, edgecolor="none"))
        axes.add_patch(Rectangle(place, *VOXEL[:2], facecolor="none", edgecolor=MUTED, linewidth=0.8))
        axes.text(place[0] + 0.03, place[1] + 0.31, f"0, {y}, {x}", color=MUTED, fontsize=FONT - 1.5)
    inside = found.point_to_voxel >= 0
    axes.plot(*POINTS[inside, :2].T, "o", color=TEXT, markersize=5)
    axes.annotate(
        "on a border: the upper voxel's", POINTS[1, :2].tolist(), (0.45, -0.3), color=TEXT, fontsize=FONT,
        arrowprops=dict(arrowstyle="->", color=TEXT),
    )  # fmt: skip
    _arrow(axes, (-0.15, -0.15), (0.25, -0.15), "x", "x")
    _arrow(axes, (-0.15, -0.15), (-0.15, 0.25), "y", "y")


# -- pieces ----------------------------------------------------------------------------------------------------------


def _arrow(axes: Axes, start: Sequence[float], end: Sequence[float], axis: str, text: str) -> None:
    """Draw an axis in its colour, with its name beyond the tip."""
    color = AXIS_COLORS[axis]
    axes.annotate("", end, start, arrowprops=dict(arrowstyle="-|>", color=color, linewidth=2))
    beyond = np.asarray(start) + 1.12 * (np.asarray(end) - start)
    side = end[0] - start[0]
    align = "center" if side == 0 else "left" if side > 0 else "right"
    axes.text(*beyond, text, color=color, fontsize=FONT, ha=align, va="center" if side else "bottom")


def _measure(axes: Axes, start: np.ndarray, span: np.ndarray, name: str) -> None:
    """Draw a size with its name."""
    axes.annotate("", start + span, start, arrowprops=dict(arrowstyle="<->", color=TEXT))
    axes.text(
        *(start + span / 2),
        f" {name} ",
        color=TEXT,
        fontsize=FONT + 1,
        backgroundcolor=BACKGROUND,
        ha="center",
        va="center",
    )


if __name__ == "__main__":
    main()
