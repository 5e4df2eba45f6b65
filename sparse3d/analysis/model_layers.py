"""Layers of a viewer that show what a model looked at, for the models that tell."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from ..models import Detector3D, FocalEncoder, SparseBEVHead
from ..structures import Grid
from ..visualization.focus import Focus
from ..visualization.layers import PointLayer
from .focal_voxels import voxel_centers, watch_focals
from .sampled_points import SamplingWatch, watch_sampling

QUERIES = 20  # the best ones, whose points are shown
SAMPLED, KEPT, GROWN = "#ffb3f0", "#ffd0a1", "#9ff0ff"
SAMPLED_SIZE = 0.2  # metres
VOXEL_SHARE = 0.6  # of a voxel's shortest side, so that neighbours stay apart

Layers = Callable[[np.ndarray], tuple[PointLayer, ...]]


@contextmanager
def watch_layers(detector: Detector3D) -> Iterator[Layers]:
    """Watch a detector while it is called on one sample within the ``with`` block.

    Gives a function of the sample's ``lidar_aug`` that returns the layers, in the LiDAR frame as recorded: the points
    that a ``SparseBEVHead`` samples in the images of the present; the voxels that a ``FocalEncoder`` keeps and grows;
    none for other models.
    """
    backbone = getattr(detector.point_branch, "backbone", None)
    if isinstance(detector.head, SparseBEVHead):
        with watch_sampling(detector.head) as watch:
            yield lambda moved: as_recorded([sampled_layer(watch)], moved)
    elif isinstance(backbone, FocalEncoder):
        with watch_focals(backbone) as seen:
            yield lambda moved: as_recorded(
                [layer for focus in seen for layer in focal_layers(focus, backbone.grid)], moved
            )
    else:
        yield lambda moved: ()


def as_recorded(layers: Iterable[PointLayer], lidar_aug: np.ndarray) -> tuple[PointLayer, ...]:
    """Return layers of the frame that the network saw in the LiDAR frame as recorded (``lidar_aug`` ``[4, 4]``)."""
    back = np.linalg.inv(lidar_aug)
    return tuple(replace(layer, points=layer.points @ back[:3, :3].T + back[:3, 3]) for layer in layers)


def sampled_layer(watch: SamplingWatch) -> PointLayer:
    """Return the points that the best queries sampled in the frame of the present."""
    return PointLayer("sampled points", watch.best(QUERIES).points.flatten(0, 1), SAMPLED, SAMPLED_SIZE)


def focal_layers(focus: Focus, grid: Grid) -> tuple[PointLayer, PointLayer]:
    """Return the voxels that one focal convolution keeps as foreground, and those that it grows."""
    size = float(VOXEL_SHARE * focus.stride * np.min(grid.voxel_size))
    kinds = (("kept", focus.foreground, KEPT), ("grown", focus.grown, GROWN))
    kept, grown = (
        PointLayer(f"{focus.title}: {kind}", voxel_centers(voxels, grid, focus.stride), color, size)
        for kind, voxels, color in kinds
    )
    return kept, grown
