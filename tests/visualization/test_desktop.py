"""What the desktop window is given: boxes as lines, points and layers with their colours, frames in time."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from sparse3d.structures import Sample
from sparse3d.visualization import PointLayer, class_colors
from sparse3d.visualization.desktop import FRAME_SECONDS, scene_entries, show_scene
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
    assert list(entries) == ["points", "kept", "ground truth", "predictions"]
    assert {entry["time"] for entry in entries.values()} == {3 * FRAME_SECONDS}
    assert len({entry["name"] for entry in entries.values()}) == 4
    points = entries["points"]["geometry"]
    np.testing.assert_allclose(np.asarray(points.points), sample.points[:, :3].numpy(), rtol=1e-6)
    np.testing.assert_allclose(np.asarray(points.colors), point_colors(sample.points.numpy(), "height") / 255)
    layer = entries["kept"]["geometry"]
    assert np.asarray(layer.points).tolist() == [[1, 2, 3]]
    np.testing.assert_allclose(np.asarray(layer.colors), [to_rgb("#ffd0a1")])


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
