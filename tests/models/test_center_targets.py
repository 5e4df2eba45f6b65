from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparse3d.models import CenterTargetAssigner, CenterTargets
from sparse3d.models.targets.gaussian import published_radius
from sparse3d.structures import Boxes3D, Grid

GRID = Grid((-8, -6, -3, 8, 6, 3), (0.5, 0.5, 6), stride=2)  # 12 x 16 cells of 1 m


def boxes_at(
    *centers: tuple[float, float], size: tuple[float, float, float] = (2, 1, 1.5), yaw: float = 0.3
) -> Boxes3D:
    return Boxes3D(torch.tensor([[x, y, 0.2, *size, yaw, 1.0, -2.0] for x, y in centers]).view(-1, 9))


def assign(boxes: Boxes3D, labels: Tensor, batch_index: Tensor, **options: object) -> CenterTargets:
    return CenterTargetAssigner(GRID, **options)(boxes, labels, batch_index, num_classes=3, batch_size=2)


def heatmap_cell_by_cell(boxes: Boxes3D, labels: Tensor, batch_index: Tensor) -> Tensor:
    """The definition, one object and one cell after the other."""
    heat = np.zeros((2, 3, 12, 16))
    for box, label, sample in zip(boxes.tensor.tolist(), labels.tolist(), batch_index.tolist(), strict=True):
        x, y = (int(min(max(c, 0), n - 0.5)) for c, n in ((box[0] + 8, 16), (box[1] + 6, 12)))
        radius = max(2, int(published_radius(torch.tensor(box[3]), torch.tensor(box[4]), 0.1)))
        sigma = (2 * radius + 1) / 6
        for v in range(max(0, y - radius), min(12, y + radius + 1)):
            for u in range(max(0, x - radius), min(16, x + radius + 1)):
                value = math.exp(-((u - x) ** 2 + (v - y) ** 2) / (2 * sigma**2))
                heat[sample, label, v, u] = max(heat[sample, label, v, u], value)
    return torch.from_numpy(heat).float()


EIGHTHS = st.integers(-72, 72).map(lambda n: n / 8)  # float32 holds them exactly, so both sides find the same cell
SIZES = st.integers(3, 96).map(lambda n: n / 8)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(st.tuples(EIGHTHS, EIGHTHS, SIZES, SIZES, st.integers(0, 2)), max_size=8))
def test_heat_maps_follow_the_definition(objects: list[tuple]) -> None:
    rows = [[x, y, 0.0, length, width, 1.0, 0.0] for x, y, length, width, _ in objects]
    boxes = Boxes3D(torch.tensor(rows, dtype=torch.float32).view(-1, 7))
    labels = torch.tensor([label for *_, label in objects], dtype=torch.long)
    batch_index = (torch.arange(len(objects)) >= 3).long()
    found = assign(boxes, labels, batch_index)
    torch.testing.assert_close(found.heatmap, heatmap_cell_by_cell(boxes, labels, batch_index), rtol=1e-4, atol=1e-6)
    assert len(found.cells) == len(objects)
    places = torch.stack([batch_index, labels, found.cells % 192 // 16, found.cells % 16])
    assert (found.heatmap[tuple(places)] == 1).all()


def test_codes_and_cells() -> None:
    found = assign(boxes_at((-7.75, 5.5), (3.25, 0.75)), torch.tensor([0, 2]), torch.tensor([0, 1]))
    assert found.cells.tolist() == [11 * 16 + 0, 192 + 6 * 16 + 11]
    torch.testing.assert_close(found.codes["center"], torch.tensor([[0.25, 0.5], [0.25, 0.75]]))
    torch.testing.assert_close(found.codes["center_z"], torch.full((2, 1), 0.2))
    torch.testing.assert_close(found.codes["dim"][0], torch.tensor([2, 1, 1.5]).log())
    torch.testing.assert_close(found.codes["rot"][1], torch.tensor([math.cos(0.3), math.sin(0.3)]))
    torch.testing.assert_close(found.codes["axis"][1], torch.tensor([math.cos(0.6), math.sin(0.6)]))
    torch.testing.assert_close(found.codes["vel"][0], torch.tensor([1.0, -2.0]))


def test_a_box_without_velocity_has_unknown_velocity() -> None:
    boxes = Boxes3D(boxes_at((0, 0)).tensor[:, :7])
    assert assign(boxes, torch.tensor([0]), torch.tensor([0])).codes["vel"].isnan().all()


def test_a_box_outside_moves_to_the_border() -> None:
    found = assign(boxes_at((-100, 0), (100, 100)), torch.tensor([0, 0]), torch.tensor([0, 0]))
    assert found.cells.tolist() == [6 * 16, 11 * 16 + 15]
    torch.testing.assert_close(found.codes["center"], torch.tensor([[0.0, 0.0], [0.5, 0.5]]))


def test_flat_boxes_and_those_beyond_the_limit_are_left_out() -> None:
    boxes = boxes_at((0, 0), (1, 1), (2, 2), (3, 3))
    boxes.tensor[0, 3] = 0
    found = assign(boxes, torch.zeros(4, dtype=torch.long), torch.tensor([0, 0, 0, 1]), max_objects=2)
    assert found.boxes[:, 0].tolist() == [1, 3]
    assert int((found.heatmap == 1).sum()) == 2


def test_no_object_is_all_background() -> None:
    none = torch.zeros(0, dtype=torch.long)
    found = assign(Boxes3D(torch.zeros(0, 9)), none, none)
    assert found.heatmap.shape == (2, 3, 12, 16)
    assert not found.heatmap.any()
    assert len(found.cells) == 0


@pytest.mark.parametrize(("length", "width"), [(4.0, 2.0), (30.0, 7.0)])
def test_radius_halves_every_root(length: float, width: float) -> None:
    o, s, a = 0.1, length + width, length * width
    roots = [
        (s + math.sqrt(s**2 - 4 * a * (1 - o) / (1 + o))) / 2,
        (2 * s + math.sqrt(4 * s**2 - 16 * (1 - o) * a)) / 2,
        (-2 * o * s + math.sqrt(4 * o**2 * s**2 + 16 * o * (1 - o) * a)) / 2,
    ]
    found = published_radius(torch.tensor([length]), torch.tensor([width]), o)
    assert float(found) == pytest.approx(min(roots), rel=1e-5)


def test_cells_around_the_centre_regress_the_nearest_box() -> None:
    boxes = boxes_at((-4.3, -2.6), (-2.6, -2.6), (-7.9, 5.4))  # two that meet, one in a corner of the grid
    found = assign(boxes, torch.tensor([0, 1, 2]), torch.tensor([0, 0, 1]), box_radius=1)
    y, x = found.cells % 192 // 16, found.cells % 16
    sample = found.cells // 192
    assert len(found.cells.unique()) == len(found.cells) == (9 + 9 - 3) + 4
    decoded = torch.stack([x, y], dim=1) + found.codes["center"] + torch.tensor([-8.0, -6.0])
    torch.testing.assert_close(decoded, found.boxes[:, :2])
    own = torch.tensor([-4.3, -2.6, -2.6, -2.6]).view(2, 2)
    middles = torch.stack([x, y], dim=1)[sample == 0] + torch.tensor([-7.5, -5.5])
    nearest = own[(middles[:, None] - own).norm(dim=2).argmin(dim=1)]
    torch.testing.assert_close(found.boxes[sample == 0, :2], nearest)


def test_a_centre_cell_is_never_given_away() -> None:
    boxes = boxes_at((0.1, 0.1), (0.9, 0.9))  # both in the cell whose middle is (0.5, 0.5)
    found = assign(boxes, torch.zeros(2, dtype=torch.long), torch.zeros(2, dtype=torch.long), box_radius=1)
    centre = (6 * 16) + 8
    assert (found.cells == centre).sum() == 2
