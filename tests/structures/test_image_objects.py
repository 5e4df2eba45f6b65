"""Where objects appear in images: against the hull of their corners cut to the image."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely import geometry

from sparse3d.structures import Boxes3D, Cameras
from sparse3d.structures.image_objects import MIN_AREA, objects_in_images
from tests.models.test_sparsebev import SIZE, rig


def random_boxes(count: int, seed: int) -> Boxes3D:
    """Near ones and far ones, around the cameras and beside them."""
    generator = torch.Generator().manual_seed(seed)
    center = torch.randn(count, 3, generator=generator) * torch.tensor([8.0, 8.0, 1.5])
    size = torch.rand(count, 3, generator=generator) * torch.tensor([8.0, 4.0, 4.0]) + 0.2
    yaw = torch.rand(count, 1, generator=generator) * 6
    return Boxes3D(torch.cat([center, size, yaw], dim=1))


@settings(deadline=None, max_examples=20, derandomize=True)
@given(count=st.integers(0, 12), num_cameras=st.integers(1, 4), seed=st.integers(0, 1000))
def test_equals_the_cut_hull(count: int, num_cameras: int, seed: int) -> None:
    boxes, cameras = random_boxes(count, seed), rig(num_frames=1, num_cameras=num_cameras)
    found, appears = objects_in_images(boxes, cameras)
    image = geometry.box(0, 0, SIZE[1], SIZE[0])
    corners = boxes.corners().double()
    for camera in range(num_cameras):
        for row in range(count):
            pixels, depths = (each[camera] for each in cameras.project(corners[row]))
            middle = cameras.project(boxes.centers[row : row + 1])[1][camera]
            hull = geometry.MultiPoint(pixels[depths > 0].numpy()).convex_hull
            left = hull.intersection(image)
            bounds = np.array(left.bounds if not left.is_empty else [0.0] * 4)
            area = (bounds[2] - bounds[0]) * (bounds[3] - bounds[1])
            if abs(area - MIN_AREA) < 1e-3:
                continue
            assert bool(appears[camera, row]) == bool(middle > 0 and area > MIN_AREA)
            if appears[camera, row]:
                np.testing.assert_allclose(found[camera, row], bounds, atol=2e-3)


def test_what_surrounds_the_view_fills_the_image() -> None:
    wall = Boxes3D(torch.tensor([[10.0, 0, 0, 1, 200, 200, 0]]))
    found, appears = objects_in_images(wall, rig(num_frames=1, num_cameras=1))
    assert appears.all() and found[0, 0].tolist() == [0, 0, SIZE[1], SIZE[0]]


def test_missing_cameras_show_nothing() -> None:
    cameras = rig(num_frames=1)
    missing = Cameras.create(
        cameras.names, cameras.intrinsics, torch.zeros_like(cameras.lidar2cam), cameras.image_sizes
    )
    assert not objects_in_images(random_boxes(5, 0), missing)[1].any()
