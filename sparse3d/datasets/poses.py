"""Rigid transforms and quaternions, vectorised over leading dimensions.

A pose `a2b` is 4x4 and takes column vectors from frame a to frame b. Quaternions are (w, x, y, z); they need not have
unit length where they are turned into rotations. Everything is float64.
"""

from __future__ import annotations

import numpy as np


def rotation_matrices(quaternions: np.ndarray) -> np.ndarray:
    """Return the rotations ``[..., 3, 3]`` of ``quaternions`` ``[..., 4]`` (normalised first)."""
    quaternions = np.asarray(quaternions, dtype=np.float64)
    w, x, y, z = np.moveaxis(quaternions / np.linalg.norm(quaternions, axis=-1, keepdims=True), -1, 0)
    entries = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return np.stack(entries, axis=-1).reshape(*w.shape, 3, 3)


def make_poses(translations: np.ndarray, quaternions: np.ndarray) -> np.ndarray:
    """Return poses ``[..., 4, 4]`` from ``translations`` ``[..., 3]`` and ``quaternions`` ``[..., 4]``."""
    translations = np.asarray(translations, dtype=np.float64)
    poses = np.zeros((*translations.shape[:-1], 4, 4))
    poses[..., :3, :3] = rotation_matrices(quaternions)
    poses[..., :3, 3] = translations
    poses[..., 3, 3] = 1
    return poses


def invert_poses(poses: np.ndarray) -> np.ndarray:
    """Return the inverses ``[..., 4, 4]`` of rigid ``poses``: rotation R^T, translation -R^T t."""
    inverses = np.zeros_like(poses)
    back = np.swapaxes(poses[..., :3, :3], -1, -2)
    inverses[..., :3, :3] = back
    inverses[..., :3, 3] = -(back @ poses[..., :3, 3, None])[..., 0]
    inverses[..., 3, 3] = 1
    return inverses


def quaternion_product(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the quaternions ``[..., 4]`` of the rotation ``second`` followed by ``first``."""
    a, b, c, d = np.moveaxis(np.asarray(first, dtype=np.float64), -1, 0)
    w, x, y, z = np.moveaxis(np.asarray(second, dtype=np.float64), -1, 0)
    entries = [
        a * w - b * x - c * y - d * z,
        a * x + b * w + c * z - d * y,
        a * y - b * z + c * w + d * x,
        a * z + b * y - c * x + d * w,
    ]
    return np.stack(entries, axis=-1)


def quaternion_conjugate(quaternions: np.ndarray) -> np.ndarray:
    """Return ``quaternions`` ``[..., 4]`` of the opposite rotations."""
    return np.asarray(quaternions, dtype=np.float64) * (1.0, -1.0, -1.0, -1.0)


def quaternion_of(rotation: np.ndarray) -> np.ndarray:
    """Return the unit quaternion ``[4]`` with w >= 0 of a rotation ``[3, 3]``.

    The four squares (4w², 4x², 4y², 4z²) follow from the trace; the largest one gives a division without cancellation.
    """
    r = np.asarray(rotation, dtype=np.float64)
    products = np.array(
        [
            [1 + r[0, 0] + r[1, 1] + r[2, 2], r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1]],
            [r[2, 1] - r[1, 2], 1 + r[0, 0] - r[1, 1] - r[2, 2], r[1, 0] + r[0, 1], r[0, 2] + r[2, 0]],
            [r[0, 2] - r[2, 0], r[1, 0] + r[0, 1], 1 - r[0, 0] + r[1, 1] - r[2, 2], r[2, 1] + r[1, 2]],
            [r[1, 0] - r[0, 1], r[0, 2] + r[2, 0], r[2, 1] + r[1, 2], 1 - r[0, 0] - r[1, 1] + r[2, 2]],
        ]
    )  # 4 q q^T
    row = products[np.argmax(np.diagonal(products))]
    quaternion = row / np.linalg.norm(row)
    return -quaternion if quaternion[0] < 0 else quaternion
