"""The bird's-eye picture shows what is there, where it is, in the colour it should have."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
import pytest
import torch

from sparse3d.structures import Boxes3D, InstanceData
from sparse3d.visualization import class_colors, draw_bev
from tests.visualization.scenes import NAMES, NO_POINTS, QUARTER, box, predictions, truth

EXTENT = (-25.0, -25.0, 25.0, 25.0)
SIZE = 500  # 10 pixels a metre
HEADER = 22


def draw(points=NO_POINTS, gt=None, pred=None, **options) -> np.ndarray:
    """Return the map alone, ``[500, 500, 3]``."""
    image = draw_bev(points, gt, pred, NAMES, extent=EXTENT, size=SIZE, **options)
    return image[HEADER : HEADER + SIZE].astype(int)


def at(image: np.ndarray, x: float, y: float) -> np.ndarray:
    """Return the pixel that shows ``(x, y)``."""
    return image[int((25 - y) * 10), int((x + 25) * 10)]


@cache
def empty_map() -> np.ndarray:
    return draw()


def changed(image: np.ndarray) -> np.ndarray:
    return np.abs(image - empty_map()).sum(axis=-1) > 24


def close(pixel: np.ndarray, color: np.ndarray, tolerance: int = 40) -> bool:
    return bool(np.abs(pixel - color * 255).max() <= tolerance)


# -- points -----------------------------------------------------------------------------------------------------------


def test_points_appear_where_they_are() -> None:
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(np.arange(-23, 24, 4.7), np.arange(-23, 24, 4.7))
    places = np.stack([x.ravel(), y.ravel()], axis=1) + rng.uniform(-1, 1, (x.size, 2))
    radii = np.hypot(*places.T)
    places = places[(radii > 4) & (np.abs(radii - 20) > 1)]  # clear of the sensor's mark and the ring
    points = np.concatenate([places, np.zeros((len(places), 1))], axis=1)
    count, _, boxes, centers = cv2.connectedComponentsWithStats(changed(draw(points)).astype(np.uint8))
    found = (centers[1:] + 0.5) / 10 * (1, -1) + (-25, 25)
    distances = np.linalg.norm(found[:, None] - places, axis=-1)
    assert count - 1 == len(places)
    assert np.sort(distances.argmin(axis=1)).tolist() == list(range(len(places)))
    assert distances.min(axis=1).max() <= 0.1  # one pixel
    assert boxes[1:, cv2.CC_STAT_AREA].max() <= 4


def test_x_is_to_the_right_and_y_is_up() -> None:
    left, up = changed(draw(torch.tensor([[-10.0, 1, 0]]))), changed(draw(torch.tensor([[1.0, 10, 0]])))
    assert np.nonzero(left)[1].max() < 250
    assert np.nonzero(up)[0].max() < 250


def test_height_gives_the_colour() -> None:
    image = draw(torch.tensor([[-10.05, 9.95, -2.0], [10.05, 9.95, 4.0]]))
    low, high = at(image, -10.05, 9.95), at(image, 10.05, 9.95)
    assert high.sum() > low.sum() + 200


def test_points_outside_are_left_out() -> None:
    assert not changed(draw(torch.tensor([[25.2, 0, 0], [0, -26, 0], [1e6, 1e6, 0]]))).any()


def test_points_add_up_in_one_pixel() -> None:
    one = draw(torch.tensor([[5.0, 5.0, 0]]))  # on a corner of four pixels, a quarter each
    many = draw(torch.tensor([[5.0, 5.0, 0]] * 8))
    assert at(many, 4.95, 5.05).sum() > at(one, 4.95, 5.05).sum()


# -- boxes ------------------------------------------------------------------------------------------------------------


def test_a_prediction_has_the_colour_of_its_class() -> None:
    image = draw(pred=predictions(box(10, 5), box(-10, -5), labels=[0, 1]))
    car, truck, _ = class_colors(NAMES)
    for label_color, (x, y) in ((car, (10, 5)), (truck, (-10, -5))):
        for corner_x, corner_y in ((x - 2, y), (x, y + 1), (x, y - 1)):  # middles of the rear and the sides
            patch = image[int((25 - corner_y) * 10) - 1 :, int((corner_x + 25) * 10) - 1 :][:3, :3].reshape(-1, 3)
            assert any(close(pixel, label_color) for pixel in patch)
    assert not changed(image)[:, 260:330].any()  # nothing between the two


def test_a_box_covers_its_footprint_and_no_more() -> None:
    mask = changed(draw(pred=predictions(box(10, 5, size=(4, 2, 1), yaw=QUARTER))))
    rows, columns = np.nonzero(mask)
    assert abs((columns.max() - columns.min() + 1) / 10 - 2) <= 0.3  # w lies along x after a quarter turn
    assert abs((rows.max() - rows.min() + 1) / 10 - 4.5) <= 0.3  # l, and the heading tick
    assert at(mask, 10, 4) and at(mask, 9.2, 6.5)


@pytest.mark.parametrize(
    ("yaw", "side"), [(0.0, (1, 0)), (QUARTER, (0, 1)), (2 * QUARTER, (-1, 0)), (-QUARTER, (0, -1))]
)
def test_the_tick_marks_the_heading(yaw: float, side: tuple[int, int]) -> None:
    mask = changed(draw(pred=predictions(box(10, 10, yaw=yaw))))
    assert at(mask, 10 + 2.3 * side[0], 10 + 2.3 * side[1])
    assert not at(mask, 10 - 2.3 * side[0], 10 - 2.3 * side[1])


def test_the_arrow_shows_the_next_second() -> None:
    still = changed(draw(pred=predictions(box(10, 5))))
    moving = changed(draw(pred=predictions(box(10, 5, v=(0, 8)))))
    assert at(moving, 10, 10) and at(moving, 10, 12.8) and not at(moving, 10, 13.5)
    assert not at(still, 10, 10)


def test_an_unknown_velocity_draws_no_arrow() -> None:
    unknown = draw(gt=truth(box(10, 5, v=(np.nan, np.nan))))
    assert (unknown == draw(gt=truth(box(10, 5)))).all()


def test_boxes_without_velocity() -> None:
    boxes = Boxes3D(torch.tensor([box(10, 5)])[:, :7])
    bare = InstanceData(boxes=boxes, labels=torch.tensor([0]), scores=torch.tensor([0.9]))
    assert (draw(pred=bare) == draw(pred=predictions(box(10, 5)))).all()


def test_ground_truth_is_white_and_dashed() -> None:
    image = draw(gt=truth(box(10, 10, size=(8, 6, 1))))
    side = image[119:121, 315:390].max(axis=0)  # along y = 13
    spread_of_channels = side.max(axis=-1) - side.min(axis=-1)
    bright = side.min(axis=-1) > 80
    assert bright.any() and not bright.all()
    assert spread_of_channels[bright].max() < 20
    assert not changed(image)[130:170, 320:340].any()  # not filled


def test_ground_truth_may_have_the_colours_of_its_classes() -> None:
    boxes = [box(10, 10, size=(8, 6, 1)), box(-10, 10, size=(8, 6, 1))]
    image = draw(gt=truth(*boxes, labels=[1, -1]), color_truth=True).astype(float)
    sides = image[119:121, 315:390], image[119:121, 115:190]  # along y = 13
    brightest = [side.reshape(-1, 3)[side.sum(axis=-1).argmax()] for side in sides]
    truck = class_colors(NAMES)[1]
    np.testing.assert_allclose(brightest[0] / brightest[0].max(), truck / truck.max(), atol=0.06)
    assert np.ptp(brightest[1]) < 20  # of no class: white


def test_objects_of_no_class_are_drawn() -> None:
    assert changed(draw(gt=truth(box(10, 5), labels=[-1]))).any()


@pytest.mark.parametrize(("threshold", "shown"), [(0.0, True), (0.5, True), (0.51, False)])
def test_the_score_threshold(threshold: float, shown: bool) -> None:
    pred = predictions(box(10, 5), scores=[0.5])
    assert changed(draw(pred=pred, score_threshold=threshold)).any() == shown


def test_the_best_prediction_is_on_top() -> None:
    both = predictions(box(10, 5), box(10, 5), labels=[1, 0], scores=[0.4, 0.9])
    swapped = predictions(box(10, 5), box(10, 5), labels=[0, 1], scores=[0.9, 0.4])
    assert (draw(pred=both) == draw(pred=swapped)).all()
    image = draw_bev(NO_POINTS, None, both, NAMES, extent=(5, 0, 15, 10), size=SIZE)[HEADER:].astype(int)
    rear = image[235, 147:153]  # x = 8
    assert close(rear[rear.sum(axis=-1).argmax()], class_colors(NAMES)[0], tolerance=60)


# -- the picture ------------------------------------------------------------------------------------------------------


def test_the_longer_side_has_the_size() -> None:
    wide = draw_bev(NO_POINTS, None, None, NAMES, extent=(-50, -20, 50, 20), size=400)
    assert wide.shape[1] == 400 and 160 < wide.shape[0] < 240  # 160 for the map, the rest for header and legend
    assert wide.dtype == np.uint8


def test_a_narrow_map_stands_in_the_middle() -> None:
    extent, header = (-10, -40, 10, 40), 18
    found = draw_bev(torch.tensor([[-9.0, 5, 0], [9, 5, 0]]), None, None, NAMES, extent=extent, size=400)
    empty = draw_bev(NO_POINTS, None, None, NAMES, extent=extent, size=400)
    _, columns = np.nonzero(np.abs(found.astype(int) - empty).sum(axis=-1)[header : header + 400] > 24)
    middle = found.shape[1] / 2
    assert abs(columns.min() - (middle - 45)) <= 1 and abs(columns.max() - (middle + 44)) <= 1  # 5 pixels a metre


def test_the_legend_names_present_classes_brightly() -> None:
    nothing = draw_bev(NO_POINTS, None, None, NAMES, extent=EXTENT, size=SIZE)[HEADER + SIZE :].astype(int)
    found = draw_bev(NO_POINTS, None, predictions(box(9, 9)), NAMES, extent=EXTENT, size=SIZE)[HEADER + SIZE :]
    assert found.shape == nothing.shape
    brighter = (found.astype(int) - nothing).sum(axis=(0, 2))
    first_column = brighter[: SIZE // 4]
    assert first_column.sum() > 0
    assert (brighter[SIZE // 4 :] == 0).all()


def test_a_title_is_text_and_not_mathematics() -> None:
    image = draw_bev(NO_POINTS, None, None, NAMES, extent=EXTENT, size=SIZE, title=r"cost: $x_ and \frac$")
    assert image[:HEADER, :200].max() > 150


def test_without_an_extent_every_box_is_inside() -> None:
    near = torch.randn(100, 3)
    image = draw_bev(near, truth(box(-71, 3)), None, NAMES, size=SIZE)[HEADER : HEADER + SIZE].astype(int)
    empty = draw_bev(near, None, None, NAMES, extent=(-80, -80, 80, 80), size=SIZE)[HEADER : HEADER + SIZE].astype(int)
    _, columns = np.nonzero(np.abs(image - empty).sum(axis=-1) > 24)
    assert np.abs(columns.mean() / SIZE * 160 - 80 + 71) < 2


def test_nothing_at_all() -> None:
    image = draw_bev(NO_POINTS, None, None, [], size=300)
    assert image.ndim == 3 and image.shape[1] == 300


def test_drawing_is_repeatable() -> None:
    points, pred = torch.randn(500, 4) * 10, predictions(box(3, 4, yaw=0.3))
    assert (draw(points, pred=pred) == draw(points.numpy(), pred=pred)).all()


# -- refusals ---------------------------------------------------------------------------------------------------------


def test_refuses_what_does_not_fit() -> None:
    good = predictions(box(1, 2))
    wrong_scores = InstanceData(boxes=good.boxes, labels=good.labels, scores=torch.rand(1, 2))
    with pytest.raises(ValueError, match=r"points: expected \[P, >= 3\], got \[5, 2\]"):
        draw(torch.zeros(5, 2))
    with pytest.raises(ValueError, match=r"points: .*finite"):
        draw(torch.full((1, 3), torch.nan))
    with pytest.raises(ValueError, match=r"pred.scores: expected \[1\]"):
        draw(pred=wrong_scores)
    with pytest.raises(ValueError, match=r"pred.labels: expected 0 to 2, got \[-1\]"):
        draw(pred=predictions(box(1, 2), labels=[-1]))
    with pytest.raises(ValueError, match=r"gt.labels: expected -1 to 2"):
        draw(gt=truth(box(1, 2), labels=[3]))
    with pytest.raises(ValueError, match=r"gt.boxes: .*finite"):
        draw(gt=truth(box(float("inf"), 2)))
    with pytest.raises(ValueError, match=r"extent"):
        draw_bev(NO_POINTS, None, None, NAMES, extent=(5, 0, 5, 1))
