"""Reading the files of a frame into a sample: points, annotations, images, calibration.

    points      [P, F + 1]      the chosen columns of the file, then the time lag t_key - t_scan in seconds
    sweep       p_key = lidar2key p_sweep, after points on the own vehicle are removed in the sweep's own frame

Loaders come first in a pipeline: they write coordinates as recorded, so nothing may have moved the sample before.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import NoReturn

import cv2
import numpy as np
import torch

from ...registry import TRANSFORMS
from ...structures import (
    Annotations,
    Boxes3D,
    CameraImage,
    Cameras,
    Frame,
    InstanceData,
    LidarScan,
    Sample,
    WaymoLabels,
)
from ...structures.skeleton import MISSING
from .. import point_kernels
from ..nuscenes_schema import CATEGORY_TO_CLASS
from ..sensor_files import read_bytes, read_encoded_image, read_raw_points, read_scan

BOX_DIM = 7  # centre, size, yaw; a velocity may be unknown
OWN_VEHICLE = 1.0  # metres: |x| and |y| below it are returns from the roof of the recording car
JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"
JPEG_TAIL = 4096  # bytes at the end of a file in which the end marker must lie: some writers append padding


# -- points -----------------------------------------------------------------------------------------------------------


@TRANSFORMS.register_module()
class LoadPoints:
    """Set ``points`` ``[P, len(use) + 1]`` float32: the key frame and sweeps before it, in the key frame's coordinates.

    The last column is the time lag in seconds, 0 for the key frame and growing with age.

    Args:
        num_features: float32 values a point in the files.
        use: columns of the files to keep; they begin with x, y, z.
        sweeps: scans before the key frame to add; where a frame has fewer, those it has.
        random_sweeps: take a random choice of the frame's sweeps (newest first) instead of the nearest ones.
        remove_close: drop points of the own vehicle (|x| < 1 m and |y| < 1 m) from sweeps.
        remove_close_key: drop them from the key frame too.
        pad_empty_sweeps: where a frame has no sweep at all, repeat the key frame in their place (lag 0), as published
            nuScenes pipelines do.
        time_lag: append the column of time lags.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file is cut off, one of its values is not finite, or the pose of a sweep is not.

    Source: nuScenes' multi-sweep input, as in mmdetection3d's loaders; sweeps are moved by the exact rigid transform.
    """

    def __init__(
        self,
        num_features: int = 5,
        use: Sequence[int] = (0, 1, 2, 3),
        sweeps: int = 0,
        *,
        random_sweeps: bool = False,
        remove_close: bool = True,
        remove_close_key: bool = False,
        pad_empty_sweeps: bool = False,
        time_lag: bool = True,
    ) -> None:
        if tuple(use[:3]) != (0, 1, 2) or max(use) >= num_features or min(use) < 0:
            raise ValueError(f"LoadPoints: use must begin with 0, 1, 2 and stay below {num_features}, got {tuple(use)}")
        if sweeps < 0:
            raise ValueError(f"LoadPoints: sweeps must be 0 or more, got {sweeps}")
        self.num_features = num_features
        self.use = np.array(use, dtype=np.int64)
        self.sweeps = sweeps
        self.random_sweeps = random_sweeps
        self.remove_close = remove_close
        self.remove_close_key = remove_close_key
        self.pad_empty_sweeps = pad_empty_sweeps
        self.time_lag = time_lag

    @property
    def num_columns(self) -> int:
        """Columns of ``points``."""
        return len(self.use) + self.time_lag

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return the sample with ``points``."""
        require_unmoved(sample, "LoadPoints")
        frame: Frame = sample.frame
        sweeps = self._choose(frame.sweeps, rng)
        if not frame.sweeps and self.pad_empty_sweeps:
            sweeps = [frame.lidar] * self.sweeps
        scans = [self._read(scan) for scan in (frame.lidar, *sweeps)]
        points = np.empty((sum(map(len, scans)), self.num_columns), dtype=np.float32)
        filled = self._place(frame.lidar, scans[0], frame, points, remove_close=self.remove_close_key)
        for scan, raw in zip(sweeps, scans[1:], strict=True):
            filled += self._place(scan, raw, frame, points[filled:], remove_close=self.remove_close)
        return sample.replace(points=torch.from_numpy(points[:filled]))

    def _choose(self, sweeps: tuple[LidarScan, ...], rng: np.random.Generator) -> Sequence[LidarScan]:
        if not self.random_sweeps or len(sweeps) <= self.sweeps:
            return sweeps[: self.sweeps]
        rows = np.sort(rng.choice(len(sweeps), self.sweeps, replace=False))
        return [sweeps[row] for row in rows]

    def _read(self, scan: LidarScan) -> np.ndarray:
        if scan.num_features != self.num_features:
            raise ValueError(f"{scan.path}: {scan.num_features} values a point, num_features is {self.num_features}")
        return read_scan(scan)

    def _place(self, scan: LidarScan, raw: np.ndarray, frame: Frame, out: np.ndarray, *, remove_close: bool) -> int:
        """Write the points of a scan in the key frame's coordinates, and return their number."""
        if not np.isfinite(scan.lidar2key).all():
            raise ValueError(f"{scan.path}: its calibration is missing: lidar2key is not finite")
        lag = (frame.lidar.timestamp - scan.timestamp) * 1e-6
        close = OWN_VEHICLE if remove_close else 0.0
        written = point_kernels.place_scan(raw, self.use, scan.lidar2key, close, lag, out)
        if written < 0:
            _refuse_broken(scan.path, raw)
        return written


def read_points(path: str | os.PathLike, num_features: int) -> np.ndarray:
    """Return the points ``[P, num_features]`` float32 of a raw file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if its size is no whole number of points, or a value is not finite.
    """
    points = read_raw_points(path, num_features)
    if not np.isfinite(points).all():
        _refuse_broken(path, points)
    return points


def _refuse_broken(path: str | os.PathLike, points: np.ndarray) -> NoReturn:
    broken = np.flatnonzero(~np.isfinite(points).all(axis=1))
    raise ValueError(f"{path}: {len(broken)} points hold NaN or infinity, the first is point {broken[0]}")


# -- annotations ------------------------------------------------------------------------------------------------------


@TRANSFORMS.register_module()
class LoadAnnotations:
    """Set ``gt``: ``boxes`` (``Boxes3D`` ``[N, 9]`` float32), ``labels`` ``[N]`` int64, ``num_points`` ``[N]`` int64.

    Objects of no class are left out. A velocity is NaN where the data set knows none.

    Args:
        class_names: the classes; a label is a position in them.
        min_points: leave out boxes with fewer annotated LiDAR points.
        camera_synced: instead of the boxes that the LiDAR saw, take those where the cameras saw the objects, and count
            points of the top LiDAR (Waymo): ground truth of detectors that have cameras alone.
        keypoints: also set ``keypoints`` ``[N, 14, 3]`` float32, metres, at the middle of the box where one is missing,
            and ``keypoint_visibility`` ``[N, 14]`` int64: 0 missing, 1 occluded, 2 visible (Waymo).

    Raises:
        ValueError: if the frame is not annotated, or not with what is asked for, or a box has no positive size or is
            not finite.
    """

    def __init__(
        self, class_names: Sequence[str], min_points: int = 0, *, camera_synced: bool = False, keypoints: bool = False
    ) -> None:
        self.label_of = {name: label for label, name in enumerate(class_names)}
        self.min_points = min_points
        self.camera_synced = camera_synced
        self.keypoints = keypoints

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return the sample with ``gt``."""
        require_unmoved(sample, "LoadAnnotations")
        annotations = sample.frame.annotations
        if annotations is None:
            raise ValueError("the frame is not annotated (a test split?); leave LoadAnnotations out of the pipeline")
        if self.camera_synced:
            annotations = camera_synced_annotations(annotations)
        labels = np.array([self._label(category) for category in annotations.categories], dtype=np.int64)
        wanted = (labels >= 0) & (annotations.num_lidar_points >= self.min_points)
        _check_boxes(annotations, wanted)
        gt = InstanceData(
            boxes=Boxes3D(torch.from_numpy(annotations.boxes[wanted].astype(np.float32))),
            labels=torch.from_numpy(labels[wanted]),
            num_points=torch.from_numpy(annotations.num_lidar_points[wanted]),
        )
        if self.keypoints:
            gt.keypoints, gt.keypoint_visibility = _keypoints(annotations, wanted)
        return sample.replace(gt=gt)

    def _label(self, category: str) -> int:
        return self.label_of.get(CATEGORY_TO_CLASS.get(category, category), -1)


def camera_synced_annotations(annotations: Annotations) -> Annotations:
    """Return the objects that a camera sees best, with the boxes where it saw them and the points of the top LiDAR.

    Velocities stay those of the LiDAR's labels.

    Raises:
        ValueError: if the data set has no such boxes.
    """
    seen = _waymo_labels(annotations).most_visible_cameras > 0
    chosen = annotations.select(seen)
    labels = _waymo_labels(chosen)
    boxes = np.concatenate([labels.camera_synced_boxes, chosen.boxes[:, BOX_DIM:]], axis=1)
    return replace(chosen, boxes=boxes, num_lidar_points=labels.num_top_lidar_points)


def _keypoints(annotations: Annotations, wanted: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    labels = _waymo_labels(annotations).select(wanted)
    missing = (labels.keypoint_visibility == MISSING)[..., None]
    locations = np.where(missing, annotations.boxes[wanted, None, :3], labels.keypoints)
    return torch.from_numpy(locations.astype(np.float32)), torch.from_numpy(labels.keypoint_visibility)


def _waymo_labels(annotations: Annotations) -> WaymoLabels:
    if annotations.waymo is None:
        raise ValueError("the labels hold no camera-synced boxes and no keypoints; those of Waymo do")
    return annotations.waymo


def _check_boxes(annotations: Annotations, wanted: np.ndarray) -> None:
    boxes = annotations.boxes[:, :BOX_DIM]
    bad = np.flatnonzero(wanted & ~((boxes[:, 3:6] > 0).all(axis=1) & np.isfinite(boxes).all(axis=1)))
    if len(bad):
        row = bad[0]
        raise ValueError(
            f"{len(bad)} boxes have no positive, finite size or place; the first is annotation {row} "
            f"({annotations.tokens[row]}, {annotations.categories[row]}): x, y, z, l, w, h, yaw = {boxes[row].tolist()}"
        )


# -- cameras ----------------------------------------------------------------------------------------------------------


@TRANSFORMS.register_module()
class LoadCameras:
    """Set ``cameras`` from the calibration of the frame and of its past frames, without reading an image.

    Cameras of past frames follow those of the frame, time after time. Their ``lidar2cam`` takes points of the present
    LiDAR frame: the vehicle's own motion is in it.

    Args:
        names: the cameras of every frame, in this order; one that a frame lacks sees nothing, and its image is black.
            None takes those that a frame has.

    Raises:
        ValueError: if a frame has no camera, or a camera no calibration.
    """

    def __init__(self, names: Sequence[str] | None = None) -> None:
        self.names = None if names is None else tuple(names)

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return the sample with ``cameras``."""
        require_unmoved(sample, type(self).__name__)
        frames = [self.choose(frame) for frame in (sample.frame, *sample.get("past", ()))]
        return sample.replace(cameras=frame_cameras(frames[0], frames[1:]))

    def choose(self, frame: Frame) -> Frame:
        """Return a frame with the cameras that are asked for, blind ones where it lacks them."""
        if self.names is None or not frame.cameras:
            return frame
        known = {camera.name: camera for camera in frame.cameras}
        if not known.keys() & set(self.names):
            raise ValueError(f"frame {frame.token} has none of the cameras {self.names}, but {tuple(known)}")
        return replace(frame, cameras=tuple(known.get(name) or blind_camera(frame, name) for name in self.names))


@TRANSFORMS.register_module()
class LoadImages(LoadCameras):
    """Set ``images`` (uint8 ``[C, 3, H, W]``, RGB; a list of ``[3, H, W]`` where sizes differ) and ``cameras``.

    Images of a lens that distorts (Waymo's) are straightened: ``lidar2img`` is exact but for the rolling shutter.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if a file is no image, is cut off, or is not of the size that its calibration is for.
    """

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return the sample with ``images`` and ``cameras``."""
        frames = [self.choose(frame) for frame in (sample.frame, *sample.get("past", ()))]
        images = [torch.from_numpy(_read_image(camera)) for frame in frames for camera in frame.cameras]
        same_size = len({image.shape for image in images}) == 1
        return super().__call__(sample, rng).replace(images=torch.stack(images) if same_size else images)


def frame_cameras(frame: Frame, past: Sequence[Frame] = ()) -> Cameras:
    """Return the cameras of a frame, then those of past frames, as recorded.

    ``lidar2cam`` is from the LiDAR frame of ``frame``; timestamps are relative to its LiDAR, in seconds.
    """
    seen = [(camera, _to_lidar_of(each, frame)) for each in (frame, *past) for camera in _cameras_of(each)]
    cameras = [camera for camera, _ in seen]
    return Cameras.create(
        names=[camera.name for camera in cameras],
        intrinsics=torch.from_numpy(np.stack([camera.intrinsic for camera in cameras])),
        lidar2cam=torch.from_numpy(np.stack([camera.lidar2cam @ moved for camera, moved in seen])),
        image_sizes=torch.tensor([(camera.height, camera.width) for camera in cameras]),
        timestamps=torch.tensor([camera.timestamp - frame.lidar.timestamp for camera in cameras]).double() * 1e-6,
    )


def blind_camera(frame: Frame, name: str) -> CameraImage:
    """Return a camera that sees nothing and has no file, with the size and the time of the frame's first one."""
    nowhere = np.zeros((4, 4))  # every point has depth 0
    return replace(frame.cameras[0], name=name, path="", lidar2cam=nowhere)


def _is_blind(camera: CameraImage) -> bool:
    return not camera.path and not camera.lidar2cam.any()


def _cameras_of(frame: Frame) -> tuple[CameraImage, ...]:
    if not frame.cameras:
        raise ValueError(f"frame {frame.token} has no camera")
    for camera in frame.cameras:
        if not _is_blind(camera):
            _check_calibration(camera)
    return frame.cameras


def _to_lidar_of(other: Frame, frame: Frame) -> np.ndarray:
    """Return 4x4, LiDAR of ``frame`` -> LiDAR of ``other``."""
    return np.eye(4) if other is frame else np.linalg.inv(other.lidar2global) @ frame.lidar2global


def _check_calibration(camera: CameraImage) -> None:
    for name in ("intrinsic", "lidar2cam"):
        matrix = getattr(camera, name)
        if not np.isfinite(matrix).all() or np.linalg.det(matrix) == 0:
            raise ValueError(f"{camera.path}: the calibration of {camera.name} is missing: {name} = {matrix.tolist()}")


def _read_image(camera: CameraImage) -> np.ndarray:
    """Return ``[3, H, W]`` uint8, RGB."""
    if _is_blind(camera):
        return np.zeros((3, camera.height, camera.width), dtype=np.uint8)
    image = _decode_image(read_encoded_image(camera), camera.path)
    height, width = image.shape[:2]
    if (height, width) != (camera.height, camera.width):
        raise ValueError(f"{camera.path}: {width}x{height}, the calibration is for {camera.width}x{camera.height}")
    if camera.distortion.any():
        image = cv2.undistort(image, camera.intrinsic, camera.distortion)
    return _to_rgb(image)


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Return the pixels ``[3, H, W]`` uint8, RGB, of an image file as they are stored.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no image, or cut off.
    """
    return _to_rgb(_decode_image(read_bytes(path), path))


def _decode_image(content: np.ndarray, path: str | os.PathLike) -> np.ndarray:
    """Return ``[H, W, 3]`` uint8 as OpenCV has it: blue, green, red."""
    if content[:2].tobytes() == JPEG_START and JPEG_END not in content[-JPEG_TAIL:].tobytes():
        raise ValueError(f"{path}: the image is cut off")  # OpenCV would fill what is missing with grey
    image = cv2.imdecode(content, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION) if len(content) else None
    if image is None:
        raise ValueError(f"{path}: no readable image")
    return image


def _to_rgb(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1))


def require_unmoved(sample: Sample, name: str) -> None:
    """Raise ``ValueError`` if something has moved the sample; ``name`` is the transform that must come before."""
    if not np.array_equal(sample.lidar_aug, np.eye(4)):
        raise ValueError(f"{name} must come before every transform that moves the points")
