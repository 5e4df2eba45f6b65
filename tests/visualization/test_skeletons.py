"""Skeletons appear where people are, in the colour of their side, in images and in planes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb

from sparse3d.structures import Boxes3D, Cameras, InstanceData
from sparse3d.structures.skeleton import BONES, KEYPOINTS, MISSING, NUM_KEYPOINTS, VISIBLE
from sparse3d.visualization import draw_skeletons
from sparse3d.visualization.canvas import HEADER
from sparse3d.visualization.skeletons import GAP, REACH, SIDE_COLORS, SIDES, _side, has_skeletons
from tests.models.people import STANDING

NO_POINTS = torch.zeros(0, 4)
SIZE = 300
LIDAR2CAM = torch.tensor([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])  # it looks along +x


def people(*centers: tuple[float, float, float], there: list[str] | None = None) -> InstanceData:
    """People who stand at places and look along -x, at the sensor, with all or some of their keypoints."""
    places = torch.tensor(centers)[:, None] + torch.from_numpy(STANDING * [-1, -1, 1]).float()
    visibility = torch.full((len(centers), NUM_KEYPOINTS), VISIBLE)
    if there is not None:
        visibility[:, [index for index, name in enumerate(KEYPOINTS) if name not in there]] = MISSING
    boxes = [[*center, 0.8, 0.8, 1.8, np.pi] for center in centers]
    return InstanceData(boxes=Boxes3D(boxes), keypoints=places, keypoint_visibility=visibility)


def predicted(*centers: tuple[float, float, float], score: float = 0.9, **options: list[str]) -> InstanceData:
    pred = people(*centers, **options)
    pred.scores = torch.full((len(centers),), score)
    return pred


def rig() -> Cameras:
    intrinsics = torch.tensor([[[200.0, 0, 320], [0, 200, 240], [0, 0, 1]]])
    return Cameras.create(["front"], intrinsics, LIDAR2CAM[None], torch.tensor([[480, 640]]))


def panel(picture: np.ndarray, row: int, column: int = 0) -> np.ndarray:
    top, left = HEADER + row * (SIZE + GAP), column * (SIZE + GAP)
    return picture[top : top + SIZE, left : left + SIZE].astype(int)


def color_mask(picture: np.ndarray, side: str) -> np.ndarray:
    color = np.array(to_rgb(SIDE_COLORS[SIDES.index(side)])) * 255
    return (np.abs(picture - color) < 12).all(axis=-1)


def test_limbs_have_the_colour_of_their_side() -> None:
    picture = panel(draw_skeletons(NO_POINTS, None, predicted((10, 0, 0))), 0)
    left, right = (np.nonzero(color_mask(picture, side))[1] for side in ("left", "right"))
    assert len(left) > 50 and len(right) > 50
    assert left.mean() > SIZE / 2 > right.mean()  # they look at us: their left is our right


def test_a_bone_is_drawn_where_it_is_to_scale() -> None:
    pred = predicted((10, 0, 0.5), there=["LEFT_KNEE", "LEFT_ANKLE"])
    rows, columns = np.nonzero(color_mask(panel(draw_skeletons(NO_POINTS, None, pred), 0), "left"))
    pixels = SIZE / 2 / REACH
    assert abs(rows.min() - (SIZE / 2 + 0.4 * pixels)) < 4 and abs(rows.max() - (SIZE / 2 + 0.8 * pixels)) < 4
    assert abs(columns.mean() - (SIZE / 2 + 0.12 * pixels)) < 2


def test_the_image_is_cut_out_round_the_person() -> None:
    image = np.zeros((480, 640, 3), dtype=np.uint8)
    image[:, 320:] = 90
    pred = predicted((10, 1, 0), there=["LEFT_KNEE", "LEFT_ANKLE"])
    picture = panel(draw_skeletons(NO_POINTS, None, pred, images=[image], cameras=rig()), 0)
    rows, _ = np.nonzero(color_mask(picture, "left"))
    pixels = SIZE / 2 / REACH
    assert abs(rows.min() - (SIZE / 2 + 0.4 * pixels)) < 5 and abs(rows.max() - (SIZE / 2 + 0.8 * pixels)) < 5
    edge = np.abs(np.diff(picture[SIZE - 20].sum(axis=-1))).argmax()  # the middle of the image: 1 m to the right
    assert abs(edge - (SIZE / 2 + pixels)) < 4


def test_who_is_in_no_image_is_drawn_in_planes_only() -> None:
    image = np.full((480, 640, 3), 200, dtype=np.uint8)
    picture = draw_skeletons(NO_POINTS, None, predicted((-10, 0, 0)), images=[image], cameras=rig())
    assert not color_mask(panel(picture, 0), "left").any() and color_mask(panel(picture, 1), "left").any()


def test_annotated_people_decide_who_is_shown_and_the_nearest_come_first() -> None:
    gt = people((30, 0, 0), (5, 0, 0), (60, 0, 0))
    picture = draw_skeletons(NO_POINTS, gt, predicted((30, 0, 0), (90, 0, 0)), max_people=2)
    assert picture.shape[1] == 2 * SIZE + GAP
    assert not color_mask(panel(picture, 0, 0), "left").any() and color_mask(panel(picture, 0, 1), "left").any()
    white = (panel(picture, 0, 0).min(axis=-1) > 240).sum()
    assert white > 50


def test_points_are_drawn_where_they_are() -> None:
    pred = predicted((10, 0, 0), there=["NOSE"])
    with_points = draw_skeletons(torch.tensor([[10.0, 0.5, 0.2, 0]]), None, pred)
    rows, columns = np.nonzero(np.abs(panel(with_points, 0) - panel(draw_skeletons(NO_POINTS, None, pred), 0)).sum(-1))
    pixels = SIZE / 2 / REACH
    assert abs(rows.mean() - (SIZE / 2 - 0.2 * pixels)) < 2 and abs(columns.mean() - (SIZE / 2 - 0.5 * pixels)) < 2


def test_every_bone_has_a_side() -> None:
    sides = {frozenset((KEYPOINTS[start], KEYPOINTS[end])): SIDES[_side(start, end)] for start, end in BONES}
    assert sides[frozenset(("NOSE", "HEAD_CENTER"))] == "head"
    assert list(sides.values()).count("left") == list(sides.values()).count("right") == 6


def test_nobody_to_draw_is_an_error() -> None:
    faint = predicted((10, 0, 0), score=0.1)
    assert not has_skeletons(None, faint) and has_skeletons(people((1, 0, 0)), faint)
    assert not has_skeletons(None, InstanceData(boxes=faint.boxes, scores=faint.scores))
    with pytest.raises(ValueError, match="nobody has keypoints"):
        draw_skeletons(NO_POINTS, None, faint)
    with pytest.raises(ValueError, match="one image a camera"):
        draw_skeletons(NO_POINTS, None, predicted((10, 0, 0)), cameras=rig())
    wrong = predicted((10, 0, 0))
    wrong.keypoints = wrong.keypoints[:, :13]
    with pytest.raises(ValueError, match=r"expected \[1, 14, 3\]"):
        draw_skeletons(NO_POINTS, None, wrong)
