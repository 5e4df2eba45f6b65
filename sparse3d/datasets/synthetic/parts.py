"""Solids: what every object of the world is built from.

A part is a convex solid in its own axes (x to the front, y to the left, z up), placed by a centre and a rotation:

    HULL       a box whose front, back and sides may lean inwards with height: |x| <= half_x - lean * s,
               s = (z + half_z) / (2 half_z); lean = (front, back, sides) in metres at the top
    CYLINDER   about the local z axis, radius half_x, height 2 half_z
    ELLIPSOID  with the half axes `half`

`Part` describes one of them, `Parts` holds many in arrays, the form in which kernels read them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

HULL, CYLINDER, ELLIPSOID = 0, 1, 2

# What a surface looks like; `surfaces.py` gives each its colours and its reflectivity.
PLAIN, PAINT, CABIN, WHEEL, FACADE, LEAVES, BANDS, BLOCKS, PAVEMENT, BRICK, FENCE, COACH, CARGO, RETRO, GLASS, ROOF = (
    range(16)
)

Colour = tuple[float, float, float]  # red, green, blue in 0..1
BLACK: Colour = (0.04, 0.04, 0.045)
GREY: Colour = (0.35, 0.35, 0.36)
WHITE: Colour = (0.82, 0.82, 0.8)


class Part(NamedTuple):
    """One solid in the axes of its object (origin on the ground, under the middle of the object)."""

    kind: int
    center: Colour
    half: Colour
    rotation: np.ndarray  # [3, 3], axes of the part -> axes of the object
    lean: Colour
    pattern: int
    colours: tuple[Colour, Colour]


class Parts(NamedTuple):
    """Many solids as arrays; ``P`` of them."""

    kind: np.ndarray  # [P] int64
    center: np.ndarray  # [P, 3] float64, metres
    half: np.ndarray  # [P, 3] float64, metres
    rotation: np.ndarray  # [P, 3, 3] float64, axes of the part -> common axes
    lean: np.ndarray  # [P, 3] float64, metres
    pattern: np.ndarray  # [P] int64
    colours: np.ndarray  # [P, 6] float32, first and second colour
    owner: np.ndarray  # [P] int64, number of the object, -1 for scenery
    planes: np.ndarray  # [P, 6, 4] float64, unit normal n and offset d of each face of a hull, axes of the part

    def select(self, which: np.ndarray) -> Parts:
        """Return the parts of an index array or mask ``[P]``."""
        return Parts(*(array[which] for array in self))

    def shift(self, offset: np.ndarray) -> Parts:
        """Return the parts moved by ``offset [3]`` metres."""
        return self._replace(center=self.center + offset)


def box(
    center: Colour,
    size: Colour,
    colour: Colour,
    *,
    pattern: int = PLAIN,
    lean: Colour = (0.0, 0.0, 0.0),
    colour2: Colour = BLACK,
    yaw: float = 0.0,
    pitch: float = 0.0,
) -> Part:
    """Describe a hull by its full size; positive pitch lifts the front. Angles in radians."""
    half = (size[0] / 2, size[1] / 2, size[2] / 2)
    return Part(HULL, center, half, turn(yaw, pitch), lean, pattern, (colour, colour2))


def ball(center: Colour, size: Colour, colour: Colour, *, pattern: int = PLAIN, colour2: Colour = BLACK) -> Part:
    """Describe an ellipsoid by its full size."""
    half = (size[0] / 2, size[1] / 2, size[2] / 2)
    return Part(ELLIPSOID, center, half, np.eye(3), (0.0, 0.0, 0.0), pattern, (colour, colour2))


def pole(center: Colour, radius: float, height: float, colour: Colour, *, pattern: int = PLAIN) -> Part:
    """Describe an upright cylinder."""
    return Part(CYLINDER, center, (radius, radius, height / 2), np.eye(3), (0.0, 0.0, 0.0), pattern, (colour, BLACK))


def wheel(x: float, y: float, radius: float, width: float, colour: Colour = GREY) -> Part:
    """Describe a wheel that stands on the ground and rolls along x."""
    axle_along_y = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
    half = (radius, radius, width / 2)
    return Part(CYLINDER, (x, y, radius), half, axle_along_y, (0.0, 0.0, 0.0), WHEEL, (BLACK, colour))


def assemble(parts: Sequence[Part], owner: int = -1) -> Parts:
    """Put descriptions into arrays."""
    half = np.array([part.half for part in parts], dtype=np.float64).reshape(-1, 3)
    lean = np.array([part.lean for part in parts], dtype=np.float64).reshape(-1, 3)
    return Parts(
        kind=np.array([part.kind for part in parts], dtype=np.int64),
        center=np.array([part.center for part in parts], dtype=np.float64).reshape(-1, 3),
        half=half,
        rotation=np.array([part.rotation for part in parts], dtype=np.float64).reshape(-1, 3, 3),
        lean=lean,
        pattern=np.array([part.pattern for part in parts], dtype=np.int64),
        colours=np.array([part.colours for part in parts], dtype=np.float32).reshape(-1, 6),
        owner=np.full(len(parts), owner, dtype=np.int64),
        planes=_hull_planes(half, lean),
    )


def concatenate(groups: Sequence[Parts]) -> Parts:
    """Join sets of parts."""
    return Parts(*(np.concatenate(arrays) for arrays in zip(*groups, strict=True)))


def bounds(parts: Parts) -> tuple[np.ndarray, np.ndarray]:
    """Return the tight axis-aligned bounds ``(lower [3], upper [3])`` of a set of parts.

    Raises:
        ValueError: if there are no parts.
    """
    if not len(parts.kind):
        raise ValueError("bounds: expected at least one part, got none")
    extent = _round_extent(parts)
    lower, upper = parts.center - extent, parts.center + extent
    hulls = parts.kind == HULL
    corners = hull_corners(parts.select(hulls))
    lower[hulls], upper[hulls] = corners.min(axis=1), corners.max(axis=1)
    return lower.min(axis=0), upper.max(axis=0)


def hull_corners(parts: Parts) -> np.ndarray:
    """Return the corners ``[P, 8, 3]`` of the parts seen as hulls, bottom face first."""
    signs = np.array([(x, y, z) for z in (-1, 1) for x in (-1, 1) for y in (-1, 1)], dtype=np.float64)
    local = signs * parts.half[:, None, :]
    front, back, sides = (parts.lean[:, None, axis] for axis in range(3))
    top = signs[:, 2] > 0
    local[..., 0] -= np.where(top, np.where(signs[:, 0] > 0, front, -back), 0.0)
    local[..., 1] -= np.where(top, signs[:, 1] * sides, 0.0)
    return local @ parts.rotation.transpose(0, 2, 1) + parts.center[:, None, :]


def _hull_planes(half: np.ndarray, lean: np.ndarray) -> np.ndarray:
    """Return unit normals and offsets ``[P, 6, 4]`` of the faces front, back, left, right, top, bottom."""
    slope = lean / (2 * half[:, 2:])  # the way a face leans in a metre of height
    planes = np.zeros((len(half), 6, 4))
    for face, (axis, sign, source) in enumerate(((0, 1, 0), (0, -1, 1), (1, 1, 2), (1, -1, 2))):
        planes[:, face, axis] = sign
        planes[:, face, 2] = slope[:, source]
        planes[:, face, 3] = half[:, axis] - lean[:, source] / 2
    planes[:, 4, 2], planes[:, 5, 2] = 1, -1
    planes[:, 4:, 3] = half[:, 2:]
    return planes / np.linalg.norm(planes[..., :3], axis=2, keepdims=True)


def _round_extent(parts: Parts) -> np.ndarray:
    """Return half the extent ``[P, 3]`` along the common axes of the parts seen as ellipsoids or cylinders."""
    stretched = parts.rotation * parts.half[:, None, :]
    ellipsoid = np.linalg.norm(stretched, axis=2)
    cylinder = np.linalg.norm(stretched[..., :2], axis=2) + np.abs(stretched[..., 2])
    return np.where((parts.kind == ELLIPSOID)[:, None], ellipsoid, cylinder)


def turn(yaw: float, pitch: float) -> np.ndarray:
    """Return the rotation that lifts the front by ``pitch`` and then turns by ``yaw`` about z."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    about_z = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
    cos, sin = np.cos(pitch), np.sin(pitch)
    about_y = np.array([[cos, 0.0, -sin], [0.0, 1.0, 0.0], [sin, 0.0, cos]])
    return about_z @ about_y
