"""Detector: a config and weights, called on scans, files, images and samples.

    Detector("pillar_demo")("configs/demo/scan.npy").above(0.3).to_json()
    detector = Detector("dsvt_pillar_nuscenes", "dsvt.safetensors")

What is given goes through the test pipeline of the config, so a frame of a data set gives what testing gives. Where the
data are in memory or in a file of their own, the pipeline's loaders are left out and the rest of it is the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import Tensor

from .checkpoints import load_converted
from .config import load_config
from .datasets.point_files import read_scan
from .datasets.transforms import Compose, LoadImages, LoadPoints, build_transform
from .datasets.transforms.loading import read_image
from .engine import newest_checkpoint, read_checkpoint
from .engine.files import CheckpointError
from .progress import track
from .registry import MODELS
from .results import NamedDetections
from .scan_stream import ScanStream
from .streaming import FrameStream
from .structures import Cameras, Frame, LidarScan, Sample
from .zoo import find_config, find_weights

Input: TypeAlias = "np.ndarray | Tensor | str | os.PathLike | Frame | Sample"
LOADER = "Load"  # loaders are called so, and come first in a pipeline


class Detector:
    """A trained detector.

    Args:
        config: a name of the zoo (``tools/zoo.py`` lists them) or the path of a config file.
        weights: a checkpoint, released weights, or a work directory for its newest checkpoint; None for those that
            come with the model (``pillar_demo``). Official checkpoints of the authors are converted first
            (``tools/convert_checkpoint.py``).
        device: where to run; by default a GPU if there is one.
        options: overrides of the config, e.g. ``{"model.head.decoder.score_threshold": 0.3}``.

    Raises:
        FileNotFoundError: if there is no such config, or no weights come with it and none are given.
        CheckpointError: if the weights are missing, damaged, or hold objects.
        ValueError: if the weights do not fit the model; every entry that does not is listed.
    """

    def __init__(
        self,
        config: str | Path,
        weights: str | Path | None = None,
        device: str | torch.device | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.config: Config = load_config(find_config(config), options)
        init_default_scope(self.config.default_scope)
        self.class_names: tuple[str, ...] = tuple(self.config.class_names)
        self.model = MODELS.build(self.config.model)
        load_converted(self.model, _read_weights(find_weights(config) if weights is None else Path(weights)))
        self.model = self.model.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()
        self.preparation = Preparation(self.config)

    def __call__(self, inputs: Input | Iterable[Input], batch_size: int = 1) -> NamedDetections | list[NamedDetections]:
        """Detect in one input, or in each of many behind a progress bar.

        Args:
            inputs: points ``[P, F]`` float32 with the columns of training (``config.num_point_features``); a point
                file as the sensor recorded it (see ``datasets.point_files``); a ``Frame`` of an index; a ``Sample``,
                e.g. of ``camera_sample``; or a list of any of these.
            batch_size: inputs that go through the network together.

        Returns:
            Detections in the LiDAR frame as recorded, in descending order of score; for many inputs one each.

        Raises:
            TypeError: if an input is of another kind.
            ValueError: if it lacks what the detector reads, or is of another shape.
        """
        if isinstance(inputs, (np.ndarray, Tensor, str, os.PathLike, Frame, Sample)):
            return next(self.iterate([inputs]))
        inputs = list(inputs)
        return list(track(self.iterate(inputs, batch_size), "detecting", total=len(inputs)))

    def iterate(self, inputs: Iterable[Input], batch_size: int = 1) -> Iterator[NamedDetections]:
        """Yield the detections of one input after the other, without holding more than a batch."""
        remaining = iter(inputs)
        while batch := list(islice(remaining, batch_size)):
            yield from self.detect([self.preparation(each) for each in batch])

    @torch.no_grad()
    def detect(self, samples: Sequence[Sample]) -> list[NamedDetections]:
        """Return the detections of samples that are prepared, as one batch.

        A detector of several frames that gets a sample of one sees it as the first of a stream.
        """
        if self._looks_back and not all(sample.get("past") for sample in samples):
            return [self._named(FrameStream(self.model, self.preparation.ages)(sample)) for sample in samples]
        return [self._named(sample) for sample in self.model.test_step(list(samples))]

    def stream(self) -> Stream:
        """Return a stream, which remembers earlier scans or images as the detector was trained to use them."""
        return Stream(self)

    @property
    def _looks_back(self) -> bool:
        return bool(self.preparation.ages) and self.model.point_branch is None

    def _named(self, sample: Sample) -> NamedDetections:
        return NamedDetections.of(sample.pred, self.class_names, sample.get("frame"))


class Stream:
    """A detector on a stream of scans or of camera images, one moment after the other.

    LiDAR detectors see the scans before as sweeps, moved by the vehicle's motion, with their age; camera detectors keep
    the features of earlier images. Without a pose the vehicle is taken to stand still. The stream begins anew where it
    breaks (see ``FrameStream`` and ``ScanStream``).
    """

    def __init__(self, detector: Detector) -> None:
        self.detector = detector
        if detector.model.point_branch is None:
            self._camera = FrameStream(detector.model, detector.preparation.ages)
            self._scans = None
        else:
            if detector.model.image_branch is not None or detector.preparation.load_points is None:
                raise ValueError("stream: only detectors of points alone, or of images alone, can follow a stream")
            self._scans = ScanStream(detector.preparation.load_points)

    def __call__(
        self, scan: Input, timestamp: int | None = None, lidar2global: np.ndarray | None = None
    ) -> NamedDetections:
        """Detect in the next scan.

        Args:
            scan: points ``[P, C]`` as the sensor recorded them (x, y, z, intensity; no time lag), a point file, or a
                sample of ``camera_sample``; a ``Frame`` of an index brings its time and pose with it.
            timestamp: microseconds; needed for points and files.
            lidar2global: ``[4, 4]``, LiDAR -> a frame that stands still.

        Raises:
            ValueError: without a time.
        """
        if self._scans is None:
            return self.detector._named(self._camera(self.detector.preparation(scan)))
        preparation = self.detector.preparation
        if isinstance(scan, Frame):
            timestamp, lidar2global = scan.lidar.timestamp, scan.lidar2global
            scan = scan.lidar.path
        if timestamp is None:
            raise ValueError("stream: a scan needs its time, `timestamp` in microseconds")
        frame = bare_frame(timestamp, lidar2global)
        points = self._scans(preparation.recorded(scan), frame)
        return self.detector.detect([preparation.finish(Sample.from_frame(frame).replace(points=points))])[0]


class Preparation:
    """From what a user has to what the network reads, by the config's test pipeline.

    Args:
        config: a resolved config.

    Attributes:
        load_points: the pipeline's loader of points, or None.
        camera_names: the cameras in the network's order; None takes them as they come.
        ages: seconds before a frame at which the detector wants others.
    """

    def __init__(self, config: Config) -> None:
        dataset = config.test_dataloader.dataset
        steps = list(dataset.pipeline)
        loaders = [build_transform(step) for step in steps if is_loader(step)]
        self.whole = Compose(steps)
        self.after_loading = Compose([step for step in steps if not is_loader(step)])
        self.load_points = next((each for each in loaders if isinstance(each, LoadPoints)), None)
        images = next((each for each in loaders if isinstance(each, LoadImages)), None)
        self.camera_names = None if images is None else images.names
        self.ages = tuple(dataset.get("past", ()))
        self.num_point_features = config.get("num_point_features")

    def __call__(self, item: Input) -> Sample:
        """Return the sample that the network reads; ``item`` is what ``Detector`` takes."""
        if isinstance(item, Frame):
            return self.whole(Sample.from_frame(item), np.random.default_rng(0))
        if isinstance(item, Sample):
            if "points" in item or "images" in item:
                return self.finish(self._order_cameras(item))
            return self.whole(item, np.random.default_rng(0))
        if isinstance(item, (str, os.PathLike)):
            points = self.recorded(item)
        elif isinstance(item, (np.ndarray, Tensor)):
            points = torch.as_tensor(item)
        else:
            raise TypeError(
                f"Detector: expected points, the path of a point file, a Frame or a Sample, got {type(item).__name__}"
            )
        return self.finish(Sample(metainfo={"lidar_aug": np.eye(4)}, points=self._whole_columns(points)))

    def finish(self, sample: Sample) -> Sample:
        """Apply what comes after the loaders."""
        return self.after_loading(sample, np.random.default_rng(0))

    def recorded(self, scan: np.ndarray | Tensor | str | os.PathLike) -> Tensor:
        """Return the columns of a scan that the detector was trained with, before the time lag."""
        if not isinstance(scan, (str, os.PathLike)):
            return torch.as_tensor(scan)
        load = self.load_points
        points = read_scan(scan, self.num_point_features if load is None else load.num_features)
        if load is None or str(scan).endswith(".npy"):
            return torch.from_numpy(points)
        if points.shape[1] <= load.use.max():
            raise ValueError(f"{scan}: {points.shape[1]} columns; the detector reads columns {load.use.tolist()}")
        return torch.from_numpy(points[:, load.use])

    def _whole_columns(self, points: Tensor) -> Tensor:
        """Give a scan as recorded the time lag of a key frame, 0."""
        load = self.load_points
        if load is None or not load.time_lag or points.ndim != 2 or points.shape[1] != len(load.use):
            return points
        return torch.nn.functional.pad(points, (0, 1))

    def _order_cameras(self, sample: Sample) -> Sample:
        """Bring images into the order of training; a camera that is not there is black and sees nothing."""
        if "images" not in sample or self.camera_names is None or sample.cameras.names == self.camera_names:
            return sample
        cameras, have = sample.cameras, {name: place for place, name in enumerate(sample.cameras.names)}
        if not have.keys() & set(self.camera_names):
            raise ValueError(f"the sample has none of the cameras {self.camera_names}, but {cameras.names}")
        rows = [have.get(name, 0) for name in self.camera_names]
        there = torch.tensor([name in have for name in self.camera_names])
        images = [
            sample.images[row] if known else torch.zeros_like(sample.images[row])
            for row, known in zip(rows, there.tolist(), strict=True)
        ]
        ordered = Cameras.cat([cameras[row : row + 1] for row in rows])
        ordered = replace(ordered, names=self.camera_names, lidar2cam=ordered.lidar2cam * there[:, None, None])
        same_size = len({image.shape for image in images}) == 1
        return sample.replace(images=torch.stack(images) if same_size else images, cameras=ordered)


def camera_sample(
    images: Mapping[str, np.ndarray | str | os.PathLike],
    calibration: Mapping[str, Mapping[str, Any]],
    points: np.ndarray | Tensor | None = None,
    timestamp: int = 0,
    lidar2global: np.ndarray | None = None,
) -> Sample:
    """Return a sample of camera images, with points for fusion detectors.

    Args:
        images: by name of the camera, in any order: ``[H, W, 3]`` uint8 RGB, or an image file.
        calibration: by name: ``intrinsic`` ``[3, 3]`` in pixels of the image, ``lidar2cam`` ``[4, 4]``, LiDAR -> camera
            (x right, y down, z forward), and if known ``delay``, seconds from the LiDAR's time to the exposure.
        points: ``[P, F]`` float32 with the columns of training.
        timestamp: microseconds, of the LiDAR or the trigger.
        lidar2global: ``[4, 4]``, LiDAR -> a frame that stands still, for streams.

    Raises:
        FileNotFoundError: if an image file is missing.
        ValueError: if an image cannot be read, or there is no calibration for it.
    """
    missing = sorted(set(images) - set(calibration))
    if missing or not images:
        raise ValueError(f"camera_sample: no calibration for {missing}" if missing else "camera_sample: no images")
    pixels = [_to_image(name, image) for name, image in images.items()]
    known = [calibration[name] for name in images]
    cameras = Cameras.create(
        names=list(images),
        intrinsics=torch.from_numpy(np.stack([np.asarray(each["intrinsic"], np.float64) for each in known])),
        lidar2cam=torch.from_numpy(np.stack([np.asarray(each["lidar2cam"], np.float64) for each in known])),
        image_sizes=torch.tensor([image.shape[1:] for image in pixels]),
        timestamps=torch.tensor([float(each.get("delay", 0.0)) for each in known]),
    )
    same_size = len({image.shape for image in pixels}) == 1
    fields = {} if points is None else {"points": torch.as_tensor(points)}
    sample = Sample.from_frame(bare_frame(timestamp, lidar2global))
    return sample.replace(images=torch.stack(pixels) if same_size else pixels, cameras=cameras, **fields)


def bare_frame(timestamp: int = 0, lidar2global: np.ndarray | None = None) -> Frame:
    """Return the record of data that come from no data set; the LiDAR stands for the vehicle."""
    pose = np.eye(4) if lidar2global is None else np.asarray(lidar2global, dtype=np.float64)
    scan = LidarScan("", timestamp, np.eye(4))
    return Frame(str(timestamp), "", timestamp, scan, (), (), np.eye(4), pose, None)


def _to_image(name: str, image: np.ndarray | str | os.PathLike) -> Tensor:
    """Return ``[3, H, W]`` uint8, RGB."""
    if isinstance(image, (str, os.PathLike)):
        return torch.from_numpy(read_image(image))
    array = np.asarray(image)
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
        raise ValueError(f"image of {name}: expected [H, W, 3] uint8, got {list(array.shape)} {array.dtype}")
    return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)))


def is_loader(step: Mapping[str, Any]) -> bool:
    """Return whether a step of a pipeline reads what the later ones work on."""
    return step["type"].startswith(LOADER)


def _read_weights(path: Path) -> dict[str, Tensor]:
    """Return the state dictionary of a checkpoint, or of the newest one of a work directory."""
    found = newest_checkpoint(path) if path.is_dir() else path
    if found is None:
        raise CheckpointError(f"{path} holds no checkpoint")
    content = read_checkpoint(found)
    return content.get("state_dict", content)
