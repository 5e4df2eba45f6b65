"""Scans of the size and density of real sensors, for golden inputs and benchmarks where no recording is at hand.

A spinning LiDAR on a wavy ground among upright cylinders (poles, trunks, cars, houses by their radius). A ray ends at
the first cylinder that is tall enough for it, else on the ground, else nowhere. Columns are x, y, z in metres,
intensity, and the time lag of the sweep in seconds (one sweep: elongation, 0).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor

from sparse3d.datasets.frame_dataset import open_frames
from sparse3d.datasets.history import History
from sparse3d.datasets.nuscenes_schema import CAMERA_CHANNELS
from sparse3d.datasets.transforms import Compose
from sparse3d.structures import Frame, Sample

from .rigs import make_images, make_rig
from .sensor_scan import CameraScan, FusionScan, Scan

NUM_CYLINDERS = 300
NEAREST, FARTHEST = 3.0, 80.0  # metres
RADII, HEIGHTS = (0.1, 2.0), (0.3, 8.0)  # metres
BUMPS = 0.25  # metres, height of the ground's waves, some ten metres long
STEP = 0.4  # metres that the vehicle moves between two sweeps
LOST, NOISE = 0.15, 0.02  # share of rays without a return; standard deviation of ranges in metres


@dataclass(frozen=True)
class Sensor:
    """A spinning LiDAR.

    Args:
        elevations: lowest and highest beam in degrees.
        beams: number of beams.
        columns: firings a revolution.
        height: above the ground in metres.
        sweeps: revolutions in a scan.
        interval: seconds between two sweeps.
    """

    elevations: tuple[float, float]
    beams: int
    columns: int
    height: float
    sweeps: int
    interval: float


SENSORS = {
    "nuscenes": Sensor((-30.67, 10.67), 32, 1090, 1.84, sweeps=10, interval=0.05),
    "waymo": Sensor((-17.6, 2.4), 64, 2650, 2.0, sweeps=1, interval=0.1),
}


def make_scan(sensor: str, num_features: int = 5, seed: int = 0) -> Tensor:
    """Return a scan ``[P, num_features]`` float32 of a sensor: ``"nuscenes"`` (ten sweeps) or ``"waymo"``.

    Columns beyond the fifth are 0.
    """
    model, rng = SENSORS[sensor], np.random.default_rng(seed)
    angle, share = rng.random((2, NUM_CYLINDERS)) * [[2 * np.pi], [1]]
    distance = NEAREST + (FARTHEST - NEAREST) * np.sqrt(share)  # as many on each square metre
    radius = np.minimum(rng.uniform(*RADII, NUM_CYLINDERS), distance / 3)
    height = rng.uniform(*HEIGHTS, NUM_CYLINDERS)
    centers = np.stack([distance * np.cos(angle), distance * np.sin(angle)], axis=1)
    sweeps = [
        _sweep(model, centers - [STEP * number, 0.0], radius, height, number, rng) for number in range(model.sweeps)
    ]
    points = np.concatenate(sweeps).astype(np.float32)[:, :num_features]
    return torch.from_numpy(np.pad(points, ((0, 0), (0, num_features - points.shape[1]))))


def config_scan(config: Config, folder: Path | None = None) -> Scan:
    """Return a scan as a config's model reads it: points, what cameras see, or both.

    Args:
        config: a resolved config.
        folder: holds an index (``sparse3d_*.arrow``) or an info file (``*.pkl``), whose first frame goes through the
            config's test pipeline; None makes a scan up.

    Raises:
        FileNotFoundError: if the folder holds neither.
        ValueError: if there is no folder and the config does not state the size of images.
    """
    return config_scans(config, folder, [0])[0]


def calibration_scans(config: Config, folder: Path | None, count: int) -> list[Scan]:
    """Return scans spread evenly over a folder's frames, without the first one, which is golden, if there are others.

    Arguments and errors as ``config_scan``; fewer frames than ``count`` give fewer scans.
    """
    frames = count + 1 if folder is None else len(_frames(folder))
    places = np.linspace(min(1, frames - 1), frames - 1, min(count, max(frames - 1, 1))).round().astype(int)
    return config_scans(config, folder, places.tolist())


def config_scans(config: Config, folder: Path | None, numbers: Sequence[int]) -> list[Scan]:
    """Return several scans, by their numbers; arguments and errors as ``config_scan``."""
    if folder is None:
        return [_made_up(config, number) for number in numbers]
    frames, pipeline = _frames(folder), Compose(config.test_dataloader.dataset.pipeline)
    history = History(frames, config.get("past", []))
    pasts = [tuple(frames[row] for row in history.rows(number)) for number in numbers]
    samples = [Sample.from_frame(frames[number], past=past) for number, past in zip(numbers, pasts, strict=True)]
    return [as_scan(pipeline(sample, np.random.default_rng(0))) for sample in samples]


def as_scan(sample: Sample) -> Scan:
    """Return what a sample holds of points, images and cameras; the images have to be of one size."""
    if "images" not in sample:
        return sample.points
    images = torch.stack(list(sample.images))
    if "points" not in sample:
        return CameraScan(images, sample.cameras)
    return FusionScan(images, sample.cameras, sample.points)


def as_sample(scan: Scan) -> Sample:
    """Return the sample that a detector takes."""
    return Sample().replace(**({"points": scan} if isinstance(scan, Tensor) else vars(scan)))


def _made_up(config: Config, seed: int) -> Scan:
    sensors = {}
    if config.model.get("point_branch") is not None:
        sensor = "waymo" if "Waymo" in config.test_dataloader.dataset.type else "nuscenes"
        sensors["points"] = make_scan(sensor, config.num_point_features, seed=seed)
    if config.model.get("image_branch") is not None:
        if "image_size" not in config:
            raise ValueError("the config states no image_size to make images up for; give the folder of a data set")
        cameras, frames = len(config.get("camera_names", CAMERA_CHANNELS)), 1 + len(config.get("past", []))
        rig = make_rig(cameras, tuple(config.image_size), frames)
        sensors.update(images=make_images(rig, seed=seed), cameras=rig)
    return as_scan(Sample().replace(**sensors))


def _frames(folder: Path) -> Sequence[Frame]:
    indexes = sorted(folder.glob("sparse3d_*.arrow")) or sorted(folder.glob("*.pkl"))
    if not indexes:
        raise FileNotFoundError(f"{folder} holds neither an index (sparse3d_*.arrow) nor an info file (*.pkl)")
    return open_frames(folder, indexes[0])


def _sweep(
    sensor: Sensor, centers: np.ndarray, radius: np.ndarray, height: np.ndarray, number: int, rng: np.random.Generator
) -> np.ndarray:
    """Return the points of a sweep in the frame of the newest one."""
    azimuth = (np.arange(sensor.columns) + rng.random()) * (2 * np.pi / sensor.columns)
    elevation = np.radians(np.linspace(*sensor.elevations, sensor.beams))
    ground = _ground_ranges(azimuth, np.tan(elevation), sensor.height, STEP * number)
    flat = _nearest(azimuth, np.tan(elevation), sensor.height, ground, centers, radius, height)
    flat += rng.normal(0, NOISE, flat.shape)
    kept = (flat < FARTHEST) & (rng.random(flat.shape) > LOST)
    x, y, z = flat * np.cos(azimuth)[:, None], flat * np.sin(azimuth)[:, None], flat * np.tan(elevation)
    intensity, lag = rng.gamma(2.0, 10.0, flat.shape).clip(0, 255), np.full(flat.shape, number * sensor.interval)
    return np.stack([x + STEP * number, y, z, intensity, lag], axis=-1)[kept]


def _ground_ranges(
    azimuth: np.ndarray,  # [C]
    slope: np.ndarray,  # [B]
    sensor_height: float,
    moved: float,
) -> np.ndarray:  # [C, B]
    """Return the horizontal ranges at which rays meet the ground, infinite for those that rise.

    The waves shift the range at which a level ground would be met; that is close enough for waves as flat as these.
    """
    level = np.where(slope < 0, -sensor_height / np.minimum(slope, -1e-6), np.inf)
    reach = np.minimum(level, FARTHEST)
    x, y = moved + np.cos(azimuth)[:, None] * reach, np.sin(azimuth)[:, None] * reach
    wave = BUMPS * (np.sin(x / 3.1 + np.sin(y / 7.3)) + np.sin(y / 2.3 + np.sin(x / 5.9)))
    return level * (1 - wave / sensor_height)


def _nearest(
    azimuth: np.ndarray,  # [C]
    slope: np.ndarray,  # [B]
    sensor_height: float,
    ground: np.ndarray,  # [C, B]
    centers: np.ndarray,  # [K, 2]
    radius: np.ndarray,  # [K]
    height: np.ndarray,  # [K]
) -> np.ndarray:  # [C, B]
    """Return the horizontal ranges of all rays, to a cylinder where one stands in the way."""
    along = np.cos(azimuth)[:, None] * centers[:, 0] + np.sin(azimuth)[:, None] * centers[:, 1]
    beside = np.sin(azimuth)[:, None] * centers[:, 0] - np.cos(azimuth)[:, None] * centers[:, 1]
    hit = (np.abs(beside) < radius) & (along > 0)
    reach = np.where(hit, along - np.sqrt(np.maximum(radius**2 - beside**2, 0)), np.inf)  # [C, K]
    ranges = ground.copy()
    for cylinder in np.flatnonzero(hit.any(axis=0)):
        columns = np.flatnonzero(hit[:, cylinder])
        far = reach[columns, cylinder, None]
        low_enough = far * slope + sensor_height < height[cylinder]
        ranges[columns] = np.where(low_enough, np.minimum(ranges[columns], far), ranges[columns])
    return ranges
