"""LiDAR detectors of several sweeps on a stream of scans: each scan joins those before it.

Offline, a data set says which scans came before and how the vehicle moved between them. Here the scans themselves are
kept, with their poses, and put together as `LoadPoints` does: the newest first, in its own coordinates, with the time
lag t_now - t_scan as the last column.

A stream that breaks begins anew: at a scan that is not later than the one before, and after a long gap.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
import torch
from mmengine.logging import print_log
from torch import Tensor

from .datasets.point_kernels import place_scan
from .datasets.transforms import LoadPoints
from .datasets.transforms.loading import OWN_VEHICLE
from .structures import Frame

LONGEST_GAP = 1.0  # seconds between two scans after which the older ones say nothing about the present


@dataclass(frozen=True)
class SeenScan:
    """A scan that was seen, ``[P, C]`` float32 in its own coordinates, and where and when that was."""

    points: np.ndarray
    frame: Frame


class ScanStream:
    """Join each scan with those before it.

    Args:
        load: the loader that the detector was trained with; it says how many sweeps there are, and what leaves them.

    Attributes:
        restart: why the last scan began the stream anew, or None if it did not.
    """

    def __init__(self, load: LoadPoints) -> None:
        self.load = load
        self.restart: str | None = None
        self._seen: deque[SeenScan] = deque(maxlen=load.sweeps)

    def __call__(self, points: Tensor, frame: Frame) -> Tensor:
        """Return the points ``[P', C + 1]`` float32 that the detector reads.

        Args:
            points: ``[P, C]`` float32 as the sensor recorded them, in the columns of training without the time lag.
            frame: the time and the pose of the scan.

        Raises:
            ValueError: if the points are of another shape or dtype, or one of them is not finite.
        """
        columns = len(self.load.use)
        if points.ndim != 2 or points.shape[1] != columns or points.dtype != torch.float32:
            raise ValueError(f"scan: expected [P, {columns}] float32, got {list(points.shape)} {points.dtype}")
        self._break_before(frame)
        now = SeenScan(points.cpu().numpy(), frame)
        scans = [now, *self._seen]
        out = np.empty((sum(len(each.points) for each in scans), columns + self.load.time_lag), np.float32)
        filled = 0
        for each in scans:
            close = self.load.remove_close_key if each is now else self.load.remove_close
            filled += self._place(each, frame, close, out[filled:])
        self._seen.appendleft(now)
        return torch.from_numpy(out[:filled])

    def _break_before(self, frame: Frame) -> None:
        self.restart = None
        if not self._seen:
            return
        step = (frame.timestamp - self._seen[0].frame.timestamp) * 1e-6
        if 0 < step <= LONGEST_GAP:
            return
        self.restart = f"{step:.3f} s without a scan" if step > 0 else f"it is {-step:.3f} s before the last one"
        print_log(f"the scan at {frame.timestamp} begins the stream anew: {self.restart}", "current")
        self._seen.clear()

    def _place(self, scan: SeenScan, frame: Frame, close: bool, out: np.ndarray) -> int:
        """Write a scan in the coordinates of ``frame``, and return the number of its points."""
        moved = np.eye(4)
        if scan.frame is not frame:
            moved = np.linalg.inv(frame.lidar2global) @ scan.frame.lidar2global
        lag = (frame.timestamp - scan.frame.timestamp) * 1e-6
        use = np.arange(scan.points.shape[1])
        written = place_scan(scan.points, use, moved, OWN_VEHICLE if close else 0.0, lag, out)
        if written < 0:
            raise ValueError(f"scan: point {-1 - written} holds NaN or infinity")
        return written
