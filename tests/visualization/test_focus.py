"""Pictures of focal convolutions: each voxel in its place and colour."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.colors import to_rgb

from sparse3d.structures import Boxes3D, InstanceData
from sparse3d.visualization.focus import COLORS, KINDS, Focus, draw_focus

EXTENT = (-8.0, -8.0, 8.0, 8.0)


def layer() -> Focus:
    return Focus(
        "stage 1",
        background=torch.tensor([[0, 0, 0], [0, 3, 3]]),
        foreground=torch.tensor([[1, 3, 3]]),
        grown=torch.tensor([[0, 3, 3], [0, 1, 2]]),
        shape=(4, 4),
        stride=1,
    )


def test_foreground_covers_grown_covers_background() -> None:
    gt = InstanceData(boxes=Boxes3D([[0.0, 0, 0, 4, 2, 2, 0.3]]), labels=torch.tensor([0]))
    picture = draw_focus([layer(), layer()], gt, EXTENT, EXTENT, class_names=["car"], size=400, title="Focus")
    assert picture.dtype == np.uint8
    assert picture.shape[1] > 800
    top = 44 * 400 // 500
    panel = picture[top : top + 400, :400] / 255
    colors = dict(zip(KINDS, map(np.array, map(to_rgb, COLORS)), strict=True))
    for (y, x), kind in {(0, 0): "background", (3, 3): "kept as foreground", (1, 2): "grown"}.items():
        pixel = panel[399 - round((y + 0.3) * 100), round((x + 0.7) * 100)]  # cells of 100 pixels, y upwards
        np.testing.assert_allclose(pixel, colors[kind], atol=0.02, err_msg=kind)


def test_nothing_at_all_is_a_picture_too() -> None:
    none = torch.zeros(0, 3, dtype=torch.int64)
    empty = Focus("stage 1", none, none, none, (4, 4), 1)
    assert draw_focus([empty], None, EXTENT, EXTENT, class_names=["car"]).ndim == 3
