"""Boxes appear at the pixels where the camera sees them, and nowhere else."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse3d.structures import Cameras
from sparse3d.visualization import class_colors, draw_cameras
from sparse3d.visualization.draw import NEAR, _clip_near
from tests.visualization.scenes import NAMES, QUARTER, box, predictions, truth

HEIGHT, WIDTH, FOCAL = 200, 320, 160.0
ORDER = ("CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_BACK_LEFT", "CAM_BACK", "CAM_BACK_RIGHT")
# Camera (x right, y down, z forward) that looks along the LiDAR's +x.
LIDAR2CAM = torch.tensor([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])


def rig(*names: str) -> Cameras:
    intrinsics = torch.tensor([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])
    count = len(names)
    sizes = torch.tensor([[HEIGHT, WIDTH]] * count)
    return Cameras.create(names, intrinsics.repeat(count, 1, 1), LIDAR2CAM.repeat(count, 1, 1), sizes)


def gray(level: int = 0) -> np.ndarray:
    return np.full((HEIGHT, WIDTH, 3), level, dtype=np.uint8)


def draw_one(gt=None, pred=None, **options) -> np.ndarray:
    """Return the image of one camera at twice its size, without header, legend and the camera's name."""
    picture = draw_cameras([gray()], rig("front"), gt, pred, NAMES, width=2 * WIDTH, **options)
    header = round(44 * 2 * WIDTH / 1400)
    return picture[header : header + 2 * HEIGHT].astype(int)


@cache
def empty_image() -> np.ndarray:
    return draw_one()


def drawn(image: np.ndarray) -> np.ndarray:
    return np.abs(image - empty_image()).sum(axis=-1) > 24


# -- boxes ------------------------------------------------------------------------------------------------------------


def test_a_box_is_where_the_camera_sees_it() -> None:
    mask = drawn(draw_one(pred=predictions(box(10, 0, size=(2, 4, 2)))))
    rows, columns = np.nonzero(mask)
    reach = 2 * FOCAL / 9  # of the near face, 9 m away: half its width of 4 m, in pixels; drawn at twice the size
    assert abs(columns.min() - (WIDTH - 2 * reach)) <= 2 and abs(columns.max() - (WIDTH + 2 * reach)) <= 2
    assert abs(rows.min() - (HEIGHT - reach)) <= 2 and abs(rows.max() - (HEIGHT + reach)) <= 2


def test_left_of_the_car_is_left_in_the_image() -> None:
    rows, columns = np.nonzero(drawn(draw_one(pred=predictions(box(10, 4, 2)))))
    assert columns.max() < WIDTH and rows.max() < HEIGHT


def test_edges_have_the_colour_of_the_class() -> None:
    image = draw_one(pred=predictions(box(10, 0, size=(2, 4, 2)), labels=[1]))
    left = WIDTH - 2 * 2 * FOCAL / 9
    edge = image[HEIGHT, round(left) - 3 : round(left) + 3]
    pixel = edge[edge.sum(axis=-1).argmax()]
    truck = class_colors(NAMES)[1]
    assert pixel.max() > 120
    np.testing.assert_allclose(pixel / pixel.max(), truck / truck.max(), atol=0.03)  # the image is black


def test_ground_truth_may_have_the_colours_of_its_classes() -> None:
    objects = truth(box(10, 0, size=(2, 4, 2)), labels=[1])
    white, colored = draw_one(gt=objects).astype(int), draw_one(gt=objects, color_truth=True).astype(int)
    assert np.ptp(white, axis=-1).max() < 20 < np.ptp(colored, axis=-1).max()


def test_the_face_it_heads_to_is_filled() -> None:
    coming = draw_one(pred=predictions(box(10, 0, size=(4, 2, 2), yaw=2 * QUARTER)))
    leaving = draw_one(pred=predictions(box(10, 0, size=(4, 2, 2))))
    # Between the far face (half width 160 / 12 = 13 pixels) and the near one (20 pixels), twice enlarged.
    between = (slice(HEIGHT - 20, HEIGHT + 20), slice(WIDTH + 31, WIDTH + 36))
    assert coming[between].sum() > 0
    assert leaving[between].sum() == 0
    assert leaving[HEIGHT, WIDTH + 5].sum() > 0  # the far face is the front


def test_ground_truth_is_white() -> None:
    image = draw_one(gt=truth(box(10, 0, size=(2, 4, 2))))
    bright = image[drawn(image)]
    assert bright.max() > 80
    assert (bright.max(axis=-1) - bright.min(axis=-1)).max() <= 3


def test_a_box_behind_the_camera_is_not_drawn() -> None:
    assert not drawn(draw_one(pred=predictions(box(-10, 0), box(-3, 1)), gt=truth(box(-8, 0)))).any()


def test_a_box_that_the_camera_stands_in_is_cut_at_the_near_plane() -> None:
    mask = drawn(draw_one(pred=predictions(box(0, 0, size=(20, 2, 4)))))
    front = 2 * 1 * FOCAL / 10  # half the width of the far face, drawn at twice the size
    columns = np.nonzero(mask[HEIGHT])[0]
    assert columns.min() >= WIDTH - front - 3 and columns.max() <= WIDTH + front + 3  # no line runs the wrong way
    assert mask[:20].any() and mask[-20:].any()  # the edges towards the camera leave the image above and below


@settings(deadline=None, max_examples=80, derandomize=True)
@given(st.lists(st.tuples(*[st.floats(-50, 50)] * 6), min_size=1, max_size=8))
def test_cutting_keeps_the_visible_part(rows: list[tuple[float, ...]]) -> None:
    segments = np.array(rows).reshape(-1, 2, 3)
    lines, kept = _clip_near(segments)
    assert np.isfinite(lines).all()
    assert kept.tolist() == [index for index, ends in enumerate(segments) if ends[:, 2].max() > NEAR]
    for line, (start, end) in zip(lines, segments[kept], strict=True):
        for pixel, whole, other in ((line[0], start, end), (line[1], end, start)):
            if whole[2] >= NEAR:
                expected = whole
            else:
                expected = whole + (NEAR - whole[2]) / (other[2] - whole[2]) * (other - whole)
            np.testing.assert_allclose(pixel, expected[:2] / expected[2], rtol=1e-6, atol=1e-6)


def test_the_score_threshold() -> None:
    pred = predictions(box(10, 0), scores=[0.4])
    assert drawn(draw_one(pred=pred, score_threshold=0.4)).any()
    assert not drawn(draw_one(pred=pred, score_threshold=0.41)).any()


# -- layout -----------------------------------------------------------------------------------------------------------


def tile_levels(picture: np.ndarray, header: int) -> list[int]:
    """Return the gray level in the middle of the six tiles, row by row."""
    tile_width, tile_height = (1200 - 8) // 3, round((1200 - 8) // 3 * HEIGHT / WIDTH)
    return [
        int(
            picture[header + row * (tile_height + 4) + tile_height // 2, column * (tile_width + 4) + tile_width // 2, 0]
        )
        for row in range(2)
        for column in range(3)
    ]


def test_cameras_stand_as_one_looks_around() -> None:
    shuffled = tuple(ORDER[place] for place in (4, 1, 5, 0, 3, 2))
    images = [gray(40 + 30 * ORDER.index(name)) for name in shuffled]
    picture = draw_cameras(images, rig(*shuffled), None, None, NAMES, width=1200)
    assert tile_levels(picture, round(44 * 1200 / 1400)) == [40, 70, 100, 130, 160, 190]


def test_other_cameras_keep_their_order() -> None:
    names = ("b", "a", "CAM_FRONT", "c", "d")
    images = [gray(level) for level in (100, 110, 50, 120, 130)]
    picture = draw_cameras(images, rig(*names), None, None, NAMES, width=1200)
    assert tile_levels(picture, round(44 * 1200 / 1400))[:5] == [50, 100, 110, 120, 130]


def test_augmented_images_take_the_boxes_along() -> None:
    cameras = rig("front")
    shift = cameras.image_aug.clone()
    shift[:, 0, 2] = 60.0  # pixels to the right
    moved = Cameras(**{**vars(cameras), "image_aug": shift})
    pred = predictions(box(10, 0))
    picture = draw_cameras([gray()], moved, None, pred, NAMES, width=2 * WIDTH)
    header = round(44 * 2 * WIDTH / 1400)
    columns = np.nonzero(drawn(picture[header : header + 2 * HEIGHT].astype(int)))[1]
    still = np.nonzero(drawn(draw_one(pred=pred)))[1]
    assert abs(columns.mean() - still.mean() - 120) <= 2


def test_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="one image a camera, got 1 for 2"):
        draw_cameras([gray()], rig("a", "b"), None, None, NAMES)
    with pytest.raises(ValueError, match="got 0 for 1"):
        draw_cameras([], rig("a"), None, None, NAMES)
    with pytest.raises(ValueError, match=r"image of a must be \[200, 320, 3\] uint8"):
        draw_cameras([gray()[:100]], rig("a"), None, None, NAMES)
    with pytest.raises(ValueError, match="float32"):
        draw_cameras([gray().astype(np.float32)], rig("a"), None, None, NAMES)
