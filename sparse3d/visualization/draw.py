"""Pictures of one frame: from above, and through its cameras.

    bird's eye:   pixel = ((x - x0) / (x1 - x0) * W, (y1 - y) / (y1 - y0) * H)       +x to the right, +y up
    camera:       (u d, v d, d) = lidar2img (x, y, z, 1);  an edge is cut where d = NEAR before it is divided by d

nuScenes' LiDAR frame (x right, y forward) is thus seen with the car driving up. Predictions have the colour of their
class, ground truth is white and dashed, and a tick or a stronger face marks the heading in both.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_rgb
from mmengine.structures import InstanceData
from torch import Tensor

from ..structures import Cameras
from ..structures.boxes import EDGES
from .canvas import DASHES, Canvas
from .colors import BACKGROUND, GROUND_TRUTH, MUTED, class_colors, point_map, spread, to_levels
from .objects import Objects, read_ground_truth, read_points, read_predictions

Extent = tuple[float, float, float, float]

RING_STEP = 20.0  # metres between range rings
EXTENT_STEP = 10.0  # metres; an extent that is not given is a multiple of this
POINT_SHARE = 0.9  # of the points lie inside an extent that is not given
EMPTY_RADIUS = 50.0  # metres; shown where there is nothing to show
NARROWEST = 0.8  # of the size; a narrower map stands in the middle of a picture of this width
POINT_GAIN = 2.5  # above 1 makes a lone point, spread over up to four pixels, bright enough to see
HEADING_REACH = 1.25  # the heading tick ends this many half lengths from the centre
MIN_SPEED = 0.5  # m/s; slower objects get no arrow
NEAR = 0.1  # metres in front of a camera where boxes are cut off
FRONT_FACE = (0, 1, 2, 3)  # corners, in the order of CORNER_SIGNS
GAP = 4  # pixels between camera images
CAMERAS_A_ROW = 3
CAMERA_ORDER = (
    "CAM_FRONT_LEFT",
    "CAM_FRONT",
    "CAM_FRONT_RIGHT",
    "CAM_BACK_LEFT",
    "CAM_BACK",
    "CAM_BACK_RIGHT",
)


# -- bird's eye --------------------------------------------------------------------------------------------------------


def draw_bev(
    points: Tensor | np.ndarray,  # [P, >= 3]
    gt: InstanceData | None,
    pred: InstanceData | None,
    class_names: Sequence[str],
    *,
    extent: Extent | None = None,
    score_threshold: float = 0.3,
    size: int = 1000,
    title: str = "",
    color_truth: bool = False,
) -> np.ndarray:
    """Draw a frame from above, in the axes of its own frame: +x to the right, +y up.

    Points are coloured by height; arrows show where an object will be in one second.

    Args:
        points: ``[P, >= 3]`` ``x, y, z`` in metres.
        gt: ``boxes`` (``Boxes3D``) and ``labels`` ``[N]`` (-1: no class), or None.
        pred: ``boxes``, ``labels`` ``[M]`` and ``scores`` ``[M]``, or None.
        class_names: names in the order of the labels.
        extent: ``(x0, y0, x1, y1)`` in metres; without it a square round the origin that holds most of the points and
            all boxes.
        score_threshold: predictions below it are left out.
        size: longer side of the map in pixels.
        title: heading of the picture.
        color_truth: give ground truth the colours of its classes instead of white, to look at labels by themselves.

    Returns:
        ``[H, W, 3]`` uint8 RGB; the map lies below a header and above a legend.

    Raises:
        ValueError: if points, boxes, labels and scores do not fit together, or the extent is empty.
    """
    cloud = read_points(points)
    truth = read_ground_truth(gt, class_names)
    found = _confident(read_predictions(pred, class_names), score_threshold)
    x0, y0, x1, y1 = _check_extent(extent) if extent is not None else _fit(cloud, truth, found)
    scale = size / max(x1 - x0, y1 - y0)
    width, height = round((x1 - x0) * scale), round((y1 - y0) * scale)

    canvas = Canvas(max(width, round(NARROWEST * size)), height, class_names, unit=size / 1000)
    axes = canvas.view(((canvas.width - width) // 2, 0, width, height), (x0, x1), (y0, y1))
    axes.imshow(_splat(cloud, (x0, y0, x1, y1), width, height), extent=(x0, x1, y0, y1), aspect="auto", zorder=1)
    _draw_rings(axes, (x0, y0, x1, y1), canvas.unit)
    colors = class_colors(class_names)
    _draw_flat_boxes(axes, truth, _truth_colors(truth, colors, color_truth), canvas.unit, dashed=True)
    _draw_flat_boxes(axes, found, colors[found.labels], canvas.unit, dashed=False)
    _draw_ego(axes, canvas.unit)
    _frame_picture(canvas, title, f"{len(cloud):,} points", colors, truth, found, color_truth)
    return canvas.image()


def _confident(objects: Objects, score_threshold: float) -> Objects:
    return objects.select(objects.scores >= score_threshold)


def _truth_colors(truth: Objects, colors: np.ndarray, by_class: bool) -> np.ndarray:
    """Return the colours of ground truth ``[N, 3]``: white, or those of its classes where it has one."""
    white = np.tile(to_rgb(GROUND_TRUTH), (len(truth), 1))
    if not by_class or not len(colors):
        return white
    return np.where(truth.labels[:, None] >= 0, colors[truth.labels], white)


def _check_extent(extent: Extent) -> Extent:
    x0, y0, x1, y1 = map(float, extent)
    if not (np.isfinite([x0, y0, x1, y1]).all() and x0 < x1 and y0 < y1):
        raise ValueError(f"draw_bev: extent must be (x0, y0, x1, y1) with x0 < x1 and y0 < y1, got {tuple(extent)}")
    return x0, y0, x1, y1


def _fit(cloud: np.ndarray, truth: Objects, found: Objects) -> Extent:
    """Return the square round the origin that holds most of the points and all boxes."""
    reach = np.abs(np.concatenate([truth.boxes[:, :2], found.boxes[:, :2]])).max(initial=0)
    if len(cloud):
        reach = max(reach, np.quantile(np.abs(cloud[:, :2]).max(axis=1), POINT_SHARE))
    radius = np.ceil(reach / EXTENT_STEP) * EXTENT_STEP if reach else EMPTY_RADIUS
    return -radius, -radius, radius, radius


def _splat(cloud: np.ndarray, extent: Extent, width: int, height: int) -> np.ndarray:
    """Return ``[H, W, 4]`` uint8: points shared out bilinearly over four pixels each, colours averaged by share."""
    x0, y0, x1, y1 = extent
    position = (cloud[:, :2] - (x0, y1)) / (x1 - x0, y0 - y1) * (width, height) - 0.5
    corner = np.floor(position).astype(np.int64)
    part = position - corner
    colors = point_map("height")[to_levels(cloud[:, 2], *spread(cloud[:, 2]))]
    total = np.zeros((height * width, 4))
    for right, down in ((0, 0), (1, 0), (0, 1), (1, 1)):
        u, v = corner[:, 0] + right, corner[:, 1] + down
        weight = np.abs(1 - right - part[:, 0]) * np.abs(1 - down - part[:, 1])
        inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)
        pixel, weight, color = (v * width + u)[inside], weight[inside], colors[inside]
        for channel, values in enumerate((*color.T, np.ones(len(pixel)))):
            total[:, channel] += np.bincount(pixel, weights=weight * values, minlength=height * width)
    share = total[:, 3:]
    mean = np.divide(total[:, :3], share, out=np.zeros_like(total[:, :3]), where=share > 0)
    alpha = np.clip(share * POINT_GAIN, 0, 1) * 255
    return np.round(np.concatenate([mean, alpha], axis=1)).astype(np.uint8).reshape(height, width, 4)


def _draw_rings(axes: Axes, extent: Extent, unit: float) -> None:
    """Draw circles every ``RING_STEP`` metres, each with its radius."""
    x0, y0, x1, y1 = extent
    farthest = np.hypot(max(abs(x0), abs(x1)), max(abs(y0), abs(y1)))
    radii = np.arange(RING_STEP, farthest, RING_STEP)
    angles = np.linspace(0, 2 * np.pi, 181)
    circles = radii[:, None, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    axes.add_collection(LineCollection(circles, colors=MUTED, linewidths=0.7 * unit, alpha=0.35, zorder=2))
    for radius in radii:  # a handful
        axes.text(
            radius * np.sqrt(0.5),
            -radius * np.sqrt(0.5),
            f"{radius:.0f} m",
            fontsize=10.5 * unit,
            color=MUTED,
            ha="center",
            va="center",
            clip_on=True,
            bbox=dict(facecolor=BACKGROUND, edgecolor="none", pad=1.5 * unit, alpha=0.7),
            zorder=2,
        )


def _draw_flat_boxes(axes: Axes, objects: Objects, colors: np.ndarray, unit: float, *, dashed: bool) -> None:
    """Draw outlines, heading ticks and velocity arrows in ``colors`` ``[N, 3]``."""
    outlines = objects.corners()[:, [0, 1, 5, 4], :2]
    faces = "none" if dashed else np.concatenate([colors, np.full((len(colors), 1), 0.22)], axis=1)
    style = dict(linestyles=[DASHES]) if dashed else {}
    width = (1.1 if dashed else 1.7) * unit
    order = 4 if dashed else 3  # dashes stay visible on a prediction that fits perfectly
    axes.add_collection(
        PolyCollection(outlines, facecolors=faces, edgecolors=colors, linewidths=width, zorder=order, **style)
    )
    axes.add_collection(LineCollection(_heading_ticks(objects), colors=colors, linewidths=width, zorder=order))
    arrows, moving = _velocity_arrows(objects)
    shade = np.repeat(colors[moving], 3, axis=0)
    axes.add_collection(LineCollection(arrows, colors=shade, linewidths=0.8 * width, alpha=0.9, zorder=order))


def _heading_ticks(objects: Objects) -> np.ndarray:  # [N, 2, 2]
    """Return lines from the centres to a little beyond the front."""
    boxes = objects.boxes
    heading = np.stack([np.cos(boxes[:, 6]), np.sin(boxes[:, 6])], axis=1)
    ends = boxes[:, :2] + heading * boxes[:, 3:4] / 2 * HEADING_REACH
    return np.stack([boxes[:, :2], ends], axis=1)


def _velocity_arrows(objects: Objects) -> tuple[np.ndarray, np.ndarray]:  # [3 K, 2, 2], [K]
    """Return a shaft and two barbs for each moving object, and which objects move."""
    speed = np.hypot(objects.boxes[:, 7], objects.boxes[:, 8])
    moving = np.flatnonzero(speed > MIN_SPEED)  # an unknown velocity is NaN and compares false
    start, step = objects.boxes[moving, :2], objects.boxes[moving, 7:9]
    end = start + step
    barb = step / speed[moving, None] * np.clip(0.3 * speed[moving, None], 0.25, 1.2)
    side = barb[:, ::-1] * (-0.5, 0.5)
    shaft = np.stack([start, end], axis=1)
    barbs = [np.stack([end, end - barb + turn], axis=1) for turn in (side, -side)]
    return np.stack([shaft, *barbs], axis=1).reshape(-1, 2, 2), moving


def _draw_ego(axes: Axes, unit: float) -> None:
    """Mark the sensor by a dot and its two axes, x red and y green."""
    arms = np.array([[[0, 0], [3, 0]], [[0, 0], [0, 3]]])
    axes.add_collection(LineCollection(arms, colors=["#ff5a4f", "#3fb950"], linewidths=2 * unit, zorder=5))
    axes.plot(0, 0, "o", color="white", markersize=5 * unit, markeredgecolor=BACKGROUND, zorder=6)


def _frame_picture(
    canvas: Canvas, title: str, facts: str, colors: np.ndarray, truth: Objects, found: Objects, color_truth: bool
) -> None:
    """Write header and legend."""
    shown = np.concatenate([found.labels, truth.labels]) if color_truth else found.labels
    present = np.isin(np.arange(len(colors)), shown)
    counts = f"{facts}   ·   {len(truth)} ground truth   ·   {len(found)} predictions"
    canvas.header(title, counts)
    canvas.legend(colors, present.tolist(), len(truth) > 0)


# -- cameras -----------------------------------------------------------------------------------------------------------


def draw_cameras(
    images: Sequence[np.ndarray],
    cameras: Cameras,
    gt: InstanceData | None,
    pred: InstanceData | None,
    class_names: Sequence[str],
    *,
    score_threshold: float = 0.3,
    width: int = 1920,
    title: str = "",
    color_truth: bool = False,
) -> np.ndarray:
    """Draw boxes into the images of a frame and lay the images out as one looks around.

    The nuScenes cameras stand in two rows: front left, front, front right; back left, back, back right. Cameras of
    other names follow in the order given. The face an object heads to is filled.

    Args:
        images: one ``[H, W, 3]`` uint8 RGB image a camera, of the size that ``cameras`` states.
        cameras: calibration; boxes are in its LiDAR frame.
        gt: ``boxes`` (``Boxes3D``) and ``labels`` ``[N]`` (-1: no class), or None.
        pred: ``boxes``, ``labels`` ``[M]`` and ``scores`` ``[M]``, or None.
        class_names: names in the order of the labels.
        score_threshold: predictions below it are left out.
        width: width of the picture in pixels.
        title: heading of the picture.
        color_truth: give ground truth the colours of its classes instead of white, to look at labels by themselves.

    Returns:
        ``[H, W, 3]`` uint8 RGB.

    Raises:
        ValueError: if there are no images, or images and cameras, or boxes, labels and scores do not fit together.
    """
    _check_images(images, cameras)
    truth = read_ground_truth(gt, class_names)
    found = _confident(read_predictions(pred, class_names), score_threshold)
    colors = class_colors(class_names)

    order = _viewing_order(cameras.names)
    tiles = _tiles([images[camera].shape[:2] for camera in order], width)
    canvas = Canvas(width, max(top + height for _, top, _, height in tiles), class_names, unit=width / 1400)
    for camera, tile in zip(order, tiles, strict=True):
        axes = _draw_image(canvas, images[camera], tile, cameras.names[camera])
        lidar2img = cameras.lidar2img[camera].cpu().numpy()
        _draw_solid_boxes(axes, found, colors[found.labels], lidar2img, canvas.unit, dashed=False)
        _draw_solid_boxes(axes, truth, _truth_colors(truth, colors, color_truth), lidar2img, canvas.unit, dashed=True)
    _frame_picture(canvas, title, f"{len(images)} cameras", colors, truth, found, color_truth)
    return canvas.image()


def _check_images(images: Sequence[np.ndarray], cameras: Cameras) -> None:
    if not len(images) or len(images) != len(cameras):
        raise ValueError(f"draw_cameras: need one image a camera, got {len(images)} for {len(cameras)} cameras")
    for name, image, size in zip(cameras.names, images, cameras.image_sizes.tolist(), strict=True):
        if image.shape != (*size, 3) or image.dtype != np.uint8:
            raise ValueError(
                f"draw_cameras: image of {name} must be {[*size, 3]} uint8 as its camera states, "
                f"got {list(image.shape)} {image.dtype}"
            )


def _viewing_order(names: Sequence[str]) -> list[int]:
    """Return the positions of the cameras as they are laid out."""
    rank = {name: place for place, name in enumerate(CAMERA_ORDER)}
    return sorted(range(len(names)), key=lambda camera: rank.get(names[camera], len(rank)))


def _tiles(sizes: Sequence[tuple[int, int]], width: int) -> list[tuple[int, int, int, int]]:
    """Return ``(left, top, width, height)`` of each image: equal widths, rows as high as their highest image."""
    columns = min(len(sizes), CAMERAS_A_ROW)
    tile_width = (width - (columns - 1) * GAP) // columns
    heights = [round(height * tile_width / image_width) for height, image_width in sizes]
    rows = [max(heights[first : first + columns]) + GAP for first in range(0, len(heights), columns)]
    return [
        (index % columns * (tile_width + GAP), sum(rows[: index // columns]), tile_width, height)
        for index, height in enumerate(heights)
    ]


def _draw_image(canvas: Canvas, image: np.ndarray, tile: tuple[int, int, int, int], name: str) -> Axes:
    """Draw an image with its name; return axes whose coordinates are the pixels of the whole image."""
    height, width = image.shape[:2]
    axes = canvas.view(tile, (0, width), (height, 0))
    small = cv2.resize(image, tile[2:], interpolation=cv2.INTER_AREA)
    axes.imshow(small, extent=(0, width, height, 0), aspect="auto", interpolation="nearest")
    axes.annotate(
        name,
        (0, 1),
        (10 * canvas.unit, -10 * canvas.unit),
        xycoords="axes fraction",
        textcoords="offset pixels",
        va="top",
        fontsize=11 * canvas.unit,
        color="white",
        parse_math=False,
        bbox=dict(boxstyle="round,pad=0.35", facecolor=BACKGROUND, edgecolor="none", alpha=0.75),
        zorder=5,
    )
    return axes


def _draw_solid_boxes(
    axes: Axes,
    objects: Objects,
    colors: np.ndarray,  # [N, 3]
    lidar2img: np.ndarray,  # [4, 4]
    unit: float,
    *,
    dashed: bool,
) -> None:
    """Draw the edges of boxes as a camera sees them, and fill the faces they head to."""
    corners = _project(objects.corners(), lidar2img)
    lines, visible = _clip_near(corners[:, EDGES].reshape(-1, 2, 3))
    shade = np.repeat(colors, len(EDGES), axis=0)[visible]
    style = dict(linestyles=[DASHES]) if dashed else {}
    width, alpha = (0.8, 0.75) if dashed else (1.4, 1.0)
    axes.add_collection(
        LineCollection(lines, colors=shade, linewidths=width * unit, alpha=alpha, zorder=3 + dashed, **style)
    )

    whole = (corners[..., 2] > NEAR).all(axis=1)
    faces = corners[whole][:, FRONT_FACE]
    axes.add_collection(
        PolyCollection(
            faces[..., :2] / faces[..., 2:], facecolors=colors[whole], alpha=0.15 if dashed else 0.35, zorder=2
        )
    )


def _project(points: np.ndarray, lidar2img: np.ndarray) -> np.ndarray:
    """Return ``(u d, v d, d)`` ``[..., 3]`` of points ``[..., 3]``."""
    return points @ lidar2img[:3, :3].T + lidar2img[:3, 3]


def _clip_near(segments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cut segments ``[S, 2, 3]`` ``(u d, v d, d)`` at the near plane.

    Returns:
        Pixels ``[K, 2, 2]`` of what lies in front of the plane, and the positions ``[K]`` of these segments.
    """
    visible = np.flatnonzero((segments[..., 2] > NEAR).any(axis=1))
    start, end = segments[visible, 0], segments[visible, 1]
    depths = segments[visible, :, 2]
    span = np.where(depths[:, 0] == depths[:, 1], 1, depths[:, 1] - depths[:, 0])
    cut = ((NEAR - depths[:, 0]) / span)[:, None]
    point = start + cut * (end - start)
    start = np.where(depths[:, :1] < NEAR, point, start)
    end = np.where(depths[:, 1:] < NEAR, point, end)
    pixels = np.stack([start, end], axis=1)
    return pixels[..., :2] / pixels[..., 2:], visible
