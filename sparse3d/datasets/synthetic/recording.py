"""Recording of one scene: runs the sensors through its world, writes their files, returns its tables."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ..nuscenes_schema import CAMERA_CHANNELS, LIDAR_CHANNEL
from ..poses import quaternion_of
from .annotation import Annotation, annotate
from .camera import light_ground, render
from .layout import build_world
from .lidar import Scan, scan
from .rig import CAMERAS, KEY_INTERVAL, LIDAR, SWEEP_INTERVAL, Mount, pose_matrix
from .tables import Record, Tables, Tokens, link

EPOCH = 1_600_000_000_000_000  # microseconds; the first recording of a seed starts soon after
SCENE_SPACING = 600_000_000  # microseconds between the starts of two scenes
JPEG_QUALITY = 90
LIGHT_DELAY = sum(camera.delay for camera in CAMERAS) // len(CAMERAS)  # one shadow map serves all cameras of a frame


@dataclass(frozen=True)
class SceneJob:
    """What one scene needs; its bytes depend on these values alone.

    Args:
        name: official scene name, e.g. ``"scene-0061"``.
        frames: key frames, 2 Hz.
        sweeps: revolutions kept before each key frame, see ``sweep_ages``; the recording begins with the first one's.
        image_scale: images are 1600x900 times this.
    """

    name: str
    seed: int
    frames: int
    sweeps: int
    image_scale: float

    @property
    def number(self) -> int:
        """The number in the scene's name."""
        return int(self.name.rpartition("-")[2])

    @property
    def log(self) -> str:
        """The name of its log file, which the names of its sensor files begin with."""
        return f"synthetic-{self.seed}-{self.name}"

    @property
    def start(self) -> int:
        """Timestamp of its first key frame in microseconds."""
        return EPOCH + self.number * SCENE_SPACING

    def chance(self, *purpose: int) -> np.random.Generator:
        """Return the random generator for one purpose."""
        return np.random.default_rng([self.seed, self.number, *purpose])


def record_scene(root: Path, job: SceneJob) -> Tables:
    """Write the sensor files of one scene below ``root`` and return its records."""
    return _Recorder(root, job).run()


class _Recorder:
    """Collects the records of one scene while its files are written."""

    def __init__(self, root: Path, job: SceneJob) -> None:
        self.root = root
        self.job = job
        self.tokens = Tokens(job.seed)
        self.world = build_world(job.chance(0), job.frames, KEY_INTERVAL / 1e6)
        self.map = pose_matrix(np.asarray(self.world.to_global))
        self.ego_poses: list[Record] = []
        self.streams: dict[str, list[Record]] = {channel: [] for channel in (LIDAR_CHANNEL, *CAMERA_CHANNELS)}
        self.annotations: dict[int, list[Record]] = {}

    def run(self) -> Tables:
        samples = link([self._sample(frame) for frame in range(self.job.frames)])
        for frame in range(self.job.frames):
            self._sweeps(frame)
            self._key_scan(frame)
            self._pictures(frame)
        chains = [link(records) for records in (*self.streams.values(), *self.annotations.values())]
        streams = len(self.streams)
        return {
            **self._scene_tables(samples),
            "sample": samples,
            "ego_pose": self.ego_poses,
            "sample_data": [record for chain in chains[:streams] for record in chain],
            "sample_annotation": [record for chain in chains[streams:] for record in chain],
            "instance": [self._instance(actor) for actor in self.annotations],
        }

    # -- one key frame -----------------------------------------------------------------------------------------------

    def _sample(self, frame: int) -> Record:
        return {
            "token": self._sample_token(frame),
            "timestamp": self.job.start + frame * KEY_INTERVAL,
            "scene_token": self.tokens("scene", self.job.name),
        }

    def _sweeps(self, frame: int) -> None:
        for age in reversed(sweep_ages(self.job.sweeps)):
            offset = frame * KEY_INTERVAL - age * SWEEP_INTERVAL
            self._write_scan(frame, offset, self._scan(offset).points, key=False)

    def _key_scan(self, frame: int) -> None:
        offset = frame * KEY_INTERVAL
        swept = self._scan(offset)
        self._write_scan(frame, offset, swept.points, key=True)
        for annotation in annotate(self.world, offset / 1e6, swept):
            self.annotations.setdefault(annotation.actor, []).append(self._annotation(frame, annotation))

    def _scan(self, offset: int) -> Scan:
        """Scan the revolution that ends ``offset`` microseconds after the first key frame, or before it if negative."""
        return scan(self.world, offset / 1e6, self.job.chance(1, (KEY_INTERVAL + offset) // SWEEP_INTERVAL))

    def _pictures(self, frame: int) -> None:
        start = frame * KEY_INTERVAL
        ground = light_ground(self.world, (start + LIGHT_DELAY) / 1e6)
        for camera in CAMERAS:
            offset = start + camera.delay
            image = render(self.world, camera, offset / 1e6, self.job.image_scale, ground)
            path = self._data(
                frame, camera.name, offset, key=True, suffix="jpg", size=camera.scaled_size(self.job.image_scale)
            )
            if not cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]):
                raise OSError(f"cannot write {path}")

    def _write_scan(self, frame: int, offset: int, points: np.ndarray, *, key: bool) -> None:
        path = self._data(frame, LIDAR_CHANNEL, offset, key=key, suffix="pcd.bin", size=(0, 0))
        points.tofile(path)

    # -- records -----------------------------------------------------------------------------------------------------

    def _data(self, frame: int, channel: str, offset: int, *, key: bool, suffix: str, size: tuple[int, int]) -> Path:
        """Add the records of one sensor file, ``offset`` microseconds after the start; returns where to write it."""
        timestamp = self.job.start + offset
        token = self.tokens("sample_data", self.job.name, channel, offset)
        pose = self.map @ pose_matrix(self.world.ego_pose(offset / 1e6))
        self.ego_poses.append({"token": token, "timestamp": timestamp, **_placement(pose)})
        filename = f"{'samples' if key else 'sweeps'}/{channel}/{self.job.log}__{channel}__{timestamp}.{suffix}"
        self.streams[channel].append(
            {
                "token": token,
                "sample_token": self._sample_token(frame),
                "ego_pose_token": token,
                "calibrated_sensor_token": self.tokens("calibrated_sensor", self.job.name, channel),
                "timestamp": timestamp,
                "fileformat": suffix.partition(".")[0],
                "is_key_frame": key,
                "width": size[0],
                "height": size[1],
                "filename": filename,
            }
        )
        return self.root / filename

    def _annotation(self, frame: int, annotation: Annotation) -> Record:
        box = self.map @ pose_matrix(np.array([*annotation.center[:2], annotation.yaw]))
        box[2, 3] = annotation.center[2]
        length, width, height = annotation.size
        attributes = [self.tokens("attribute", annotation.attribute)] if annotation.attribute else []
        return {
            "token": self.tokens("sample_annotation", self.job.name, frame, annotation.actor),
            "sample_token": self._sample_token(frame),
            "instance_token": self._instance_token(annotation.actor),
            "visibility_token": annotation.visibility,
            "attribute_tokens": attributes,
            **_placement(box),
            "size": [float(value) for value in (width, length, height)],
            "num_lidar_pts": annotation.points,
            "num_radar_pts": 0,
        }

    def _instance(self, actor: int) -> Record:
        chain = self.annotations[actor]
        return {
            "token": self._instance_token(actor),
            "category_token": self.tokens("category", self.world.actors[actor].shape.category),
            "nbr_annotations": len(chain),
            "first_annotation_token": chain[0]["token"],
            "last_annotation_token": chain[-1]["token"],
        }

    def _scene_tables(self, samples: list[Record]) -> Tables:
        scene = {
            "token": self.tokens("scene", self.job.name),
            "log_token": self.tokens("log", self.job.name),
            "nbr_samples": len(samples),
            "first_sample_token": samples[0]["token"],
            "last_sample_token": samples[-1]["token"],
            "name": self.job.name,
            "description": self.world.description,
        }
        log = {
            "token": scene["log_token"],
            "logfile": self.job.log,
            "vehicle": "synthetic",
            "date_captured": "2020-09-13",
            "location": "synthetic",
        }
        return {"scene": [scene], "log": [log], "calibrated_sensor": self._calibrations()}

    def _calibrations(self) -> list[Record]:
        cameras = [(camera.name, camera.mount, camera.intrinsic(self.job.image_scale).tolist()) for camera in CAMERAS]
        return [self._calibration(*sensor) for sensor in ((LIDAR_CHANNEL, LIDAR, []), *cameras)]

    def _calibration(self, channel: str, mount: Mount, intrinsic: list) -> Record:
        return {
            "token": self.tokens("calibrated_sensor", self.job.name, channel),
            "sensor_token": self.tokens("sensor", channel),
            **_placement(mount.matrix),
            "camera_intrinsic": intrinsic,
        }

    def _sample_token(self, frame: int) -> str:
        return self.tokens("sample", self.job.name, frame)

    def _instance_token(self, actor: int) -> str:
        return self.tokens("instance", self.job.name, actor)


def _placement(pose: np.ndarray) -> Record:
    """Return translation and rotation ``(w, x, y, z)`` of a 4x4 pose as JSON values."""
    return {"translation": pose[:3, 3].tolist(), "rotation": quaternion_of(pose[:3, :3]).tolist()}


def sweep_ages(count: int) -> list[int]:
    """Return how many revolutions before the key frame each of ``count`` kept sweeps is, evenly spread, ascending."""
    revolutions = KEY_INTERVAL // SWEEP_INTERVAL
    return [(revolutions * (k + 1) + (count + 1) // 2) // (count + 1) for k in range(count)]
