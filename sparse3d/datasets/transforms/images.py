"""Moving and colouring images: pixels and calibration follow one 3x3 matrix a camera.

Pixel coordinates count from corners: an image of width W covers 0 <= u < W, and its first pixel's middle is 0.5.

    resize   u' = s u                     flip    u' = W - u
    crop     u' = u - offset              rotate  p' = R (p - c) + c,  c the middle of the image

Neighbouring moves become one (`ImageMoves`): images are reduced once, with a filter that does not alias, and what is
left of the matrix (a shift, a mirroring, a rotation) is carried out by one warp.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
import torch
from torch import Tensor

from ...registry import TRANSFORMS
from ...structures import Cameras, Sample

Size = tuple[int, int]  # height, width in pixels


class ImageMove(ABC):
    """A random movement of every image; a subclass draws it.

    Args:
        shared: draw once for all cameras; otherwise each camera gets its own.
    """

    def __init__(self, shared: bool = False) -> None:
        self.shared = shared

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return the sample with moved ``images`` and ``cameras``.

        Raises:
            ValueError: if the sample has no images yet.
        """
        if "images" not in sample:
            raise ValueError(f"{type(self).__name__}: the sample has no images; LoadImages comes first")
        sizes = [tuple(size) for size in sample.cameras.image_sizes.tolist()]
        return move_images(sample, self.draw_all(sizes, rng))

    def draw_all(self, sizes: Sequence[Size], rng: np.random.Generator) -> list[tuple[np.ndarray, Size]]:
        """Return each camera's movement; ``shared`` repeats the chance of the first one."""
        if not self.shared:
            return [self.draw(size, rng) for size in sizes]
        seed = int(rng.integers(2**63))
        return [self.draw(size, np.random.default_rng(seed)) for size in sizes]

    @abstractmethod
    def draw(self, size: Size, rng: np.random.Generator) -> tuple[np.ndarray, Size]:
        """Return the 3x3 matrix (old pixels -> new ones) for an image of ``size``, and its new size."""


class ImageMoves(ImageMove):
    """Several movements, the first one first, carried out as one."""

    def __init__(self, moves: Sequence[ImageMove]) -> None:
        super().__init__()
        self.moves = tuple(moves)
        self.__name__ = ", ".join(type(move).__name__ for move in moves)

    def draw_all(self, sizes: Sequence[Size], rng: np.random.Generator) -> list[tuple[np.ndarray, Size]]:
        """Return the product of the movements for each camera."""
        found = [(np.eye(3), size) for size in sizes]
        for move in self.moves:
            drawn = move.draw_all([size for _, size in found], rng)
            found = [(matrix @ before, size) for (before, _), (matrix, size) in zip(found, drawn, strict=True)]
        return found

    def draw(self, size: Size, rng: np.random.Generator) -> tuple[np.ndarray, Size]:
        """Return the product of the movements for one camera."""
        return self.draw_all([size], rng)[0]


@TRANSFORMS.register_module()
class ResizeImages(ImageMove):
    """Scale images by a factor.

    Args:
        factors: ``(low, high)``, the factor is drawn evenly between them.
        cover: instead, ``(height, width)`` that the scaled image just covers: the larger of the two ratios.
        shared: one factor for all cameras.
    """

    def __init__(
        self, factors: Sequence[float] | None = None, cover: Sequence[int] | None = None, shared: bool = False
    ) -> None:
        super().__init__(shared)
        if (factors is None) == (cover is None):
            raise ValueError("ResizeImages: give either factors or cover")
        if factors is not None and not 0 < factors[0] <= factors[1]:
            raise ValueError(f"ResizeImages: factors must be positive (low, high), got {tuple(factors)}")
        self.factors = factors
        self.cover = cover

    def draw(self, size: Size, rng: np.random.Generator) -> tuple[np.ndarray, Size]:
        """Return the scaling."""
        if self.factors is not None:
            factor = rng.uniform(*self.factors)
        else:
            factor = max(wanted / present for wanted, present in zip(self.cover, size, strict=True))
        # Sizes are cut off, not rounded, as published pipelines do; the ratio of whole numbers must not lose a pixel.
        return np.diag([factor, factor, 1.0]), (int(size[0] * factor + 1e-6), int(size[1] * factor + 1e-6))


@TRANSFORMS.register_module()
class CropImages(ImageMove):
    """Cut a window of ``size`` ``(height, width)`` out of each image; where it reaches beyond, it is black.

    An image that is narrower than the window lies at its left edge, as published pipelines have it.

    Args:
        size: height and width of the window.
        vertical: ``"bottom"`` keeps the lower edge, where the road is; ``"center"``, ``"random"``.
        horizontal: ``"center"`` or ``"random"``.
        shared: one place for all cameras.
    """

    def __init__(
        self, size: Sequence[int], vertical: str = "bottom", horizontal: str = "center", shared: bool = False
    ) -> None:
        super().__init__(shared)
        if vertical not in ("bottom", "center", "random") or horizontal not in ("center", "random"):
            raise ValueError(f"CropImages: unknown place {vertical!r}, {horizontal!r}")
        self.size = (int(size[0]), int(size[1]))
        self.places = (vertical, horizontal)

    def draw(self, size: Size, rng: np.random.Generator) -> tuple[np.ndarray, Size]:
        """Return the shift."""
        spare = [present - wanted for present, wanted in zip(size, self.size, strict=True)]
        top, left = (_offset(place, room, rng) for place, room in zip(self.places, spare, strict=True))
        return np.array([[1.0, 0.0, -left], [0.0, 1.0, -top], [0.0, 0.0, 1.0]]), self.size


@TRANSFORMS.register_module()
class FlipImages(ImageMove):
    """Mirror images left to right with a probability; boxes and points stay, the calibration takes the mirroring."""

    def __init__(self, probability: float = 0.5, shared: bool = False) -> None:
        super().__init__(shared)
        if not 0 <= probability <= 1:
            raise ValueError(f"FlipImages: probability must lie in [0, 1], got {probability}")
        self.probability = probability

    def draw(self, size: Size, rng: np.random.Generator) -> tuple[np.ndarray, Size]:
        """Return the mirroring, or the identity."""
        if rng.random() >= self.probability:
            return np.eye(3), size
        return np.array([[-1.0, 0.0, size[1]], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]), size


@TRANSFORMS.register_module()
class RotateImages(ImageMove):
    """Turn images about their middle by an angle drawn evenly from ``angles`` ``(low, high)``, radians, clockwise."""

    def __init__(self, angles: Sequence[float], shared: bool = False) -> None:
        super().__init__(shared)
        if len(angles) != 2 or not angles[0] <= angles[1]:
            raise ValueError(f"RotateImages: angles must be (low, high), got {tuple(angles)}")
        self.angles = (float(angles[0]), float(angles[1]))

    def draw(self, size: Size, rng: np.random.Generator) -> tuple[np.ndarray, Size]:
        """Return the rotation."""
        angle = rng.uniform(*self.angles)
        cos, sin = np.cos(angle), np.sin(angle)
        middle = np.array([size[1] / 2, size[0] / 2])
        matrix = np.eye(3)
        matrix[:2, :2] = [[cos, -sin], [sin, cos]]
        matrix[:2, 2] = middle - matrix[:2, :2] @ middle
        return matrix, size


def move_images(sample: Sample, moves: Sequence[tuple[np.ndarray, Size]]) -> Sample:
    """Return a sample whose images and cameras moved together.

    Args:
        sample: with ``images`` (uint8) and ``cameras``.
        moves: for each camera the 3x3 matrix, old pixels -> new ones, and the new size.
    """
    warped = [warp_image(image, matrix, size) for image, (matrix, size) in zip(sample.images, moves, strict=True)]
    same_size = len({image.shape for image in warped}) == 1
    return sample.replace(images=torch.stack(warped) if same_size else warped, cameras=_follow(sample.cameras, moves))


def warp_image(image: Tensor, matrix: np.ndarray, size: Size) -> Tensor:
    """Return ``image`` (uint8 ``[3, H, W]``) as ``matrix`` moves it, ``[3, *size]``; black where nothing lands."""
    scales = np.linalg.norm(matrix[:2, :2], axis=0)[::-1]  # of height and width
    if scales.min() < 1:
        sides = zip(image.shape[1:], scales, strict=True)
        reduced = [max(1, round(side * min(scale, 1.0))) for side, scale in sides]
        matrix = matrix @ np.diag([image.shape[2] / reduced[1], image.shape[1] / reduced[0], 1.0])
        image = torch.nn.functional.interpolate(image[None], reduced, mode="bicubic", antialias=True)[0]
    half = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]])  # OpenCV's pixels have their middle at 0
    centred = np.linalg.inv(half) @ matrix @ half
    pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    moved = cv2.warpAffine(pixels, centred[:2], (size[1], size[0]), flags=cv2.INTER_LINEAR)
    return torch.from_numpy(np.ascontiguousarray(moved.transpose(2, 0, 1)))


def _follow(cameras: Cameras, moves: Sequence[tuple[np.ndarray, Size]]) -> Cameras:
    followed = torch.eye(4, dtype=torch.float64).repeat(len(moves), 1, 1)
    followed[:, :3, :3] = torch.from_numpy(np.stack([matrix for matrix, _ in moves]))
    sizes = torch.tensor([size for _, size in moves])
    return replace(cameras, image_aug=followed @ cameras.image_aug, image_sizes=sizes)


def _offset(place: str, spare: int, rng: np.random.Generator) -> int:
    if place == "bottom":
        return spare
    room = max(spare, 0)
    return int(rng.uniform(0, room)) if place == "random" else room // 2


@TRANSFORMS.register_module()
class DistortColours:
    """Photometric distortion: brightness, contrast, saturation, hue and the order of the channels, each by chance.

    Each image gets its own chance. Values are computed in float and cut to 0..255 at the end.

    Args:
        brightness: largest shift, of 255.
        contrast: ``(low, high)`` factors about 0.
        saturation: ``(low, high)`` factors.
        hue: largest turn in degrees.
        probability: of each step.

    Source: SSD's augmentation (Liu et al., ECCV 2016), section 2.2, in the order that detection frameworks use:
    contrast comes before or after saturation and hue with equal chance.
    """

    def __init__(
        self,
        brightness: float = 32.0,
        contrast: Sequence[float] = (0.5, 1.5),
        saturation: Sequence[float] = (0.5, 1.5),
        hue: float = 18.0,
        probability: float = 0.5,
    ) -> None:
        self.brightness, self.contrast, self.saturation, self.hue = brightness, contrast, saturation, hue
        self.probability = probability

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return the sample with distorted ``images``; calibration is not touched."""
        images = [self.distort(image, rng) for image in sample.images]
        return sample.replace(images=torch.stack(images) if isinstance(sample.images, Tensor) else images)

    def distort(self, image: Tensor, rng: np.random.Generator) -> Tensor:
        """Return a distorted copy of a uint8 image ``[3, H, W]``, RGB."""
        pixels = image.permute(1, 2, 0).numpy().astype(np.float32)
        if self._happens(rng):
            pixels = pixels + np.float32(rng.uniform(-self.brightness, self.brightness))
        early, contrast = rng.random() < 0.5, self._happens(rng)
        factor = np.float32(rng.uniform(*self.contrast)) if contrast else np.float32(1)
        if early:
            pixels = pixels * factor
        pixels = self._distort_colour(pixels, rng)
        if not early:
            pixels = pixels * factor
        if self._happens(rng):
            pixels = pixels[..., rng.permutation(3)]
        distorted = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
        return torch.from_numpy(np.ascontiguousarray(distorted.transpose(2, 0, 1)))

    def _distort_colour(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        saturate, turn = self._happens(rng), self._happens(rng)
        if not (saturate or turn):
            return pixels
        hsv = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2HSV)  # hue in degrees
        if saturate:
            hsv[..., 1] *= np.float32(rng.uniform(*self.saturation))
        if turn:
            hsv[..., 0] = np.mod(hsv[..., 0] + np.float32(rng.uniform(-self.hue, self.hue)), 360)
        return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)

    def _happens(self, rng: np.random.Generator) -> bool:
        return bool(rng.random() < self.probability)
