"""What the desktop window is given: boxes as lines, points and layers with their colours, frames in time."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from sparse3d.structures import Sample
from sparse3d.visualization import PointLayer, class_colors
from sparse3d.visualization.desktop import FRAME_SECONDS, layer_cubes, scene_entries, show_scene
from sparse3d.visualization.objects import point_colors
from tests.visualization.scenes import NAMES, box, predictions, truth
from tests.visualization.test_web import cloud

pytest.importorskip("open3d", reason="Open3D is not installed (extra open3d)")


@pytest.fixture
def sample() -> Sample:
    return Sample(
        points=cloud(50),
        gt=truth(box(1, 2)),
        pred=predictions(box(3, 4), box(5, 6), box(7, 8), labels=[0, 1, 2], scores=[0.9, 0.5, 0.1]),
        layers=(PointLayer("kept", np.array([[1.0, 2, 3]]), "#ffd0a1", 0.4),),
    )


def test_geometry_of_a_frame(sample: Sample) -> None:
    entries = {entry["group"]: entry for entry in scene_entries(sample, NAMES, number=3)}
    points = [f"points by {mode}" for mode in ("height", "intensity", "time")]
    assert list(entries) == [*points, "kept", "ground truth", "predictions"]
    assert [entries[name]["is_visible"] for name in points] == [True, False, False]
    assert {entry["time"] for entry in entries.values()} == {3 * FRAME_SECONDS}
    assert len({entry["name"] for entry in entries.values()}) == 6
    for mode in ("height", "time"):
        cloud = entries[f"points by {mode}"]["geometry"]
        np.testing.assert_allclose(np.asarray(cloud.points), sample.points[:, :3].numpy(), rtol=1e-6)
        np.testing.assert_allclose(np.asarray(cloud.colors), point_colors(sample.points.numpy(), mode) / 255)


def test_a_layer_is_closed_cubes_of_its_size(sample: Sample) -> None:
    layer = PointLayer("kept", np.array([[1.0, 2, 3], [-4, 0, 1]]), "#ffd0a1", 0.4)
    mesh = layer_cubes(layer)
    corners = np.asarray(mesh.vertices).reshape(2, 8, 3)
    np.testing.assert_allclose(corners.mean(axis=1), layer.points, atol=1e-6)
    np.testing.assert_allclose(np.ptp(corners, axis=1), 0.4, atol=1e-6)
    np.testing.assert_allclose(np.asarray(mesh.vertex_colors), np.tile(to_rgb("#ffd0a1"), (16, 1)))
    assert mesh.is_watertight() and mesh.get_volume() == pytest.approx(2 * 0.4**3)
    assert len(np.asarray(layer_cubes(PointLayer("none", np.zeros((0, 3)), "#ffffff", 1.0)).vertices)) == 0


def test_boxes_are_line_sets(sample: Sample) -> None:
    entries = {entry["group"]: entry["geometry"] for entry in scene_entries(sample, NAMES)}
    found, white = entries["predictions"], entries["ground truth"]
    assert np.asarray(found.lines).shape == (2 * 13, 2)  # the third prediction scores too little
    ends = np.asarray(found.points)[np.asarray(found.lines)]
    lengths = np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1).reshape(2, 13)
    np.testing.assert_allclose(np.sort(lengths[0]), [1.5] * 4 + [2] * 5 + [4] * 4)  # edges, and half a length
    colors = class_colors(NAMES)
    # The best one is drawn last.
    np.testing.assert_allclose(np.asarray(found.colors).reshape(2, 13, 3), np.repeat(colors[[1, 0]][:, None], 13, 1))
    assert (np.asarray(white.colors) == 1).all() and len(np.asarray(white.lines)) == 13


def test_what_is_absent_is_not_there() -> None:
    assert not list(scene_entries(Sample(), NAMES))
    with pytest.raises(ValueError, match="no frame"):
        show_scene([], NAMES)
