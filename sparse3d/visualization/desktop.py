"""A desktop window on a scene (Open3D, extra `open3d`): the same points, boxes and layers as the pages.

Frames lie on the window's time line; what is shown is switched in its list of geometries, one group a kind.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb

from ..structures import Sample
from ..structures.boxes import EDGES
from .colors import BACKGROUND, GROUND_TRUTH, class_colors
from .layers import PointLayer
from .objects import Objects, box_lines, point_colors, read_ground_truth, read_points, read_predictions

POINT_SIZE, LAYER_SIZE, LINE_WIDTH = 2, 5, 2  # pixels
EDGES_A_BOX = len(EDGES) + 1  # and the tick that says where the front is
VIEW_FROM, UP = (-35.0, 0.0, 25.0), (0.0, 0.0, 1.0)  # metres: behind the vehicle and above it
FRAME_SECONDS = 0.5  # of the time line's animation, nuScenes' own pace


def show_scene(
    samples: Sequence[Sample],
    class_names: Sequence[str],
    *,
    title: str = "sparse3d",
    score_threshold: float = 0.3,
    mode: str = "height",
    **options: Any,
) -> None:
    """Open a window, and return when it is closed.

    Args:
        samples: one a frame; see ``write_scene_html``.
        class_names: names in the order of the labels.
        title: of the window.
        score_threshold: predictions below it are left out.
        mode: what colours points, ``"height"``, ``"intensity"`` or ``"time"``.
        options: more arguments of ``open3d.visualization.draw``.

    Raises:
        ModuleNotFoundError: without Open3D.
        ValueError: if there are no samples, or points, boxes, labels and scores do not fit together.
    """
    open3d = import_open3d()
    if not len(samples):
        raise ValueError("show_scene: there is no frame to show")
    entries = [
        entry
        for number, sample in enumerate(samples)
        for entry in scene_entries(sample, class_names, number, score_threshold, mode)
    ]
    style = dict(bg_color=(*to_rgb(BACKGROUND), 1.0), show_skybox=False, show_ui=True)
    view = dict(lookat=(0.0, 0.0, 0.0), eye=VIEW_FROM, up=UP)
    time = dict(animation_time_step=FRAME_SECONDS, animation_duration=FRAME_SECONDS * len(samples))
    open3d.visualization.draw(entries, title=title, **style, **view, **(time if len(samples) > 1 else {}), **options)


def scene_entries(
    sample: Sample, class_names: Sequence[str], number: int = 0, score_threshold: float = 0.3, mode: str = "height"
) -> Iterator[dict[str, Any]]:
    """Yield what ``open3d.visualization.draw`` shows of a frame: name, group, geometry, material, and its time.

    Args:
        sample: see ``write_scene_html``.
        class_names: names in the order of the labels.
        number: of the frame on the time line.
        score_threshold: predictions below it are left out.
        mode: what colours points.
    """
    place = dict(time=FRAME_SECONDS * number)
    if "points" in sample:
        points = read_points(sample.points)
        cloud = _cloud(points[:, :3], point_colors(points, mode) / 255)
        yield dict(name=f"points {number}", group="points", geometry=cloud, material=_material(POINT_SIZE), **place)
    for layer in sample.get("layers", ()):
        entry = dict(name=f"{layer.name} {number}", group=layer.name, geometry=layer_cloud(layer))
        yield dict(entry, material=_material(LAYER_SIZE), **place)
    truth = read_ground_truth(sample.get("gt"), class_names)
    found = read_predictions(sample.get("pred"), class_names)
    found = found.select(found.scores >= score_threshold)
    white = np.tile(to_rgb(GROUND_TRUTH), (len(truth), 1))
    for group, objects, colors in (
        ("ground truth", truth, white),
        ("predictions", found, class_colors(class_names)[found.labels]),
    ):
        if len(objects):
            lines = box_line_set(objects, colors)
            yield dict(name=f"{group} {number}", group=group, geometry=lines, material=_line_material(), **place)


def layer_cloud(layer: PointLayer) -> Any:
    """Return a layer as an ``open3d.geometry.PointCloud``."""
    return _cloud(layer.points, np.tile(to_rgb(layer.color), (len(layer.points), 1)))


def box_line_set(
    objects: Objects,  # N
    colors: np.ndarray,  # [N, 3]
) -> Any:
    """Return boxes, each with a tick towards its front, as an ``open3d.geometry.LineSet`` of 13 lines a box.

    Args:
        objects: the boxes.
        colors: ``[N, 3]`` RGB in [0, 1], one a box.
    """
    open3d = import_open3d()
    ends = box_lines(objects).reshape(-1, 3).astype(np.float64)
    lines = open3d.geometry.LineSet()
    lines.points = open3d.utility.Vector3dVector(ends)
    lines.lines = open3d.utility.Vector2iVector(np.arange(len(ends), dtype=np.int32).reshape(-1, 2))
    lines.colors = open3d.utility.Vector3dVector(np.repeat(colors, EDGES_A_BOX, axis=0))
    return lines


def import_open3d() -> Any:
    """Return the package.

    Raises:
        ModuleNotFoundError: where it is not installed.
    """
    try:
        import open3d
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("the desktop window needs Open3D: pip install 'sparse3d[open3d]'") from error
    return open3d


def _cloud(points: np.ndarray, colors: np.ndarray) -> Any:
    open3d = import_open3d()
    cloud = open3d.geometry.PointCloud()
    cloud.points = open3d.utility.Vector3dVector(points.astype(np.float64))
    cloud.colors = open3d.utility.Vector3dVector(colors)
    return cloud


def _material(point_size: int) -> Any:
    material = import_open3d().visualization.rendering.MaterialRecord()
    material.shader, material.point_size = "defaultUnlit", point_size
    return material


def _line_material() -> Any:
    material = import_open3d().visualization.rendering.MaterialRecord()
    material.shader, material.line_width = "unlitLine", LINE_WIDTH
    return material
