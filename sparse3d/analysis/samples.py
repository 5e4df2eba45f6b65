"""One sample for a config: of a data set, or made up where there is none."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config

from ..datasets.frame_dataset import open_frames
from ..datasets.transforms import Compose
from ..deploy.scans import as_sample, config_scan
from ..inference import bare_frame
from ..structures import Cameras, Sample

FOCAL = 0.8  # of the made-up cameras, in image widths: about 64 degrees
HEIGHT = 0.3  # metres that they stand below the LiDAR


def data_sample(config: Config, folder: Path) -> Sample:
    """Return the first frame of a folder's index (``sparse3d_*.arrow``) or info file (``*.pkl``), after test pipeline.

    Raises:
        FileNotFoundError: if the folder holds neither.
    """
    indexes = sorted(folder.glob("sparse3d_*.arrow")) or sorted(folder.glob("*.pkl"))
    if not indexes:
        raise FileNotFoundError(f"{folder} holds neither an index (sparse3d_*.arrow) nor an info file (*.pkl)")
    frame, dataset = open_frames(folder, indexes[0])[0], config.test_dataloader.dataset
    sample = Sample.from_frame(frame, past=(frame,) * len(dataset.get("past", ())))
    return Compose(dataset.pipeline)(sample, np.random.default_rng(0))


def made_up_sample(config: Config) -> Sample:
    """Return a sample with what the config's model reads: a scan of a real sensor's size, noise for images."""
    made_up = as_sample(config_scan(config))
    return Sample.from_frame(bare_frame()).replace(**dict(made_up.items()))


def ring_of_cameras(count: int, height: int, width: int) -> Cameras:
    """Return cameras that look outwards, evenly round the LiDAR, the first one along +x."""
    angles = torch.arange(count) * (2 * math.pi / count)
    cos, sin, zero = angles.cos(), angles.sin(), torch.zeros(count)
    right, forward = torch.stack([sin, -cos, zero], dim=1), torch.stack([cos, sin, zero], dim=1)
    down = torch.tensor([0.0, 0.0, -1.0]).expand(count, 3)
    lidar2cam = torch.eye(4).repeat(count, 1, 1)
    lidar2cam[:, :3, :3] = torch.stack([right, down, forward], dim=1)
    lidar2cam[:, 1, 3] = -HEIGHT
    intrinsic = torch.tensor([[FOCAL * width, 0, width / 2], [0, FOCAL * width, height / 2], [0, 0, 1]])
    sizes = torch.tensor([[height, width]]).expand(count, 2)
    return Cameras.create([f"CAM_{n}" for n in range(count)], intrinsic.expand(count, 3, 3), lidar2cam, sizes)
