"""Moving images: a 3D point stays on the same image content, whatever chain of augmentations comes between."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse3d.datasets.transforms import (
    CropImages,
    DistortColours,
    FlipImages,
    RandomFlip,
    RandomRotate,
    RandomScale,
    RandomTranslate,
    ResizeImages,
    RotateImages,
    build_pipeline,
    warp_image,
)
from sparse3d.structures import Cameras, Sample

SIZE = (90, 160)  # height, width
IMAGE_MOVES = [
    ResizeImages((0.4, 0.6)),
    ResizeImages((0.9, 1.7), shared=True),
    ResizeImages(cover=(70, 100)),
    CropImages((60, 110), horizontal="random"),
    CropImages((100, 170), vertical="random", shared=True),
    FlipImages(0.7),
    FlipImages(1.0),
    RotateImages((-0.3, 0.3)),
]
WORLD_MOVES = [RandomFlip(), RandomRotate((-math.pi, math.pi)), RandomScale((0.8, 1.2)), RandomTranslate(2.0)]
reproducible = settings(deadline=None, max_examples=40, derandomize=True)


def rig() -> Cameras:
    """Two cameras, one to the front (x right, y forward in the LiDAR frame), one to the right."""
    front = np.array([[1.0, 0, 0, 0.1], [0, 0, -1, 0.2], [0, 1, 0, 0], [0, 0, 0, 1]])
    right = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, -0.2], [0, 0, 0, 1]])
    intrinsic = torch.tensor([[90.0, 0, SIZE[1] / 2], [0, 90, SIZE[0] / 2], [0, 0, 1]])
    return Cameras.create(
        ("front", "right"),
        intrinsic.repeat(2, 1, 1),
        torch.from_numpy(np.stack([front, right])),
        torch.tensor([SIZE, SIZE]),
    )


def spot(u: float, v: float) -> torch.Tensor:
    """An image that is black but for a soft spot, whose middle is at a pixel position."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    light = 255 * np.exp(-((columns - u) ** 2 + (rows - v) ** 2) / (2 * 3.0**2))
    return torch.from_numpy(light.round().astype(np.uint8)).repeat(3, 1, 1)


def middle_of_light(image: torch.Tensor) -> tuple[np.ndarray, float]:
    light = image[0].numpy().astype(np.float64)
    rows, columns = np.mgrid[: light.shape[0], : light.shape[1]] + 0.5
    return np.array([(columns * light).sum(), (rows * light).sum()]) / light.sum(), light.sum()


@reproducible
@given(
    st.lists(st.sampled_from([*IMAGE_MOVES, *WORLD_MOVES, DistortColours(probability=0.0)]), min_size=1, max_size=7),
    st.integers(0, 2**32 - 1),
)
def test_a_point_stays_on_its_image_content(chain: list, seed: int) -> None:
    rng = np.random.default_rng(seed)
    cameras = rig()
    points = torch.tensor([[0.8, 10.0, -0.5], [9.0, 0.6, 0.8]], dtype=torch.float64)  # one in front of each camera
    pixels, _ = cameras.project(points)
    sample = Sample()
    sample.set_metainfo({"lidar_aug": np.eye(4)})
    images = torch.stack([spot(*pixels[camera, camera].tolist()) for camera in range(2)])
    features = torch.cat([points, torch.zeros(2, 2)], dim=1).float()
    sample = sample.replace(images=images, cameras=cameras, points=features)
    for transform in build_pipeline(chain):
        sample = transform(sample, rng)
    moved, _ = sample.cameras.project(sample.points[:, :3].double())
    for camera in range(2):
        height, width = sample.images[camera].shape[1:]
        assert sample.cameras.image_sizes[camera].tolist() == [height, width]
        expected = moved[camera, camera].numpy()
        reach = 12 * float(torch.linalg.det(sample.cameras.image_aug[camera, :2, :2]).abs().sqrt())
        if reach < expected[0] < width - reach and reach < expected[1] < height - reach:
            found, light = middle_of_light(sample.images[camera])
            assert light > 0
            np.testing.assert_allclose(found, expected, atol=0.6)


@reproducible
@given(st.lists(st.sampled_from(IMAGE_MOVES), min_size=2, max_size=5), st.integers(0, 2**32 - 1))
def test_moves_as_one_are_the_moves_one_by_one(chain: list, seed: int) -> None:
    sample = Sample().replace(images=torch.stack([spot(80, 45)] * 2), cameras=rig())
    [together] = build_pipeline(chain)
    alone, rng = sample, np.random.default_rng(seed)
    for transform in chain:
        alone = transform(alone, rng)
    whole = together(sample, np.random.default_rng(seed))
    torch.testing.assert_close(whole.cameras.image_aug, alone.cameras.image_aug)
    assert torch.equal(whole.cameras.image_sizes, alone.cameras.image_sizes)


def test_shared_chance_moves_all_cameras_alike() -> None:
    sample = Sample().replace(images=torch.stack([spot(80, 45)] * 2), cameras=rig())
    for shared in (True, False):
        chain = build_pipeline(
            [ResizeImages((0.4, 0.6), shared=shared), CropImages((30, 50), horizontal="random", shared=shared)]
        )
        moved = chain[0](sample, np.random.default_rng(0)).cameras.image_aug
        assert torch.equal(moved[0], moved[1]) == shared


def test_published_arithmetic() -> None:
    """Resize 0.44 and a crop to 256 x 704 at the bottom, in the middle: the test pipeline for 900 x 1600 images."""
    resized, size = ResizeImages((0.44, 0.44)).draw((900, 1600), np.random.default_rng(0))
    assert size == (396, 704)
    shift, size = CropImages((256, 704)).draw(size, np.random.default_rng(0))
    np.testing.assert_allclose(shift @ resized, [[0.44, 0, 0], [0, 0.44, -140], [0, 0, 1]])
    assert ResizeImages(cover=(256, 704)).draw((900, 1600), np.random.default_rng(0))[1] == (396, 704)


def test_shifts_and_mirrorings_copy_pixels() -> None:
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 20, 30), dtype=np.uint8))
    shift = np.array([[1.0, 0, -5], [0, 1, -3], [0, 0, 1]])
    assert torch.equal(warp_image(image, shift, (10, 20)), image[:, 3:13, 5:25])
    mirror = np.array([[-1.0, 0, 30], [0, 1, 0], [0, 0, 1]])
    assert torch.equal(warp_image(image, mirror, (20, 30)), image.flip(2))
    assert not warp_image(image, shift, (30, 40))[:, 17:].any()  # beyond the image it is black


def test_colours_change_within_bounds_and_nothing_else_does() -> None:
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, 12, 16), dtype=np.uint8))
    sample = Sample().replace(images=images, cameras=rig())
    distorted = DistortColours()(sample, np.random.default_rng(1))
    assert distorted.images.dtype == torch.uint8 and distorted.images.shape == images.shape
    assert not torch.equal(distorted.images, images)
    assert torch.equal(distorted.cameras.lidar2img, sample.cameras.lidar2img)
    assert torch.equal(DistortColours(probability=0.0)(sample, np.random.default_rng(1)).images, images)
    brighter = DistortColours(contrast=(1, 1), saturation=(1, 1), hue=0, probability=1.0)
    change = brighter.distort(torch.full((3, 4, 4), 128, dtype=torch.uint8), np.random.default_rng(3)).int() - 128
    assert 0 < change.abs().max() <= 33


def test_bad_arguments_and_missing_images_are_named() -> None:
    with pytest.raises(ValueError, match="either factors or cover"):
        ResizeImages()
    with pytest.raises(ValueError, match="positive"):
        ResizeImages((0, 1))
    with pytest.raises(ValueError, match="unknown place 'top'"):
        CropImages((3, 4), vertical="top")
    with pytest.raises(ValueError, match="probability"):
        FlipImages(2)
    with pytest.raises(ValueError, match=r"\(low, high\)"):
        RotateImages((1, 0))
    with pytest.raises(ValueError, match="FlipImages: the sample has no images"):
        FlipImages()(Sample(), np.random.default_rng(0))
