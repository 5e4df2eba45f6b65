"""Images of a batch: normalised, padded, stacked."""

from __future__ import annotations

import pytest
import torch

from sparse3d.models import Preprocessor
from sparse3d.structures import Cameras, Sample


def sample_with(*sizes: tuple[int, int], seed: int = 0) -> Sample:
    generator = torch.Generator().manual_seed(seed)
    images = [torch.randint(256, (3, *size), generator=generator, dtype=torch.uint8) for size in sizes]
    count = len(sizes)
    cameras = Cameras.create(
        [f"camera {number}" for number in range(count)],
        torch.eye(3).repeat(count, 1, 1),
        torch.eye(4).repeat(count, 1, 1),
        torch.tensor(sizes),
    )
    return Sample().replace(images=images, cameras=cameras)


def test_uneven_images_are_padded_after_they_are_normalised() -> None:
    samples = [sample_with((10, 20), (8, 30)), sample_with((12, 16), (12, 16), seed=1)]
    made = Preprocessor(images=dict(mean=(1, 2, 3), std=(10, 20, 30), size_divisor=8))(samples)["batch"]
    assert made.images.shape == (2, 2, 3, 16, 32) and made.images.dtype == torch.float32
    assert made.points is None and len(made.cameras) == 2
    expected = (samples[0].images[1].float() - torch.tensor([1.0, 2, 3]).view(3, 1, 1)) / torch.tensor(
        [10.0, 20, 30]
    ).view(3, 1, 1)
    torch.testing.assert_close(made.images[0, 1, :, :8, :30], expected)
    assert not made.images[0, 1, :, 8:].any() and not made.images[0, 1, :, :, 30:].any()


def test_channels_are_turned_round_for_networks_that_read_bgr() -> None:
    sample = sample_with((8, 8))
    rgb, bgr = (
        Preprocessor(images=dict(mean=(0, 0, 0), std=(1, 1, 1), bgr=turned))([sample])["batch"].images
        for turned in (False, True)
    )
    assert torch.equal(rgb.flip(2), bgr)


def test_images_are_padded_to_a_least_size() -> None:
    samples = [sample_with((8, 30)), sample_with((40, 8))]
    made = Preprocessor(images=dict(size_divisor=16, min_size=(20, 70)))(samples)["batch"].images
    assert tuple(made.shape[-2:]) == (48, 80)
    assert not made[0, 0, :, 8:].any() and not made[0, 0, :, :, 30:].any()


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match="give grid and num_features"):
        Preprocessor()
    preprocessor = Preprocessor(images={})
    with pytest.raises(ValueError, match="sample 1 of the batch has no 'images'"):
        preprocessor([sample_with((8, 8)), Sample()])
    with pytest.raises(ValueError, match=r"same number of cameras, got \[1, 2\]"):
        preprocessor([sample_with((8, 8)), sample_with((8, 8), (8, 8))])
    grey = sample_with((8, 8))
    grey.images = [torch.zeros(1, 8, 8)]
    with pytest.raises(ValueError, match=r"expected \[3, H, W\]"):
        preprocessor([grey])
    with pytest.raises(ValueError, match="std"):
        Preprocessor(images=dict(std=(0, 1, 1)))
