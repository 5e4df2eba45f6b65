"""Class colours are distinct and readable on the dark background; maps run from quiet to bright."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from sparse3d.datasets.nuscenes_schema import DETECTION_CLASSES
from sparse3d.visualization import class_colors, point_map
from sparse3d.visualization.colors import BACKGROUND, CLASS_COLORS, GROUND_TRUTH, POINT_MAPS, spread, to_levels


def lab(colors: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(np.float32(colors)[None], cv2.COLOR_RGB2LAB)[0]


def luminance(colors: np.ndarray) -> np.ndarray:
    """Relative luminance of WCAG 2."""
    linear = np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def test_the_ten_classes_have_a_colour() -> None:
    assert set(CLASS_COLORS) == set(DETECTION_CLASSES)


def test_class_colours_are_distinct() -> None:
    colors = lab(np.concatenate([class_colors(DETECTION_CLASSES), [to_rgb(GROUND_TRUTH)]]))
    distances = np.linalg.norm(colors[:, None] - colors[None], axis=-1) + 1000 * np.eye(len(colors))
    assert distances.min() > 25  # CIE76; 2.3 is just noticeable


def test_class_colours_are_readable_on_the_background() -> None:
    contrast = (luminance(class_colors(DETECTION_CLASSES)) + 0.05) / (luminance(np.array(to_rgb(BACKGROUND))) + 0.05)
    assert contrast.min() > 4.5  # WCAG 2, level AA for text


def test_a_class_keeps_its_colour_whatever_the_order() -> None:
    assert class_colors(["bus", "car"])[1].tolist() == class_colors(["car"])[0].tolist()


def test_other_classes_get_distinct_colours() -> None:
    colors = class_colors([f"thing {number}" for number in range(12)])
    assert colors.shape == (12, 3)
    assert len(np.unique(colors.round(2), axis=0)) == 12
    assert ((colors >= 0) & (colors <= 1)).all()


def test_no_classes() -> None:
    assert class_colors([]).shape == (0, 3)


@pytest.mark.parametrize("name", POINT_MAPS)
def test_point_maps(name: str) -> None:
    table = point_map(name)
    assert table.shape == (256, 3) and table.dtype == np.uint8
    brightness = luminance(table / 255)
    steps = np.diff(brightness) * (-1 if name == "time" else 1)  # the newest points are the brightest
    assert (steps > -0.004).all()  # monotone up to rounding


def test_unknown_map() -> None:
    with pytest.raises(ValueError, match="height"):
        point_map("heigth")


def test_levels() -> None:
    assert to_levels(np.array([-5.0, 0, 5, 10, 20]), 0, 10).tolist() == [0, 0, 128, 255, 255]
    assert to_levels(np.array([3.0, 4.0]), 3, 3).tolist() == [0, 255]  # no span: no division by zero


def test_spread() -> None:
    assert spread(np.arange(101.0)) == (2.0, 98.0)
    assert spread(np.zeros(0)) == (0.0, 1.0)
