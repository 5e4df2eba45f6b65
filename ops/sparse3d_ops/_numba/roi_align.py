"""Average bilinear reads in the cells of boxes on a CPU, and their gradient.

Bilinear interpolation is a product of an interpolation along y and one along x, and so is the average over a grid of
samples: a cell is a small block of pixels with weights that are products. Forward, rows are boxes; backward, rows are
images, because boxes of one image add to the same pixels. Any number of threads gives the same bits.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .sampling import SUMS


@njit(cache=True, nogil=True)
def axis_weights(
    start: float,
    cell: float,
    count: int,
    weights: np.ndarray,  # [P, size], zeros
    bounds: np.ndarray,  # [P, 2]
) -> None:
    """Write the weight of each pixel along one axis in each cell, and the pixels from which to which they lie."""
    cells, size = weights.shape
    for number in range(cells):
        first, last = size, 0
        for sample in range(count):
            place = start + (number + (sample + 0.5) / count) * cell
            if not (-1 <= place <= size):
                continue
            place = min(max(place, 0.0), size - 1.0)
            low = int(np.floor(place))
            high = min(low + 1, size - 1)
            weights[number, low] += (1 - (place - low)) / count
            weights[number, high] += (place - low) / count
            first, last = min(first, low), max(last, high + 1)
        bounds[number, 0], bounds[number, 1] = first, last


@njit(cache=True, nogil=True, fastmath=SUMS)
def average_cells(
    start: int,
    stop: int,
    images: np.ndarray,  # [N, H, W, C]
    index: np.ndarray,  # [R]
    starts: np.ndarray,  # [R, 2] (y, x) in pixels
    cells: np.ndarray,  # [R, 2]
    counts: np.ndarray,  # [R, 2]
    out: np.ndarray,  # [R, P, P, C], zeros
) -> None:
    """Write the averages of some boxes."""
    height, width, channels = images.shape[1:]
    side = out.shape[1]
    y_bounds, x_bounds = np.empty((side, 2), np.int64), np.empty((side, 2), np.int64)
    for box in range(start, stop):
        y_weights, x_weights = np.zeros((side, height), images.dtype), np.zeros((side, width), images.dtype)
        axis_weights(starts[box, 0], cells[box, 0], counts[box, 0], y_weights, y_bounds)
        axis_weights(starts[box, 1], cells[box, 1], counts[box, 1], x_weights, x_bounds)
        for p in range(side):
            for q in range(side):
                row = out[box, p, q]
                for y in range(y_bounds[p, 0], y_bounds[p, 1]):
                    for x in range(x_bounds[q, 0], x_bounds[q, 1]):
                        share = y_weights[p, y] * x_weights[q, x]
                        pixel = images[index[box], y, x]
                        for channel in range(channels):
                            row[channel] += share * pixel[channel]


@njit(cache=True, nogil=True, fastmath=SUMS)
def average_cells_backward(
    start: int,
    stop: int,
    order: np.ndarray,  # [R], boxes sorted by image
    offsets: np.ndarray,  # [N + 1], where the boxes of each image begin
    starts: np.ndarray,  # [R, 2]
    cells: np.ndarray,  # [R, 2]
    counts: np.ndarray,  # [R, 2]
    gradients: np.ndarray,  # [R, P, P, C]
    to_images: np.ndarray,  # [N, H, W, C], zeros
) -> None:
    """Write the gradients with respect to some images."""
    height, width, channels = to_images.shape[1:]
    side = gradients.shape[1]
    y_bounds, x_bounds = np.empty((side, 2), np.int64), np.empty((side, 2), np.int64)
    for number in range(start, stop):
        for box in order[offsets[number] : offsets[number + 1]]:
            y_weights = np.zeros((side, height), to_images.dtype)
            x_weights = np.zeros((side, width), to_images.dtype)
            axis_weights(starts[box, 0], cells[box, 0], counts[box, 0], y_weights, y_bounds)
            axis_weights(starts[box, 1], cells[box, 1], counts[box, 1], x_weights, x_bounds)
            for p in range(side):
                for q in range(side):
                    row = gradients[box, p, q]
                    for y in range(y_bounds[p, 0], y_bounds[p, 1]):
                        for x in range(x_bounds[q, 0], x_bounds[q, 1]):
                            share = y_weights[p, y] * x_weights[q, x]
                            pixel = to_images[number, y, x]
                            for channel in range(channels):
                                pixel[channel] += share * row[channel]
