"""Noise that surfaces are textured with: tables that are looked up, because computing noise a pixel is too slow."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from .rays import inlined

SIZE = 512  # texels; a power of two, so that wrapping around is a bit mask
TEXELS = 8  # of the smooth table a unit
MASK = SIZE - 1


@lru_cache(maxsize=1)
def noise_tables() -> tuple[np.ndarray, np.ndarray]:
    """Return two tables ``[SIZE, SIZE]`` float32 in 0..1 that repeat without seams: smooth, and white noise."""
    rng = np.random.default_rng(20)
    knots = rng.random((SIZE // TEXELS, SIZE // TEXELS))
    return _stretch(_stretch(knots).T).T.astype(np.float32).copy(), rng.random((SIZE, SIZE), dtype=np.float32)


def _stretch(rows: np.ndarray) -> np.ndarray:
    """Interpolate between rows by smooth steps, ``TEXELS`` times as many."""
    share = np.arange(TEXELS) / TEXELS
    blend = (share * share * (3 - 2 * share))[None, :, None]
    return (rows[:, None] * (1 - blend) + np.roll(rows, -1, axis=0)[:, None] * blend).reshape(-1, rows.shape[1])


@inlined
def noise(smooth, x, y):
    """Return smooth noise with features of one unit, in steps of an eighth of a unit."""
    return smooth[int(np.floor(y * TEXELS)) & MASK, int(np.floor(x * TEXELS)) & MASK]


@inlined
def smooth_noise(smooth, x, y):
    """Return smooth noise with features of one unit, interpolated."""
    u, v = x * TEXELS, y * TEXELS
    column, row = int(np.floor(u)), int(np.floor(v))
    u, v = u - column, v - row
    left, right, top, bottom = column & MASK, (column + 1) & MASK, row & MASK, (row + 1) & MASK
    first = smooth[top, left] + u * (smooth[top, right] - smooth[top, left])
    second = smooth[bottom, left] + u * (smooth[bottom, right] - smooth[bottom, left])
    return first + v * (second - first)


@inlined
def grain(white, x, y):
    """Return white noise: one value for each square of one unit."""
    return white[int(np.floor(y)) & MASK, int(np.floor(x)) & MASK]
