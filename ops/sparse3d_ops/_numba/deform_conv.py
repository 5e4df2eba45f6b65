"""Bilinear reads at displaced kernel taps on a CPU, and their gradients.

Images are channels-last, so a corner of a pixel is one run of a group's channels. Forward, rows are output pixels;
backward, rows are images, because taps of one image add to the same pixels. Any number of threads gives the same bits.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .sampling import SUMS


@njit(cache=True, nogil=True, fastmath=SUMS)
def gather_taps(
    start: int,
    stop: int,
    images: np.ndarray,  # [N, H, W, C]
    positions: np.ndarray,  # [N, P, G, K, 2] (y, x) in pixels
    mask: np.ndarray,  # [N, P, G, K]
    out: np.ndarray,  # [N, P, K, C], zeros
) -> None:
    """Write what each tap of some output pixels reads."""
    height, width, num_channels = images.shape[1:]
    places, groups, taps = positions.shape[1:4]
    channels = num_channels // groups
    for row in range(start, stop):
        number, place = row // places, row % places
        for group in range(groups):
            first = group * channels
            for tap in range(taps):
                y, x = positions[number, place, group, tap]
                target = out[number, place, tap, first : first + channels]
                if x != x or y != y:
                    target[:] = np.nan
                    continue
                if not (-1 < x < width and -1 < y < height):
                    continue
                top, left = int(np.floor(y)), int(np.floor(x))
                for corner in range(4):
                    i, j = top + corner // 2, left + corner % 2
                    if 0 <= i < height and 0 <= j < width:
                        share = mask[number, place, group, tap] * (1 - abs(y - i)) * (1 - abs(x - j))
                        pixel = images[number, i, j, first : first + channels]
                        for channel in range(channels):
                            target[channel] += share * pixel[channel]


@njit(cache=True, nogil=True, fastmath=SUMS)
def gather_taps_backward(
    start: int,
    stop: int,
    images: np.ndarray,  # [N, H, W, C]
    positions: np.ndarray,  # [N, P, G, K, 2]
    mask: np.ndarray,  # [N, P, G, K]
    gradients: np.ndarray,  # [N, P, K, C]
    to_images: np.ndarray,  # [N, H, W, C], added to
    to_positions: np.ndarray,  # [N, P, G, K, 2], zeros
    to_mask: np.ndarray,  # [N, P, G, K], zeros
) -> None:
    """Write the gradients of some images with respect to pixels, positions and mask."""
    height, width, num_channels = images.shape[1:]
    places, groups, taps = positions.shape[1:4]
    channels = num_channels // groups
    for number in range(start, stop):
        for place in range(places):
            for group in range(groups):
                first = group * channels
                for tap in range(taps):
                    y, x = positions[number, place, group, tap]
                    if not (-1 < x < width and -1 < y < height):
                        continue
                    weight = mask[number, place, group, tap]
                    row = gradients[number, place, tap, first : first + channels]
                    top, left = int(np.floor(y)), int(np.floor(x))
                    along_y = along_x = total = weight * 0
                    for corner in range(4):
                        i, j = top + corner // 2, left + corner % 2
                        if not (0 <= i < height and 0 <= j < width):
                            continue
                        in_y, in_x = 1 - abs(y - i), 1 - abs(x - j)
                        pixel = images[number, i, j, first : first + channels]
                        back = to_images[number, i, j, first : first + channels]
                        product, share = weight * 0, weight * in_y * in_x
                        for channel in range(channels):
                            product += row[channel] * pixel[channel]
                            back[channel] += share * row[channel]
                        total += in_y * in_x * product
                        along_y += in_x * product if corner // 2 else -in_x * product
                        along_x += in_y * product if corner % 2 else -in_y * product
                    to_mask[number, place, group, tap] = total
                    to_positions[number, place, group, tap, 0] = weight * along_y
                    to_positions[number, place, group, tap, 1] = weight * along_x
