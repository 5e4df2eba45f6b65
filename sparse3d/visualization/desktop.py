"""A desktop window on a scene (Open3D, extra `open3d`): the same points, boxes and layers as the pages.

Frames lie on the window's time line; what is shown is switched in its list of geometries, one group a kind. The window
draws points with a size in pixels, all alike, so the points of a layer, whose size is in metres, are cubes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb

from ..structures import Sample
from ..structures.boxes import EDGES
from .colors import BACKGROUND, GROUND_TRUTH, POINT_MAPS, class_colors
from .layers import PointLayer
from .objects import Objects, box_lines, point_colors, read_ground_truth, read_points, read_predictions

POINT_SIZE, LINE_WIDTH = 2, 2  # pixels
CUBE_CORNERS = np.stack(np.meshgrid(*[(-0.5, 0.5)] * 3, indexing="ij"), axis=-1).reshape(8, 3)
CUBE_FACES = ((0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3))  # outside turns left
CUBE_TRIANGLES = np.array([(a, b, c) for p, q, r, s in CUBE_FACES for a, b, c in ((p, q, r), (p, r, s))])
EDGES_A_BOX = len(EDGES) + 1  # and the tick that says where the front is
VIEW_FROM, UP = (-35.0, 0.0, 25.0), (0.0, 0.0, 1.0)  # metres: behind the vehicle and above it
FRAME_SECONDS = 0.5  # of the time line's animation, nuScenes' own pace


def show_scene(
    samples: Sequence[Sample],
    class_names: Sequence[str],
    *,
    title: str = "sparse3d",
    score_threshold: float = 0.3,
) -> None:
    """Open a window, and return when it is closed.

    Args:
        samples: one a frame; see ``write_scene_html``.
        class_names: names in the order of the labels.
        title: of the window.
        score_threshold: predictions below it are left out.

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
        for entry in scene_entries(sample, class_names, number, score_threshold)
    ]
    style = dict(bg_color=(*to_rgb(BACKGROUND), 1.0), show_skybox=False, show_ui=True)
    view = dict(lookat=(0.0, 0.0, 0.0), eye=VIEW_FROM, up=UP)
    time = dict(animation_time_step=FRAME_SECONDS, animation_duration=FRAME_SECONDS * len(samples))
    time = time if len(samples) > 1 else {}
    open3d.visualization.draw(entries, title=title, on_init=_keep_colors, **style, **view, **time)


def scene_entries(
    sample: Sample, class_names: Sequence[str], number: int = 0, score_threshold: float = 0.3
) -> Iterator[dict[str, Any]]:
    """Yield what ``open3d.visualization.draw`` shows of a frame: name, group, geometry, material, and its time.

    The points are there three times, coloured by height, by intensity and by time; the first is switched on.

    Args:
        sample: see ``write_scene_html``.
        class_names: names in the order of the labels.
        number: of the frame on the time line.
        score_threshold: predictions below it are left out.
    """
    place = dict(time=FRAME_SECONDS * number)
    if "points" in sample:
        points = read_points(sample.points)
        for mode in POINT_MAPS:
            group, cloud = f"points by {mode}", point_cloud(points, mode)
            shown = dict(is_visible=mode == next(iter(POINT_MAPS)))
            yield dict(name=f"{group} {number}", group=group, geometry=cloud, material=_material(), **shown, **place)
    for layer in sample.get("layers", ()):
        cubes = layer_cubes(layer)
        yield dict(name=f"{layer.name} {number}", group=layer.name, geometry=cubes, material=_material(), **place)
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


def point_cloud(
    points: np.ndarray,  # [P, >= 3]
    mode: str,
) -> Any:
    """Return points as an ``open3d.geometry.PointCloud``, coloured by ``"height"``, ``"intensity"`` or ``"time"``."""
    open3d = import_open3d()
    cloud = open3d.geometry.PointCloud()
    cloud.points = open3d.utility.Vector3dVector(points[:, :3].astype(np.float64))
    cloud.colors = open3d.utility.Vector3dVector(point_colors(points, mode) / 255)
    return cloud


def layer_cubes(layer: PointLayer) -> Any:
    """Return a layer as an ``open3d.geometry.TriangleMesh`` with a cube of 8 corners a point."""
    open3d = import_open3d()
    corners = layer.points[:, None].astype(np.float64) + layer.size * CUBE_CORNERS
    first = len(CUBE_CORNERS) * np.arange(len(layer.points))
    triangles = (first[:, None, None] + CUBE_TRIANGLES).reshape(-1, 3)
    mesh = open3d.geometry.TriangleMesh()
    mesh.vertices = open3d.utility.Vector3dVector(corners.reshape(-1, 3))
    mesh.triangles = open3d.utility.Vector3iVector(triangles.astype(np.int32))
    mesh.paint_uniform_color(to_rgb(layer.color))
    return mesh


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


def _keep_colors(window: Any) -> None:
    """Show colours as they are: the window's tone mapping washes them out."""
    window.scene.view.set_post_processing(False)


def _material() -> Any:
    material = import_open3d().visualization.rendering.MaterialRecord()
    material.shader, material.point_size = "defaultUnlit", POINT_SIZE
    return material


def _line_material() -> Any:
    material = import_open3d().visualization.rendering.MaterialRecord()
    material.shader, material.line_width = "unlitLine", LINE_WIDTH
    return material
