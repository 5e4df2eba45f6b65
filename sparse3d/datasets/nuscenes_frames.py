"""nuScenes' tables as `Frame`s: every pose relative to the LiDAR of the key frame.

    sweep lidar -> ego(t_sweep) -> global -> ego(t_key) -> key-frame lidar          lidar2key
    key-frame lidar -> ego(t_key) -> global -> ego(t_camera) -> camera              lidar2cam
    box in the lidar frame: full rotation, then the direction of the box's x axis   heading

Velocities turn with the full rotation; their vertical part is taken as 0, as the annotations have none.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..structures import Annotations, Boxes3D, CameraImage, Frame, LidarScan
from .nuscenes_schema import CAMERA_CHANNELS, LIDAR_CHANNEL, LIDAR_FEATURES, MAX_SWEEPS
from .nuscenes_tables import AnnotationColumns, KeyFrame, Scan, Tables
from .poses import invert_poses, quaternion_conjugate, quaternion_of, quaternion_product


def scene_frames(tables: Tables, scene: str, root: Path) -> Iterator[Frame]:
    """Yield the frames of a scene in their order; paths are below ``root``.

    Raises:
        ValueError: if a key frame has no LiDAR scan, or a camera no intrinsics.
    """
    for key_frame in tables.walk(scene):
        yield _frame(tables, scene, key_frame, root)


def _frame(tables: Tables, scene: str, key_frame: KeyFrame, root: Path) -> Frame:
    scans = tables.key_scans[key_frame.token]
    if LIDAR_CHANNEL not in scans:
        raise ValueError(f"sample {key_frame.token} of {scene}: sample_data has no {LIDAR_CHANNEL} key frame for it")
    lidar = tables.scans[scans[LIDAR_CHANNEL]]
    lidar2global = _sensor2global(tables, [lidar])[0]
    cameras = [tables.scans[scans[channel]] for channel in CAMERA_CHANNELS if channel in scans]
    return Frame(
        token=key_frame.token,
        scene=scene,
        timestamp=key_frame.timestamp,
        lidar=_lidar_scan(lidar, np.eye(4), root),
        sweeps=_sweeps(tables, lidar, lidar2global, root),
        cameras=_cameras(tables, cameras, lidar2global, root),
        lidar2ego=tables.sensors[lidar.sensor].sensor2ego,
        ego2global=_ego2global(tables, [lidar])[0],
        annotations=_annotations(tables.annotations, key_frame.token, lidar2global),
    )


def _ego2global(tables: Tables, scans: list[Scan]) -> np.ndarray:
    """Return ``[S, 4, 4]``."""
    return tables.poses[[tables.pose_rows[scan.pose] for scan in scans]]


def _sensor2ego(tables: Tables, scans: list[Scan]) -> np.ndarray:
    """Return ``[S, 4, 4]``."""
    return np.stack([tables.sensors[scan.sensor].sensor2ego for scan in scans])


def _sensor2global(tables: Tables, scans: list[Scan]) -> np.ndarray:
    """Return ``[S, 4, 4]``."""
    return _ego2global(tables, scans) @ _sensor2ego(tables, scans)


def _lidar_scan(scan: Scan, lidar2key: np.ndarray, root: Path) -> LidarScan:
    return LidarScan(str(root / scan.path), scan.timestamp, lidar2key, LIDAR_FEATURES)


def _sweeps(tables: Tables, lidar: Scan, lidar2global: np.ndarray, root: Path) -> tuple[LidarScan, ...]:
    scans: list[Scan] = []
    scan = lidar
    while scan.prev and len(scans) < MAX_SWEEPS:
        scan = tables.scans[scan.prev]
        scans.append(scan)
    if not scans:
        return ()
    lidar2key = invert_poses(lidar2global) @ _sensor2global(tables, scans)
    return tuple(_lidar_scan(scan, pose, root) for scan, pose in zip(scans, lidar2key, strict=True))


def _cameras(tables: Tables, scans: list[Scan], lidar2global: np.ndarray, root: Path) -> tuple[CameraImage, ...]:
    if not scans:
        return ()
    for scan in scans:
        if tables.sensors[scan.sensor].intrinsic.shape != (3, 3):
            raise ValueError(f"{scan.path}: calibrated_sensor {scan.sensor} has no 3x3 camera_intrinsic")
    lidar2cam = invert_poses(_sensor2global(tables, scans)) @ lidar2global
    poses = zip(scans, _sensor2ego(tables, scans), _ego2global(tables, scans), lidar2cam, strict=True)
    return tuple(
        CameraImage(
            name=tables.sensors[scan.sensor].channel,
            path=str(root / scan.path),
            timestamp=scan.timestamp,
            intrinsic=tables.sensors[scan.sensor].intrinsic,
            cam2ego=cam2ego,
            ego2global=ego2global,
            lidar2cam=pose,
            width=scan.width,
            height=scan.height,
        )
        for scan, cam2ego, ego2global, pose in poses
    )


def _annotations(columns: AnnotationColumns | None, token: str, lidar2global: np.ndarray) -> Annotations | None:
    if columns is None:
        return None
    rows = columns.slices[token]
    centers, rotations = columns.translations[rows], columns.rotations[rows]
    velocities = columns.velocities[rows]
    return Annotations(
        tokens=tuple(columns.tokens[rows]),
        instances=tuple(columns.instances[rows]),
        categories=tuple(columns.categories[rows]),
        attributes=tuple(columns.attributes[rows]),
        boxes=_lidar_boxes(centers, columns.sizes[rows], rotations, velocities, lidar2global),
        num_lidar_points=columns.num_lidar_points[rows],
        num_radar_points=columns.num_radar_points[rows],
        global_centers=centers,
        global_rotations=rotations,
        global_velocities=velocities,
        visibilities=columns.visibilities[rows],
    )


def _lidar_boxes(
    centers: np.ndarray,  # [N, 3] global
    sizes: np.ndarray,  # [N, 3] width, length, height
    rotations: np.ndarray,  # [N, 4] global
    velocities: np.ndarray,  # [N, 2] global
    lidar2global: np.ndarray,  # [4, 4]
) -> np.ndarray:
    """Return boxes ``[N, 9]`` in the LiDAR frame."""
    global2lidar = invert_poses(lidar2global)
    turn = global2lidar[:3, :3]
    to_lidar = quaternion_conjugate(quaternion_of(lidar2global[:3, :3]))
    return Boxes3D.from_nuscenes(
        centers @ turn.T + global2lidar[:3, 3],
        sizes,
        quaternion_product(to_lidar, rotations),
        velocities @ turn[:2, :2].T,
    ).numpy()
