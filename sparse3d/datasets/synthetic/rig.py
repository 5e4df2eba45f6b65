"""The recording car: where nuScenes' LiDAR and cameras are mounted, and when they fire.

Calibration figures are those of a published nuScenes car (Caesar et al., CVPR 2020), rounded. Ego axes: x forward,
y left, z up; LiDAR axes: x right, y forward, z up; camera axes: x right, y down, z forward.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

KEY_INTERVAL = 500_000  # microseconds between key frames
SWEEP_INTERVAL = 50_000  # microseconds for a revolution of the LiDAR; its stamp is the revolution's end
IMAGE_SIZE = (1600, 900)  # width, height in pixels

BEAMS, COLUMNS = 32, 1084  # HDL-32E: beams, and firings a revolution
ELEVATIONS = np.deg2rad(np.linspace(-30.67, 10.67, BEAMS))
# The revolution begins (and ends) at this azimuth in LiDAR axes, just behind the left side, and runs clockwise.
FIRST_AZIMUTH = np.deg2rad(195.0)
MAX_RANGE = 90.0  # metres


@dataclass(frozen=True)
class Mount:
    """A sensor's place on the car."""

    translation: tuple[float, float, float]  # metres, ego axes
    rotation: np.ndarray  # [3, 3], sensor axes -> ego axes

    @property
    def matrix(self) -> np.ndarray:
        """4x4, sensor -> ego."""
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = self.rotation, self.translation
        return matrix


@dataclass(frozen=True, eq=False)
class Laser:
    """A spinning LiDAR.

    A revolution begins (and ends) at ``first_azimuth`` in the sensor's axes and runs clockwise. Rays start where the
    vehicle is when they are fired, or, ``from_stamp``, all from where it is at the end of the revolution: own motion is
    undone already.
    """

    mount: Mount
    elevations: np.ndarray  # [B] radians in the sensor's axes, ascending
    columns: int  # firings a revolution
    first_azimuth: float  # radians
    revolution: float  # seconds
    max_range: float  # metres
    noise: float  # metres, standard deviation of a range
    from_stamp: bool = False
    view: float = np.pi  # radians on either side of the sensor's x axis

    @property
    def shape(self) -> tuple[int, int]:
        """Columns and beams."""
        return self.columns, len(self.elevations)


@dataclass(frozen=True)
class Camera:
    """A camera: its mount, focal length and principal point in pixels, and when it is exposed."""

    name: str
    mount: Mount
    focal: float
    center: tuple[float, float]
    delay: int  # microseconds from the key frame's stamp
    size: tuple[int, int] = IMAGE_SIZE  # width, height in pixels

    def scaled_size(self, scale: float) -> tuple[int, int]:
        """Return width and height in pixels of images of ``scale`` times the full size."""
        return round(self.size[0] * scale), round(self.size[1] * scale)

    def intrinsic(self, scale: float) -> np.ndarray:
        """Return the 3x3 matrix for images of ``scale`` times the full size."""
        fx = fy = self.focal * scale
        return np.array([[fx, 0.0, self.center[0] * scale], [0.0, fy, self.center[1] * scale], [0.0, 0.0, 1.0]])


def make_mount(
    translation: tuple[float, float, float], yaw: float, pitch: float, roll: float, axes: np.ndarray
) -> Mount:
    """Build a mount from degrees: turned by ``yaw``, nose lifted by ``pitch``, rolled; ``axes`` are sensor -> level."""
    yaw, pitch, roll = np.deg2rad([yaw, pitch, roll])
    about_z = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    about_y = np.array([[np.cos(pitch), 0, -np.sin(pitch)], [0, 1, 0], [np.sin(pitch), 0, np.cos(pitch)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(roll), -np.sin(roll)], [0, np.sin(roll), np.cos(roll)]])
    return Mount(translation, about_z @ about_y @ about_x @ axes)


LIDAR_AXES = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
CAMERA_AXES = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])

LIDAR = make_mount((0.944, 0.0, 1.84), 0.12, -1.39, 0.34, LIDAR_AXES)
HDL32E = Laser(LIDAR, ELEVATIONS, COLUMNS, FIRST_AZIMUTH, SWEEP_INTERVAL / 1e6, MAX_RANGE, noise=0.02)
CAMERAS = (
    Camera("CAM_FRONT",
           make_mount((1.701, 0.016, 1.511), 0.33, -0.32, -0.05, CAMERA_AXES), 1266.42, (816.27, 491.51), -35_500),
    Camera("CAM_FRONT_RIGHT",
           make_mount((1.551, -0.493, 1.496), -56.4, -0.78, 0.52, CAMERA_AXES), 1260.85, (807.97, 495.33), -27_600),
    Camera("CAM_BACK_RIGHT",
           make_mount((1.015, -0.481, 1.562), -110.79, -0.93, 0.62, CAMERA_AXES), 1259.51, (807.25, 501.2), -20_100),
    Camera("CAM_BACK",
           make_mount((0.028, 0.003, 1.579), 179.86, 0.96, 0.23, CAMERA_AXES), 809.22, (829.22, 481.78), -10_400),
    Camera("CAM_BACK_LEFT",
           make_mount((1.036, 0.485, 1.591), 108.6, -0.92, -0.22, CAMERA_AXES), 1256.74, (792.11, 492.78), -500),
    Camera("CAM_FRONT_LEFT",
           make_mount((1.524, 0.495, 1.509), 55.16, 0.14, 0.12, CAMERA_AXES), 1272.6, (826.62, 479.75), -43_100),
)  # fmt: skip


def pose_matrix(pose: np.ndarray) -> np.ndarray:
    """Return the 4x4 matrix of a level pose ``(x, y, yaw)``: its axes -> the world's."""
    x, y, yaw = pose
    cos, sin = np.cos(yaw), np.sin(yaw)
    return np.array([[cos, -sin, 0.0, x], [sin, cos, 0.0, y], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
