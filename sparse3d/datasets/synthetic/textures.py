"""Noise that surfaces are textured with: tables that are looked up, because computing noise a pixel is too slow.

The tables are constants of the compiled kernels: as arguments they would be reference-counted a pixel.
"""

from __future__ import annotations

import numpy as np

from .rays import inlined

SIZE = 128  # texels; a power of two, so that wrapping around is a bit mask
TEXELS = 8  # of the smooth table a unit
MASK = SIZE - 1


def _stretch(rows: np.ndarray) -> np.ndarray:
    """Interpolate between rows by smooth steps, ``TEXELS`` times as many; the last row meets the first."""
    share = np.arange(TEXELS) / TEXELS
    blend = (share * share * (3 - 2 * share))[None, :, None]
    return (rows[:, None] * (1 - blend) + np.roll(rows, -1, axis=0)[:, None] * blend).reshape(-1, rows.shape[1])


_rng = np.random.default_rng(20)
SMOOTH = _stretch(_stretch(_rng.random((SIZE // TEXELS, SIZE // TEXELS))).T).T.astype(np.float32, order="C")
WHITE = _rng.random((SIZE, SIZE), dtype=np.float32)


@inlined
def noise(x, y):
    """Return smooth noise in 0..1 with features of one unit, in steps of an eighth of a unit."""
    return SMOOTH[int(np.floor(y * TEXELS)) & MASK, int(np.floor(x * TEXELS)) & MASK]


@inlined
def smooth_noise(x, y):
    """Return smooth noise in 0..1 with features of one unit, interpolated."""
    u, v = x * TEXELS, y * TEXELS
    column, row = int(np.floor(u)), int(np.floor(v))
    u, v = u - column, v - row
    left, right, top, bottom = column & MASK, (column + 1) & MASK, row & MASK, (row + 1) & MASK
    first = SMOOTH[top, left] + u * (SMOOTH[top, right] - SMOOTH[top, left])
    second = SMOOTH[bottom, left] + u * (SMOOTH[bottom, right] - SMOOTH[bottom, left])
    return first + v * (second - first)


@inlined
def grain(x, y):
    """Return white noise in 0..1: one value for each square of one unit."""
    return WHITE[int(np.floor(y)) & MASK, int(np.floor(x)) & MASK]
