"""People with their keypoints, one a column: in the camera that sees them, from the side of the sensor, and from above.

    from the sensor   to the right: across the line of sight;   up: z
    from above        up: away from the sensor

Predicted bones have the colour of their side of the body, annotated ones are white and dashed. A bone is drawn where
both of its ends are there: visible or occluded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from mmengine.structures import InstanceData
from torch import Tensor

from ..structures import Cameras
from ..structures.skeleton import BONES, KEYPOINTS, NUM_KEYPOINTS
from .canvas import DASHES, Canvas
from .colors import BACKGROUND, GROUND_TRUTH, MUTED, PANEL, point_map, to_levels
from .draw import NEAR
from .objects import read_points

SIDES = ("left", "right", "head")
SIDE_COLORS = ("#2fd6ee", "#ff9d2e", "#b6f23c")
REACH = 1.3  # metres from the middle of a box to the edge of its panel
THERE = 0.5  # a keypoint with at least this visibility is drawn
GAP = 8  # units between panels


@dataclass(frozen=True)
class Skeletons:
    """People to draw.

    Args:
        centers: ``[N, 3]`` float64, of their boxes.
        places: ``[N, 14, 3]`` float64.
        there: ``[N, 14]`` bool.
    """

    centers: np.ndarray
    places: np.ndarray
    there: np.ndarray

    @classmethod
    def read(cls, instances: InstanceData | None, score_threshold: float = 0.0) -> Skeletons:
        """Return ground truth, or predictions of some score; nobody for None.

        Raises:
            ValueError: if keypoints and boxes do not fit together.
        """
        if instances is None:
            return cls(np.zeros((0, 3)), np.zeros((0, NUM_KEYPOINTS, 3)), np.zeros((0, NUM_KEYPOINTS), bool))
        count = len(instances.boxes)
        places, visibility = (
            instances.get(name).detach().cpu().double().numpy() for name in ("keypoints", "keypoint_visibility")
        )
        if places.shape != (count, NUM_KEYPOINTS, 3) or visibility.shape != (count, NUM_KEYPOINTS):
            raise ValueError(
                f"keypoints: expected [{count}, {NUM_KEYPOINTS}, 3] with a visibility each, "
                f"got {list(places.shape)} and {list(visibility.shape)}"
            )
        centers, there = instances.boxes.centers.detach().cpu().double().numpy(), visibility >= THERE
        shown = there.any(axis=1)
        if "scores" in instances:
            shown &= instances.scores.detach().cpu().numpy() >= score_threshold
        return cls(centers[shown], places[shown], there[shown])

    def __len__(self) -> int:
        return len(self.centers)

    def near(self, center: np.ndarray) -> Skeletons:
        """Return the people who may reach into the panel round a place."""
        rows = (np.abs(self.centers - center) < 2 * REACH).all(axis=1)
        return Skeletons(self.centers[rows], self.places[rows], self.there[rows])

    def bones(self, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return lines ``[K, 2, 2]`` between keypoints at ``ends`` ``[N, 14, 2]``, and the bone ``[K]`` of each."""
        start, end = np.array(BONES).T
        person, bone = np.nonzero(self.there[:, start] & self.there[:, end])
        lines = np.stack([ends[person, start[bone]], ends[person, end[bone]]], axis=1)
        seen = np.isfinite(lines).all(axis=(1, 2))
        return lines[seen], bone[seen]


def has_skeletons(gt: InstanceData | None, pred: InstanceData, score_threshold: float = 0.3) -> bool:
    """Return whether there is anybody for ``draw_skeletons`` to draw."""
    if "keypoints" not in pred:
        return False
    return len(Skeletons.read(gt)) + len(Skeletons.read(pred, score_threshold)) > 0


def draw_skeletons(
    points: Tensor | np.ndarray,  # [P, >= 3]
    gt: InstanceData | None,
    pred: InstanceData | None,
    *,
    images: Sequence[np.ndarray] = (),
    cameras: Cameras | None = None,
    max_people: int = 5,
    score_threshold: float = 0.3,
    size: int = 300,
    title: str = "",
) -> np.ndarray:
    """Draw the nearest people of a frame: the annotated ones, or where there are none, the predicted ones.

    Those whom an image shows come first.

    Args:
        points: ``[P, >= 3]`` ``x, y, z`` in metres.
        gt: ``boxes``, ``keypoints`` ``[N, 14, 3]`` and ``keypoint_visibility`` ``[N, 14]``, or None.
        pred: the same and ``scores`` ``[M]``, or None.
        images: one ``[H, W, 3]`` uint8 RGB image a camera; without any, there is no row of images.
        cameras: their calibration; boxes are in its LiDAR frame.
        max_people: columns at most.
        score_threshold: predictions below it are left out.
        size: side of a panel in pixels.
        title: heading of the picture.

    Returns:
        ``[H, W, 3]`` uint8 RGB.

    Raises:
        ValueError: if images and cameras, or keypoints and boxes do not fit together, or there is nobody to draw.
    """
    if len(images) != (0 if cameras is None else len(cameras)):
        raise ValueError(f"draw_skeletons: need one image a camera, got {len(images)} images")
    cloud = read_points(points)[:, :3].astype(np.float64)
    truth, found = Skeletons.read(gt), Skeletons.read(pred, score_threshold)
    shown = truth.centers if len(truth) else found.centers
    if not len(shown):
        raise ValueError("draw_skeletons: nobody has keypoints here")
    in_image = _in_images(shown, cameras).any(axis=0)
    shown = shown[np.lexsort((np.linalg.norm(shown, axis=1), ~in_image))[:max_people]]

    unit = size / 300
    step = size + round(GAP * unit)
    canvas = Canvas(len(shown) * step - step + size, (2 + bool(images)) * step, SIDES, unit=unit)
    for column, center in enumerate(shown):
        boxes = [(column * step, row * step, size, size) for row in range(3)]
        if images:
            _draw_in_camera(canvas, boxes.pop(0), center, truth, found, images, cameras)
        for (label, plane), box in zip(_planes(center).items(), boxes, strict=False):
            axes = _draw_plane(canvas, box, center, truth, found, cloud, plane)
            _label(axes, label, unit)
    canvas.header(title, f"{len(truth)} annotated   ·   {len(found)} predicted")
    canvas.legend(np.array([to_rgb(color) for color in SIDE_COLORS]), [bool(len(found))] * len(SIDES), bool(len(truth)))
    return canvas.image()


def _planes(center: np.ndarray) -> dict[str, np.ndarray]:
    """Return the planes ``[2, 3]`` that a person is projected to; see the top of the file."""
    sight = np.arctan2(center[1], center[0])
    across, away = np.array([np.sin(sight), -np.cos(sight), 0.0]), np.array([np.cos(sight), np.sin(sight), 0.0])
    distance = f"{np.hypot(center[0], center[1]):.0f} m away"
    return {distance: np.stack([across, [0, 0, 1]]), "from above": np.stack([across, away])}


def _draw_plane(
    canvas: Canvas,
    box: tuple[int, int, int, int],
    center: np.ndarray,  # [3]
    truth: Skeletons,
    found: Skeletons,
    cloud: np.ndarray,  # [P, 3]
    plane: np.ndarray,  # [2, 3]
) -> Axes:
    """Draw what is near a person, projected to a plane."""
    axes = canvas.view(box, (-REACH, REACH), (-REACH, REACH))
    axes.set_facecolor(PANEL)
    near = cloud[(np.abs(cloud - center) < 1.5 * REACH).all(axis=1)]
    colors = point_map("height")[to_levels(near[:, 2], center[2] - REACH, center[2] + REACH)] / 255
    axes.scatter(*((near - center) @ plane.T).T, s=5 * canvas.unit**2, c=colors, linewidths=0)
    for people, dashed in ((found.near(center), False), (truth.near(center), True)):
        _draw_bones(axes, *people.bones((people.places - center) @ plane.T), canvas.unit, dashed=dashed)
    return axes


def _draw_in_camera(
    canvas: Canvas,
    box: tuple[int, int, int, int],
    center: np.ndarray,  # [3]
    truth: Skeletons,
    found: Skeletons,
    images: Sequence[np.ndarray],
    cameras: Cameras,
) -> None:
    """Draw the part of an image round a person, or that no camera sees them."""
    sees = _in_images(center[None], cameras)[:, 0]
    if not sees.any():
        return _label(canvas.view(box, (0, 1), (0, 1)), "in no image", canvas.unit)
    camera = int(np.argmax(sees))
    lidar2img = cameras.lidar2img[camera].cpu().numpy()
    (u, v), depth = _pixels(center, lidar2img), lidar2img[2, :3] @ center + lidar2img[2, 3]
    reach = REACH * cameras.intrinsics[camera, 0, 0].item() * _scale(cameras, camera) / depth
    image = images[camera]
    axes = canvas.view(box, (u - reach, u + reach), (v + reach, v - reach))
    axes.imshow(image, extent=(0, image.shape[1], image.shape[0], 0), aspect="auto", interpolation="bilinear")
    axes.set(xlim=(u - reach, u + reach), ylim=(v + reach, v - reach))
    for people, dashed in ((found, False), (truth, True)):
        _draw_bones(axes, *people.bones(_pixels(people.places, lidar2img)), canvas.unit, dashed=dashed)
    return _label(axes, cameras.names[camera], canvas.unit)


def _in_images(centers: np.ndarray, cameras: Cameras | None) -> np.ndarray:
    """Return the mask ``[C, N]`` of places ``[N, 3]`` that each camera sees."""
    if cameras is None:
        return np.zeros((1, len(centers)), bool)
    return cameras.visible(torch.from_numpy(centers)).cpu().numpy()


def _scale(cameras: Cameras, camera: int) -> float:
    """Return how many times as large as recorded an image is."""
    return abs(np.linalg.det(cameras.image_aug[camera, :2, :2].cpu().numpy())) ** 0.5


def _pixels(places: np.ndarray, lidar2img: np.ndarray) -> np.ndarray:
    """Return pixels ``[..., 2]`` of places ``[..., 3]``, NaN behind the camera."""
    projected = places @ lidar2img[:3, :3].T + lidar2img[:3, 3]
    depth = np.where(projected[..., 2:] > NEAR, projected[..., 2:], np.nan)
    return projected[..., :2] / depth


def _draw_bones(
    axes: Axes,
    lines: np.ndarray,  # [K, 2, 2]
    bones: np.ndarray,  # [K]
    unit: float,
    *,
    dashed: bool,
) -> None:
    colors = GROUND_TRUTH if dashed else [SIDE_COLORS[_side(*BONES[bone])] for bone in bones]
    style = dict(linestyles=[DASHES], linewidths=1.3 * unit) if dashed else dict(linewidths=2.6 * unit)
    axes.add_collection(LineCollection(lines, colors=colors, zorder=4 + dashed, capstyle="round", **style))


def _side(start: int, end: int) -> int:
    """Return the position in ``SIDES`` of a bone: the side that its outer end is on."""
    for keypoint in (end, start):
        for side, name in enumerate(SIDES[:2]):
            if KEYPOINTS[keypoint].startswith(name.upper()):
                return side
    return SIDES.index("head")


def _label(axes: Axes, text: str, unit: float) -> None:
    style = dict(transform=axes.transAxes, va="top", parse_math=False, color=MUTED, fontsize=10 * unit, zorder=6)
    axes.text(0.03, 0.97, text, bbox=dict(facecolor=BACKGROUND, edgecolor="none", pad=2 * unit, alpha=0.7), **style)
