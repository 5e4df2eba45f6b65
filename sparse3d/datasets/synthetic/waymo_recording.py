"""Recording of one segment by Waymo's sensors: lasers, cameras and labels of every frame, into Parquet files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ...structures.skeleton import KEYPOINT_TYPES
from ..waymo_frames import OPTICAL
from ..waymo_parquet import CAMERA, LASER, OBJECT, TIMESTAMP
from ..waymo_schema import TOP
from .camera import light_ground, render
from .layout import build_world
from .lidar import Returns, cast, firing_poses
from .recording import JPEG_QUALITY
from .rig import Laser, pose_matrix
from .street import CYCLE_WIDTH, PAVEMENT_WIDTH, Street
from .waymo_files import FRAMES_PER_ROW_GROUP, INTRINSIC, SegmentFiles, box_fields
from .waymo_labels import Label, label_frame
from .waymo_rig import CAMERAS, FRAME_INTERVAL, NEAR_BOUNDS, SHOT, make_lasers

EPOCH = 1_500_000_000_000_000  # microseconds; the first segment of a seed starts soon after
SEGMENT_SPACING = 600_000_000  # microseconds between the starts of two segments
INTENSITY_UNIT = 100.0  # of 255, that Waymo calls 1
NO_LABELS_BEYOND = PAVEMENT_WIDTH + CYCLE_WIDTH  # metres from the kerb: yards are not labelled
EMPTY = -1.0
GLOBAL_SHUTTER = 5


@dataclass(frozen=True)
class SegmentJob:
    """What one segment needs; its contents depend on these values alone.

    Args:
        split: folder of the split, e.g. ``"training"``.
        number: of the segment, counted over all splits.
        frames: 10 Hz.
        laser_scale: range images have this share of the full rows and columns.
        image_scale: images are 1920x1280 and 1920x886 times this.
    """

    split: str
    number: int
    seed: int
    frames: int
    laser_scale: float
    image_scale: float

    @property
    def name(self) -> str:
        """Name of the segment."""
        return f"synthetic_{self.seed}_{self.number:04d}"

    def chance(self, *purpose: int) -> np.random.Generator:
        """Return the random generator for one purpose."""
        return np.random.default_rng([self.seed, self.number, *purpose])


def record_segment(root: Path, job: SegmentJob) -> int:
    """Write the components of one segment below ``root`` and return the number of its labels."""
    with SegmentFiles(root / job.split, job.name) as files:
        return _Recorder(job, files).run()


class _Recorder:
    """Runs the sensors through the world of one segment."""

    def __init__(self, job: SegmentJob, files: SegmentFiles) -> None:
        self.job = job
        self.files = files
        self.world = build_world(job.chance(0), job.frames, FRAME_INTERVAL / 1e6)
        self.map = pose_matrix(np.asarray(self.world.to_global))
        self.lasers = make_lasers(job.laser_scale)

    def run(self) -> int:
        self._calibrations()
        labels = 0
        for frame in range(self.job.frames):
            labels += self._frame(frame)
            if (frame + 1) % FRAMES_PER_ROW_GROUP == 0:
                self.files.flush()
        return labels

    def _frame(self, frame: int) -> int:
        stamp, keys = frame * FRAME_INTERVAL / 1e6, {TIMESTAMP: self._timestamp(frame)}
        self.files.add("vehicle_pose", {**keys, "world_from_vehicle.transform": self._global_pose(stamp).ravel()})
        returns = {
            number: cast(self.world, stamp, laser, self.job.chance(1, frame, number))
            for number, laser in self.lasers.items()
        }
        for number, each in returns.items():
            images = {1: self._range_image(each), 2: np.full((*each.kept.T.shape, 4), EMPTY, np.float32)}
            self.files.add("lidar", {**keys, LASER: number, **_image_fields(images)})
        self.files.add("lidar_pose", {**keys, LASER: TOP, **_image_fields({1: self._cell_poses(stamp)})})
        self._pictures(keys, stamp)
        labels = list(label_frame(self.world, stamp, self.lasers[TOP], returns))
        for label in labels:
            self._label({**keys, OBJECT: f"object_{label.actor:03d}"}, label)
        return len(labels)

    def _timestamp(self, frame: int) -> int:
        return EPOCH + self.job.number * SEGMENT_SPACING + frame * FRAME_INTERVAL

    def _global_pose(self, time: float) -> np.ndarray:
        return self.map @ pose_matrix(self.world.ego_pose(time))

    # -- lasers ------------------------------------------------------------------------------------------------------

    def _range_image(self, returns: Returns) -> np.ndarray:
        """Return ``[H, W, 4]`` float32, the highest beam first: range, intensity, elongation, no-label zone."""
        cells = [
            returns.ranges,
            returns.intensity / INTENSITY_UNIT,
            (1 - returns.facing) ** 4,  # a beam that grazes a surface comes back longer
            np.where(self._unlabelled(returns.positions), 1.0, -1.0),
        ]
        image = np.where(returns.kept, np.stack(cells), EMPTY)  # [4, C, B]
        return image.transpose(2, 1, 0)[::-1].astype(np.float32)

    def _unlabelled(self, positions: np.ndarray) -> np.ndarray:
        """Return the mask ``[C, B]`` of places ``[C, B, 3]`` that lie in no street."""
        beyond = [_beyond(street, positions) for street in self.world.streets]
        return np.min(beyond, axis=0) > NO_LABELS_BEYOND

    def _cell_poses(self, stamp: float) -> np.ndarray:
        """Return ``[H, W, 6]`` float32: roll, pitch, yaw, x, y, z of the vehicle on the map when a cell is measured."""
        columns, rows = self.lasers[TOP].shape
        x, y, yaw = firing_poses(self.world, stamp, self.lasers[TOP]).T
        places = np.stack([x, y, np.zeros(columns)], axis=1) @ self.map[:3, :3].T + self.map[:3, 3]
        level = np.zeros((columns, 2))
        poses = np.concatenate([level, (yaw + self.world.to_global[2])[:, None], places], axis=1)
        return np.broadcast_to(poses.astype(np.float32), (rows, columns, 6))

    # -- cameras -----------------------------------------------------------------------------------------------------

    def _pictures(self, keys: dict[str, int], stamp: float) -> None:
        ground = light_ground(self.world, stamp + SHOT / 1e6)
        for number, camera in enumerate(CAMERAS, start=1):
            time = stamp + camera.delay / 1e6
            image = render(self.world, camera, time, self.job.image_scale, ground)
            encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
            row = {
                CAMERA: number,
                "image": encoded.tobytes(),
                "pose.transform": self._global_pose(time).ravel(),
                "pose_timestamp": (keys[TIMESTAMP] + camera.delay) / 1e6,
            }
            self.files.add("camera_image", {**keys, **row})

    # -- labels and calibration --------------------------------------------------------------------------------------

    def _label(self, keys: dict[str, int | str], label: Label) -> None:
        turn = self.map[:2, :2]
        row = {
            **box_fields("box", label.box),
            "type": label.type,
            "num_lidar_points_in_box": label.points,
            "num_top_lidar_points_in_box": label.top_points,
            **_planar("speed", turn @ label.speed),
            **_planar("acceleration", turn @ label.acceleration),
            "difficulty_level.detection": label.difficulty,
        }
        self.files.add("lidar_box", {**keys, **row})
        if label.camera:
            row = {"most_visible_camera_name": label.camera, **box_fields("camera_synced_box", label.synced_box)}
            self.files.add("lidar_camera_synced_box", {**keys, **row})
        if label.keypoints is not None:
            prefix = "lidar_keypoints[*].keypoint_3d"
            row = {
                "lidar_keypoints[*].type": list(KEYPOINT_TYPES),
                **{
                    f"{prefix}.location_m.{axis}": values for axis, values in zip("xyz", label.keypoints.T, strict=True)
                },
                f"{prefix}.visibility.is_occluded": label.occluded,
            }
            self.files.add("lidar_hkp", {**keys, **row})

    def _calibrations(self) -> None:
        for number, laser in self.lasers.items():
            self.files.add("lidar_calibration", {LASER: number, **_laser_fields(number, laser)})
        for number, camera in enumerate(CAMERAS, start=1):
            intrinsic = camera.intrinsic(self.job.image_scale)
            values = (intrinsic[0, 0], intrinsic[1, 1], intrinsic[0, 2], intrinsic[1, 2], 0.0, 0.0, 0.0, 0.0, 0.0)
            width, height = camera.scaled_size(self.job.image_scale)
            row = {
                CAMERA: number,
                **{f"intrinsic.{name}": value for name, value in zip(INTRINSIC, values, strict=True)},
                "extrinsic.transform": (camera.mount.matrix @ OPTICAL).ravel(),
                "width": width,
                "height": height,
                "rolling_shutter_direction": GLOBAL_SHUTTER,
            }
            self.files.add("camera_calibration", row)


def _beyond(street: Street, positions: np.ndarray) -> np.ndarray:
    """Return how far places are beyond the kerb of a street, in metres; negative on it."""
    return np.abs(street.coordinates(positions[..., 0], positions[..., 1])[1]) - street.half_width


def _laser_fields(number: int, laser: Laser) -> dict:
    """Return a laser's calibration; the near ones give the bounds of evenly spread beams, as recorded ones do."""
    low, high = (laser.elevations[0], laser.elevations[-1]) if number == TOP else np.deg2rad(NEAR_BOUNDS)
    return {
        "extrinsic.transform": laser.mount.matrix.ravel(),
        "beam_inclination.min": float(low),
        "beam_inclination.max": float(high),
        "beam_inclination.values": laser.elevations if number == TOP else None,
    }


def _image_fields(images: dict[int, np.ndarray]) -> dict:
    fields = {}
    for number, image in images.items():
        fields[f"range_image_return{number}.values"] = np.ascontiguousarray(image).ravel()
        fields[f"range_image_return{number}.shape"] = list(image.shape)
    return fields


def _planar(name: str, vector: np.ndarray) -> dict[str, float]:
    return {f"{name}.x": float(vector[0]), f"{name}.y": float(vector[1]), f"{name}.z": 0.0}
