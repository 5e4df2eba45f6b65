"""Segments of the Waymo Open Dataset v2: Parquet components, joined by their keys, never by the order of their rows.

    <split>/<tag>/<segment>.parquet

Needed are `lidar`, `lidar_pose`, `lidar_calibration`, `vehicle_pose`, and `lidar_box` where objects are labelled.
`lidar_camera_synced_box`, `lidar_hkp` and the two of the cameras may be left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from ..structures.skeleton import MISSING, NUM_KEYPOINTS
from .waymo_parquet import CAMERA, LASER, OBJECT, TIMESTAMP, Columns, Component, Row
from .waymo_range_image import NUM_COLUMNS, LaserCalibration, points_of
from .waymo_records import CameraShot, FrameRecord, LabelTable, empty_labels, skeleton_of
from .waymo_schema import TOP

RETURNS = ("range_image_return1", "range_image_return2")
INTRINSIC = tuple(f"intrinsic.{name}" for name in ("f_u", "f_v", "c_u", "c_v", "k1", "k2", "p1", "p2", "k3"))
SEGMENTS_IN_MEMORY = 16  # whose calibration and poses a process keeps; a few kilobytes each


class ParquetSegment:
    """A segment in the format of v2.

    Args:
        folder: the split's folder.
        name: the segment's, which its files have.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name

    @property
    def source(self) -> Path:
        """The file that stands for the segment in messages."""
        return self.component("lidar").path

    def component(self, tag: str) -> Component:
        """Return the file of a tag."""
        return Component(self.folder, tag, self.name)

    def files(self) -> list[Path]:
        """Return the files of the segment that are there."""
        return sorted(self.folder.glob(f"*/{self.name}.parquet"))

    # -- frames ------------------------------------------------------------------------------------------------------

    def records(self, *, labelled: bool) -> list[FrameRecord]:
        """Return the frames in the order of time.

        Args:
            labelled: whether objects are labelled; if not, ``lidar_box`` may be missing.

        Raises:
            FileNotFoundError: if a component is missing.
            ValueError: if a file is damaged, its rows do not fit, or there are no labels.
        """
        scanned = set(self.component("lidar").columns(TIMESTAMP).integers(TIMESTAMP).tolist())
        absent = [stamp for stamp in self.poses if stamp not in scanned]
        if absent:
            raise ValueError(f"{self.source}: it has no row of frame {absent[0]}, which vehicle_pose has")
        if not self.component("lidar_pose").exists():
            self.component("lidar_pose").columns(TIMESTAMP)  # says what is missing
        shots, labels = self._shots(), self._labels(required=labelled)
        nobody = None if labels is None else empty_labels()
        return [
            FrameRecord(
                segment=self.name,
                timestamp=stamp,
                path=str(self.source),
                offset=0,
                pose=pose,
                shots=tuple(shots.get(stamp, ())),
                labels=None if labels is None else labels.get(stamp, nobody),
            )
            for stamp, pose in sorted(self.poses.items())
        ]

    @cached_property
    def poses(self) -> Mapping[int, np.ndarray]:
        """Timestamp of a frame -> ``[4, 4]``, vehicle -> world."""
        table = self.component("vehicle_pose").columns(TIMESTAMP, "world_from_vehicle.transform")
        stamps = table.integers(TIMESTAMP).tolist()
        return dict(zip(stamps, table.matrices("world_from_vehicle.transform"), strict=True))

    @cached_property
    def lasers(self) -> Mapping[int, LaserCalibration]:
        """Number of a laser -> its calibration."""
        bounds = ("beam_inclination.min", "beam_inclination.max")
        fields = (LASER, "extrinsic.transform", *bounds, "beam_inclination.values")
        table = self.component("lidar_calibration").columns(*fields)
        extrinsics, limits = table.matrices("extrinsic.transform"), table.numbers(*bounds)
        beams = [np.array(values, dtype=np.float64) for values in table.lists("beam_inclination.values")]
        numbers = table.integers(LASER).tolist()
        return {
            number: LaserCalibration(extrinsics[row], beams[row], tuple(limits[row]))
            for row, number in enumerate(numbers)
        }

    def _shots(self) -> dict[int, list[CameraShot]]:
        """Return the images of each frame by its timestamp, in the order of the cameras."""
        images = self.component("camera_image")
        if not images.exists():
            return {}
        table = images.columns(TIMESTAMP, CAMERA, "pose.transform", "pose_timestamp")
        calibrations = self._cameras()
        stamps, cameras = table.integers(TIMESTAMP), table.integers(CAMERA)
        times, poses = np.rint(table.numbers("pose_timestamp") * 1e6), table.matrices("pose.transform")
        unknown = [row for row, camera in enumerate(cameras.tolist()) if camera not in calibrations]
        if unknown:
            raise ValueError(f"{images.path}, row {unknown[0]}: camera {cameras[unknown[0]]} has no calibration")
        shots: dict[int, list[CameraShot]] = {}
        for row in np.lexsort((cameras, stamps)):
            camera = int(cameras[row])
            shot = CameraShot(camera, str(images.path), int(row), int(times[row]), poses[row], *calibrations[camera])
            shots.setdefault(int(stamps[row]), []).append(shot)
        return shots

    def _cameras(self) -> dict[int, tuple[np.ndarray, np.ndarray, int, int]]:
        """Return intrinsic ``[9]``, extrinsic ``[4, 4]``, width and height of each camera."""
        names = (CAMERA, *INTRINSIC, "extrinsic.transform", "width", "height")
        table = self.component("camera_calibration").columns(*names)
        rows = zip(
            table.numbers(*INTRINSIC),
            table.matrices("extrinsic.transform"),
            table.integers("width").tolist(),
            table.integers("height").tolist(),
            strict=True,
        )
        return dict(zip(table.integers(CAMERA).tolist(), rows, strict=True))

    # -- labels ------------------------------------------------------------------------------------------------------

    def _labels(self, *, required: bool) -> dict[int, LabelTable] | None:
        """Return the labels of each frame that has any; None where the segment has none and needs none."""
        component = self.component("lidar_box")
        if not component.exists() and not required:
            return None
        table = component.columns(*LABEL_FIELDS)
        if len(table) == 0 and required:
            raise ValueError(f"{component.path}: the segment has no labels")
        stamps, ids = table.integers(TIMESTAMP), table.texts(OBJECT)
        keys = list(zip(stamps.tolist(), ids, strict=True))
        cameras, synced = self._synced_boxes(keys)
        keypoints, visibility = self._keypoints(keys)
        try:
            everything = LabelTable(
                ids=tuple(ids),
                types=table.integers("type"),
                boxes=table.numbers(*_box_fields("box")),
                num_points=table.integers("num_lidar_points_in_box", missing=0),
                num_top_points=table.integers("num_top_lidar_points_in_box", missing=0),
                speeds=table.numbers(*SPEED),
                accelerations=table.numbers(*ACCELERATION),
                difficulties=table.integers("difficulty_level.detection", missing=0),
                tracking_difficulties=table.integers("difficulty_level.tracking", missing=0),
                cameras=cameras,
                synced_boxes=synced,
                keypoints=keypoints,
                visibility=visibility,
            )
        except ValueError as error:
            raise ValueError(f"{component.path}: {error}") from error
        return {int(stamp): everything.select(np.flatnonzero(stamps == stamp)) for stamp in np.unique(stamps)}

    def _synced_boxes(self, keys: list[tuple[int, str]]) -> tuple[np.ndarray, np.ndarray]:
        """Return the most visible cameras ``[N]`` and the camera-synced boxes ``[N, 7]`` of labels."""
        cameras, boxes = np.zeros(len(keys), dtype=np.int64), np.full((len(keys), 7), np.nan)
        component = self.component("lidar_camera_synced_box")
        if component.exists():
            fields = _box_fields("camera_synced_box")
            table = component.columns(TIMESTAMP, OBJECT, "most_visible_camera_name", *fields)
            rows, theirs = _joined(keys, table)
            cameras[rows] = table.integers("most_visible_camera_name", missing=0)[theirs]
            boxes[rows] = table.numbers(*fields)[theirs]
        return cameras, boxes

    def _keypoints(self, keys: list[tuple[int, str]]) -> tuple[np.ndarray, np.ndarray]:
        """Return the keypoints ``[N, 14, 3]`` and their visibility ``[N, 14]`` of labels."""
        keypoints = np.full((len(keys), NUM_KEYPOINTS, 3), np.nan)
        visibility = np.full((len(keys), NUM_KEYPOINTS), MISSING)
        component = self.component("lidar_hkp")
        if component.exists():
            table = component.columns(TIMESTAMP, OBJECT, KEYPOINT_TYPE, *KEYPOINT_LOCATION, KEYPOINT_HIDDEN)
            types, hidden = table.lists(KEYPOINT_TYPE), table.lists(KEYPOINT_HIDDEN)
            places = [table.lists(field) for field in KEYPOINT_LOCATION]
            for row, other in zip(*_joined(keys, table), strict=True):
                locations = np.array([axis[other] for axis in places], dtype=np.float64).reshape(3, -1).T
                keypoints[row], visibility[row] = skeleton_of(np.array(types[other]), locations, hidden[other])
        return keypoints, visibility

    # -- points and images -------------------------------------------------------------------------------------------

    def scans(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the timestamp and the points ``[P, 6]`` float32 of each frame, as they come in the file.

        Raises:
            FileNotFoundError: if a component is missing.
            ValueError: if a file is damaged or a row does not fit; the message names file and row.
        """
        counts = np.unique(self.component("lidar").columns(TIMESTAMP).integers(TIMESTAMP), return_counts=True)
        yield from self._scans(dict(zip(*(each.tolist() for each in counts), strict=True)), _CellPoses(self))

    def scan(self, timestamp: int) -> np.ndarray:
        """Return the points ``[P, 6]`` float32 of a frame; rows of other frames are passed over.

        Raises:
            ValueError: if there is no such frame, a file is damaged or a row does not fit.
        """
        count = int((self.component("lidar").columns(TIMESTAMP).integers(TIMESTAMP) == timestamp).sum())
        for _, points in self._scans({timestamp: count}, _CellPoses(self, timestamp), timestamp):
            return points
        raise ValueError(f"{self.source}: it has no row of frame {timestamp}")

    def images(self) -> Iterator[tuple[tuple[int, int], bytes]]:
        """Yield the place (row of the file, camera) and the JPEG of each image."""
        for number, row in self.component("camera_image").stream(CAMERA, "image"):
            yield (number, row.value(CAMERA)), row.value("image")

    def image(self, row: int) -> bytes:
        """Return the JPEG in a row of ``camera_image``.

        Raises:
            ValueError: if there is no such row, or the file is damaged.
        """
        for (number, _), image in self.images():
            if number == row:
                return image
        raise ValueError(f"{self.component('camera_image').path}: it has no row {row}")

    def _scans(
        self, counts: Mapping[int, int], cell_poses: _CellPoses, only: int | None = None
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Put the lasers of a frame together, once as many rows as it has have come."""
        component = self.component("lidar")
        fields = [f"{name}.{part}" for name in RETURNS for part in ("values", "shape")]
        groups = None if only is None else component.row_groups(only)
        waiting: dict[int, dict[int, np.ndarray]] = {}
        for _, row in component.stream(TIMESTAMP, LASER, *fields, row_groups=groups):
            stamp, laser = row.value(TIMESTAMP), row.value(LASER)
            if stamp not in counts:
                continue
            clouds = waiting.setdefault(stamp, {})
            if laser in clouds:
                raise ValueError(f"{row}: laser {laser} of frame {stamp} comes twice")
            clouds[laser] = self._cloud(row, stamp, laser, cell_poses)
            if len(clouds) == counts[stamp]:
                del waiting[stamp]
                yield stamp, np.concatenate([clouds[number] for number in sorted(clouds)])

    def _cloud(self, row: Row, stamp: int, laser: int, cell_poses: _CellPoses) -> np.ndarray:
        if laser not in self.lasers:
            raise ValueError(f"{row}: laser {laser} has no calibration")
        if stamp not in self.poses:
            raise ValueError(f"{row}: frame {stamp} has no vehicle_pose")
        images = [image for image in (row.image(name) for name in RETURNS) if image is not None]
        poses = cell_poses.take(stamp) if laser == TOP else None
        try:
            clouds = [points_of(image, self.lasers[laser], self.poses[stamp], poses) for image in images]
        except ValueError as error:
            raise ValueError(f"{row} (laser {laser}): {error}") from error
        return np.concatenate([np.zeros((0, NUM_COLUMNS), dtype=np.float32), *clouds])


@lru_cache(maxsize=SEGMENTS_IN_MEMORY)
def segment_of(path: str) -> ParquetSegment:
    """Return the segment that a Parquet file belongs to."""
    return ParquetSegment(Path(path).parent.parent, Path(path).stem)


class _CellPoses:
    """Poses of the top laser's cells; rows that come before they are asked for are kept."""

    def __init__(self, segment: ParquetSegment, only: int | None = None) -> None:
        self._path = segment.component("lidar_pose").path
        self._rows = self._stream(segment.component("lidar_pose"), only)
        self._early: dict[int, np.ndarray] = {}

    def take(self, timestamp: int) -> np.ndarray:
        """Return ``[H, W, 6]`` of a frame."""
        while timestamp not in self._early:
            row = next(self._rows, None)
            if row is None:
                raise ValueError(f"{self._path}: it has no row of frame {timestamp}")
            self._early[row[0]] = row[1]
        return self._early.pop(timestamp)

    @staticmethod
    def _stream(component: Component, only: int | None) -> Iterator[tuple[int, np.ndarray]]:
        name = RETURNS[0]
        groups = None if only is None else component.row_groups(only)
        for _, row in component.stream(TIMESTAMP, f"{name}.values", f"{name}.shape", row_groups=groups):
            stamp = row.value(TIMESTAMP)
            if only in (None, stamp):
                yield stamp, row.image(name)


def _box_fields(name: str) -> tuple[str, ...]:
    return tuple(f"{name}.{part}.{axis}" for part in ("center", "size") for axis in "xyz") + (f"{name}.heading",)


SPEED, ACCELERATION = (tuple(f"{name}.{axis}" for axis in "xyz") for name in ("speed", "acceleration"))
LABEL_FIELDS = (
    TIMESTAMP, OBJECT, "type", "num_lidar_points_in_box", "num_top_lidar_points_in_box",
    "difficulty_level.detection", "difficulty_level.tracking", *_box_fields("box"), *SPEED, *ACCELERATION,
)  # fmt: skip
KEYPOINT_TYPE = "lidar_keypoints[*].type"
KEYPOINT_LOCATION = tuple(f"lidar_keypoints[*].keypoint_3d.location_m.{axis}" for axis in "xyz")
KEYPOINT_HIDDEN = "lidar_keypoints[*].keypoint_3d.visibility.is_occluded"


def _joined(keys: list[tuple[int, str]], table: Columns) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of labels that a table has an entry for, and the rows of these entries."""
    places = {key: row for row, key in enumerate(keys)}
    found = [places.get(key, -1) for key in zip(table.integers(TIMESTAMP).tolist(), table.texts(OBJECT), strict=True)]
    rows = np.array(found, dtype=np.int64)
    return rows[rows >= 0], np.flatnonzero(rows >= 0)
