"""The raw v1.0 tables of nuScenes in memory, without its development kit.

Only what an index needs is kept: LiDAR scans, camera key frames, their poses, and the annotations, as columns. The two
tables with millions of records (`sample_data`, `ego_pose`) are read record by record.

Velocity of an annotation (development kit, `box_velocity`): difference to the next minus the previous annotation of
the instance, central where there are both, one-sided at the ends; unknown for a lone annotation, or where the key
frames lie more than 1.5 s apart (3 s for the central difference).
"""

from __future__ import annotations

import hashlib
import sys
from array import array
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .json_records import read_records
from .nuscenes_schema import CAMERA_CHANNELS, LIDAR_CHANNEL
from .poses import make_poses

USED_TABLES = (
    "scene",
    "sample",
    "sensor",
    "calibrated_sensor",
    "sample_data",
    "ego_pose",
    "category",
    "attribute",
    "instance",
    "sample_annotation",
)
MAX_TIME_DIFFERENCE = 1.5  # seconds between the key frames of a one-sided difference; twice that for a central one
CHUNK = 1 << 22  # bytes hashed at a time

OnRead = Callable[[int], Any]


class KeyFrame(NamedTuple):
    """A record of the `sample` table."""

    token: str
    timestamp: int
    next: str


class Sensor(NamedTuple):
    """A record of the `calibrated_sensor` table."""

    channel: str
    sensor2ego: np.ndarray  # [4, 4]
    intrinsic: np.ndarray  # [3, 3]; empty for a LiDAR


class Scan(NamedTuple):
    """A record of the `sample_data` table: a LiDAR scan or an image."""

    sensor: str
    pose: str
    path: str
    timestamp: int
    prev: str
    width: int
    height: int


@dataclass(frozen=True)
class AnnotationColumns:
    """The `sample_annotation` table; the rows of a key frame are a slice of it, in the table's order."""

    tokens: list[str]
    instances: list[str]
    categories: list[str]
    attributes: list[str]
    translations: np.ndarray  # [A, 3] global, metres
    sizes: np.ndarray  # [A, 3] width, length, height
    rotations: np.ndarray  # [A, 4] global quaternions (w, x, y, z)
    velocities: np.ndarray  # [A, 2] global, m/s, NaN where unknown
    num_lidar_points: np.ndarray  # [A] int64
    num_radar_points: np.ndarray  # [A] int64
    visibilities: np.ndarray  # [A] int64, 1 to 4: up to 40, 60, 80, 100 % of it are seen in the cameras
    slices: dict[str, slice]  # token of a key frame -> its rows


@dataclass(frozen=True)
class Tables:
    """What the tables of one version say about some of its scenes.

    Args:
        scenes: name of a scene -> token of its first key frame.
        key_frames: token -> record of `sample`.
        sensors: token -> record of `calibrated_sensor`.
        scans: token -> record of `sample_data`; every LiDAR scan, and the cameras' key frames.
        key_scans: token of a key frame -> channel -> token of its scan.
        poses: `[E, 4, 4]` ego -> global; ``pose_rows`` gives the row of a token.
        pose_rows: token of `ego_pose` -> row of ``poses``.
        annotations: None where the version has none (the test set).
    """

    scenes: dict[str, str]
    key_frames: dict[str, KeyFrame]
    sensors: dict[str, Sensor]
    scans: dict[str, Scan]
    key_scans: dict[str, dict[str, str]]
    poses: np.ndarray
    pose_rows: dict[str, int]
    annotations: AnnotationColumns | None

    def walk(self, scene: str) -> Iterator[KeyFrame]:
        """Yield the key frames of a scene in their order."""
        token = self.scenes[scene]
        while token:
            yield self.key_frames[token]
            token = self.key_frames[token].next


def load_tables(folder: Path, scenes: Collection[str], on_read: OnRead | None = None) -> Tables:
    """Read the tables below ``folder`` (``.../v1.0-mini``) for the ``scenes`` of these names that they hold.

    Args:
        folder: holds `sample.json` and the other tables.
        scenes: names of the wanted scenes.
        on_read: called with the number of characters of each piece that was read.

    Raises:
        FileNotFoundError: if a table is missing.
        ValueError: if a table is damaged, or a link leads nowhere.
    """
    reader = _Reader(_checked_folder(folder), on_read)
    try:
        return reader.load(set(scenes))
    except KeyError as error:
        raise ValueError(f"{folder}: a record links to {error}, which no table holds") from error


def tables_size(folder: Path) -> int:
    """Return the bytes of the tables that ``load_tables`` reads."""
    return sum((_checked_folder(folder) / f"{name}.json").stat().st_size for name in USED_TABLES)


def tables_checksum(folder: Path, on_read: OnRead | None = None) -> str:
    """Return a checksum (BLAKE2, hexadecimal) of the contents of the tables that ``load_tables`` reads."""
    digest = hashlib.blake2b(digest_size=16)
    for name in USED_TABLES:
        with (_checked_folder(folder) / f"{name}.json").open("rb") as file:
            while piece := file.read(CHUNK):
                digest.update(piece)
                if on_read is not None:
                    on_read(len(piece))
    return digest.hexdigest()


def _checked_folder(folder: Path) -> Path:
    missing = [name for name in USED_TABLES if not (folder / f"{name}.json").is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder}: no {', '.join(f'{name}.json' for name in missing)}; "
            "the root must be the folder that holds v1.0-mini, v1.0-trainval or v1.0-test with all their tables"
        )
    return folder


class _Reader:
    """Reads one table after the other; each one narrows down what is kept of the next."""

    def __init__(self, folder: Path, on_read: OnRead | None) -> None:
        self.folder = folder
        self.on_read = on_read

    def load(self, wanted: set[str]) -> Tables:
        scenes = {record["token"]: record for record in self.records("scene") if record["name"] in wanted}
        key_frames = self.key_frames(scenes)
        sensors = self.sensors()
        scans, key_scans = self.scans(key_frames, sensors)
        poses, pose_rows = self.poses({scan.pose for scan in scans.values()})
        return Tables(
            scenes={record["name"]: record["first_sample_token"] for record in scenes.values()},
            key_frames=key_frames,
            sensors=sensors,
            scans=scans,
            key_scans=key_scans,
            poses=poses,
            pose_rows=pose_rows,
            annotations=self.annotations(key_frames),
        )

    def records(self, table: str) -> Iterator[dict[str, Any]]:
        return read_records(self.folder / f"{table}.json", self.on_read)

    def names(self, table: str) -> dict[str, str]:
        return {record["token"]: record["name"] for record in self.records(table)}

    def key_frames(self, scenes: Collection[str]) -> dict[str, KeyFrame]:
        return {
            record["token"]: KeyFrame(record["token"], record["timestamp"], record["next"])
            for record in self.records("sample")
            if record["scene_token"] in scenes
        }

    def sensors(self) -> dict[str, Sensor]:
        channels = {record["token"]: record["channel"] for record in self.records("sensor")}
        return {
            record["token"]: Sensor(
                channels[record["sensor_token"]],
                make_poses(record["translation"], record["rotation"]),
                np.array(record["camera_intrinsic"], dtype=np.float64),
            )
            for record in self.records("calibrated_sensor")
        }

    def scans(
        self, key_frames: Collection[str], sensors: dict[str, Sensor]
    ) -> tuple[dict[str, Scan], dict[str, dict[str, str]]]:
        scans: dict[str, Scan] = {}
        key_scans: dict[str, dict[str, str]] = {token: {} for token in key_frames}
        for record in self.records("sample_data"):
            channel = sensors[record["calibrated_sensor_token"]].channel
            is_key = record["is_key_frame"]
            wanted = channel == LIDAR_CHANNEL or (is_key and channel in CAMERA_CHANNELS)
            if not wanted or record["sample_token"] not in key_scans:
                continue
            token = sys.intern(record["token"])  # the same token stands in up to three records: keep it once
            scans[token] = _scan(record)
            if is_key:
                key_scans[record["sample_token"]][channel] = token
        return scans, key_scans

    def poses(self, wanted: Collection[str]) -> tuple[np.ndarray, dict[str, int]]:
        rows: dict[str, int] = {}
        values = np.empty((len(wanted), 7))
        for record in self.records("ego_pose"):
            if record["token"] in wanted:
                row = rows.setdefault(sys.intern(record["token"]), len(rows))
                values[row] = *record["translation"], *record["rotation"]
        missing = next((token for token in wanted if token not in rows), None)
        if missing is not None:
            raise KeyError(missing)
        return make_poses(values[:, :3], values[:, 3:]), rows

    def annotations(self, key_frames: dict[str, KeyFrame]) -> AnnotationColumns | None:
        categories, attributes = self.names("category"), self.names("attribute")
        instances = {record["token"]: categories[record["category_token"]] for record in self.records("instance")}
        records = _AnnotationRecords(instances, attributes)
        for record in self.records("sample_annotation"):
            if record["sample_token"] in key_frames:
                records.append(record)
        return records.columns(key_frames) if instances else None


def _scan(record: dict[str, Any]) -> Scan:
    return Scan(
        sensor=sys.intern(record["calibrated_sensor_token"]),
        pose=sys.intern(record["ego_pose_token"]),
        path=record["filename"],
        timestamp=record["timestamp"],
        prev=sys.intern(record["prev"]),
        width=record["width"],
        height=record["height"],
    )


class _AnnotationRecords:
    """Gathers annotations in the table's order, then brings them into columns."""

    def __init__(self, instances: dict[str, str], attributes: dict[str, str]) -> None:
        self.category_of = instances
        self.attribute_name = attributes
        self.tokens: list[str] = []
        self.samples: list[str] = []
        self.instances: list[str] = []
        self.attributes: list[str] = []
        self.previous: list[str] = []
        self.next: list[str] = []
        self.numbers = array("d")  # 13 a record: translation, size, rotation, LiDAR points, radar points, visibility

    def append(self, record: dict[str, Any]) -> None:
        self.tokens.append(sys.intern(record["token"]))
        self.samples.append(sys.intern(record["sample_token"]))
        self.instances.append(sys.intern(record["instance_token"]))
        self.attributes.append(self._attribute(record))
        self.previous.append(sys.intern(record["prev"]))
        self.next.append(sys.intern(record["next"]))
        self.numbers.extend((*record["translation"], *record["size"], *record["rotation"]))
        visibility = int(record.get("visibility_token") or 0)  # the tokens of that table are its levels
        self.numbers.extend((record["num_lidar_pts"], record["num_radar_pts"], visibility))

    def columns(self, key_frames: dict[str, KeyFrame]) -> AnnotationColumns:
        """Sort by key frame (stable) and estimate the velocities."""
        position = {token: row for row, token in enumerate(key_frames)}
        frame_rows = np.array([position[token] for token in self.samples], dtype=np.int64)
        order = np.argsort(frame_rows, kind="stable")
        numbers = np.frombuffer(self.numbers, dtype=np.float64).reshape(-1, 13)
        seconds = 1e-6 * np.array([frame.timestamp for frame in key_frames.values()], dtype=np.float64)[frame_rows]
        velocities = self._velocities(numbers[:, :2], seconds)
        counts = np.bincount(frame_rows, minlength=len(key_frames))
        ends = np.cumsum(counts)
        rows = order.tolist()
        return AnnotationColumns(
            tokens=[self.tokens[row] for row in rows],
            instances=[self.instances[row] for row in rows],
            categories=[self.category_of[self.instances[row]] for row in rows],
            attributes=[self.attributes[row] for row in rows],
            translations=numbers[order, :3],
            sizes=numbers[order, 3:6],
            rotations=numbers[order, 6:10],
            velocities=velocities[order],
            num_lidar_points=numbers[order, 10].astype(np.int64),
            num_radar_points=numbers[order, 11].astype(np.int64),
            visibilities=numbers[order, 12].astype(np.int64),
            slices=dict(zip(key_frames, map(slice, (ends - counts).tolist(), ends.tolist()), strict=True)),
        )

    def _attribute(self, record: dict[str, Any]) -> str:
        tokens = record["attribute_tokens"]
        if len(tokens) > 1:
            raise ValueError(f"sample_annotation {record['token']}: {len(tokens)} attributes, at most one is allowed")
        return self.attribute_name[tokens[0]] if tokens else ""

    def _velocities(self, centers: np.ndarray, seconds: np.ndarray) -> np.ndarray:
        """Return velocities ``[A, 2]``, with the development kit's arithmetic (seconds as floats) to the last bit."""
        rows = {token: row for row, token in enumerate(self.tokens)}
        own = np.arange(len(rows))
        first = np.array([rows[token] if token else row for row, token in enumerate(self.previous)], dtype=np.int64)
        last = np.array([rows[token] if token else row for row, token in enumerate(self.next)], dtype=np.int64)
        both = (first != own) & (last != own)
        elapsed = seconds[last] - seconds[first]
        limit = np.where(both, 2 * MAX_TIME_DIFFERENCE, MAX_TIME_DIFFERENCE)
        known = (first != last) & (elapsed <= limit)
        velocities = np.full((len(rows), 2), np.nan)
        velocities[known] = (centers[last] - centers[first])[known] / elapsed[known, None]
        return velocities
