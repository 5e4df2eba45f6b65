"""How far points are from the solids of the synthetic world."""

from __future__ import annotations

import numpy as np

from sparse3d.datasets.synthetic.parts import CYLINDER, HULL, Parts


def surface_distance(parts: Parts, part: int, points: np.ndarray) -> np.ndarray:
    """Distance to a solid's surface: exact for hulls (outside of corners: a lower bound), first order for others."""
    local = (points - parts.center[part]) @ parts.rotation[part]
    half = parts.half[part]
    if parts.kind[part] == HULL:
        return (local @ parts.planes[part, :, :3].T - parts.planes[part, :, 3]).max(axis=1)
    if parts.kind[part] == CYLINDER:
        return np.maximum(np.hypot(local[:, 0], local[:, 1]) - half[0], np.abs(local[:, 2]) - half[2])
    return (np.linalg.norm(local / half, axis=1) - 1) * half.min()
