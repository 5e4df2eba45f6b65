"""The files of the Waymo benchmarks: detections, and poses of people.

    detections   `.bin`      one message `Objects`, which the official command-line evaluator reads
                 `.tar.gz`   what the server takes: messages `Submission`, each with a part of the objects
    poses        `.bin`      one message `PoseEstimationSubmission`
                 `.tar.gz`   what the server takes: that message as `submission.binproto`

As the official packer does, a `.tar.gz` leaves out detections with a score below 0.03 and raises sizes to 1e-6. The
server finds out by itself what lies in a no-label zone.

All objects of a frame are encoded alike, byte by byte, so they are written as rows of one array.

Source: the protocol buffers metrics, submission and keypoint submission of the Waymo Open Dataset.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..datasets.protobuf_wire import write_data, write_double, write_float, write_integer
from ..structures import Frame
from ..structures.skeleton import KEYPOINT_TYPES
from ..whole_file import writing_whole
from .keypoints_boxes import KeypointTable, check_keypoints
from .waymo_boxes import WaymoDetections, check_detections

MESSAGE, ARCHIVE = ".bin", ".tar.gz"
DETECTION_3D, CAMERA_ONLY_DETECTION_3D = 2, 6  # tasks
SENSORS = ("UNKNOWN", "LIDAR_ALL", "LIDAR_TOP", "CAMERA_ALL", "CAMERA_LIDAR_TOP", "CAMERA_LIDAR_ALL")
MAX_NAME = 25  # characters of the method's name
MIN_SCORE = 0.03
MIN_SIZE = 1e-6  # metres
SHARD_SIZE = 64 << 20  # bytes of a part of the results, or a little more
LENGTH_OF, WIDTH_OF = 3, 4  # columns of a box; a message has the width first
MESSAGE_COLUMNS = (0, 1, 2, WIDTH_OF, LENGTH_OF, 5, 6)
POSE_FILE = "submission.binproto"


@dataclass(frozen=True)
class FrameKey:
    """What the benchmarks know a frame by."""

    context_name: str
    timestamp: int  # microseconds

    @classmethod
    def of(cls, frame: Frame) -> FrameKey:
        """Return the key of a frame of Waymo."""
        return cls(frame.scene, frame.timestamp)


@dataclass(frozen=True)
class SubmissionInfo:
    """What the server wants to know besides the results.

    Args:
        account_name: e-mail address of the account.
        method_name: at most 25 characters, unique for the account.
        authors: names.
        affiliation: of the authors.
        description: of the method.
        method_link: address of a paper or of code.
        sensors: one of ``SENSORS``.
        past_frames: frames before the present one that the method reads.
        object_types: official numbers of the types that are detected.
        latency: seconds a frame.
        docker_image: source of the image for the server's measurement of latency.

    Raises:
        ValueError: if the name is too long or the sensors are unknown.
    """

    account_name: str = ""
    method_name: str = ""
    authors: Sequence[str] = ()
    affiliation: str = ""
    description: str = ""
    method_link: str = ""
    sensors: str = "LIDAR_ALL"
    past_frames: int = 0
    object_types: Sequence[int] = (1, 2, 4)
    latency: float | None = None
    docker_image: str = ""

    def __post_init__(self) -> None:
        """Check what the server would refuse."""
        if len(self.method_name) > MAX_NAME:
            raise ValueError(f"method_name: at most {MAX_NAME} characters, got {self.method_name!r}")
        if self.sensors not in SENSORS:
            raise ValueError(f"sensors: expected one of {SENSORS}, got {self.sensors!r}")

    @classmethod
    def with_path(cls, submission: Mapping[str, Any] | None) -> tuple[Path | None, SubmissionInfo]:
        """Return where to write and what to say, of the arguments in a config: ``path``, and those of this class.

        Raises:
            ValueError: if there is no path, or its suffix is unknown.
        """
        if submission is None:
            return None, cls()
        rest = dict(submission)
        path = Path(rest.pop("path", ""))
        _check_suffix(path)
        return path, cls(**rest)


def write_detections(
    path: str | Path,
    keys: Sequence[FrameKey],
    detections: WaymoDetections,
    info: SubmissionInfo | None = None,
    camera_only: bool = False,
) -> None:
    """Write detections, all of them or nothing; see the top of the file.

    Args:
        path: ends with ``.bin`` or ``.tar.gz``.
        keys: of the frames; ``detections.sample`` is a position in them.
        detections: boxes in the vehicle frames.
        info: for ``.tar.gz``.
        camera_only: the task is that of cameras alone.

    Raises:
        ValueError: if the suffix is unknown, or a detection cannot be scored; the message lists the rows.
    """
    _check_suffix(path)
    check_detections("detections", detections)
    if str(path).endswith(MESSAGE):
        with writing_whole(path) as partial, partial.open("wb") as file:
            file.writelines(_frames_of_objects(keys, detections))
        return
    kept = detections.take(detections.score >= np.float32(MIN_SCORE))
    box = np.concatenate([kept.box[:, :3], np.maximum(kept.box[:, 3:6], MIN_SIZE), kept.box[:, 6:]], axis=1)
    header = _submission_header(info or SubmissionInfo(), CAMERA_ONLY_DETECTION_3D if camera_only else DETECTION_3D)
    shards = _shards(_frames_of_objects(keys, replace(kept, box=box)), header)
    _write_archive(path, ((f"submission_{number:05d}.bin", shard) for number, shard in enumerate(shards)))


def write_poses(
    path: str | Path, keys: Sequence[FrameKey], people: KeypointTable, info: SubmissionInfo | None = None
) -> None:
    """Write poses, all of them or nothing; keypoints that are not predicted as visible are left out.

    Arguments and errors as ``write_detections``; boxes and keypoints are in the vehicle frames.
    """
    _check_suffix(path)
    check_keypoints("people", people)
    message = _pose_submission(keys, people, info or SubmissionInfo())
    if str(path).endswith(MESSAGE):
        with writing_whole(path) as partial:
            partial.write_bytes(message)
    else:
        _write_archive(path, [(POSE_FILE, message)])


# -- detections ------------------------------------------------------------------------------------------------------


def _frames_of_objects(keys: Sequence[FrameKey], detections: WaymoDetections) -> Iterator[bytes]:
    """Yield the fields `objects` of each frame's detections."""
    ordered = detections.take(np.argsort(detections.sample, kind="stable"))
    bounds = np.searchsorted(ordered.sample, np.arange(len(keys) + 1))
    for key, first, last in zip(keys, bounds[:-1], bounds[1:], strict=True):
        yield _objects(key, ordered.take(np.arange(first, last)))


def _objects(key: FrameKey, detections: WaymoDetections) -> bytes:
    """Return the field `objects` of each detection of a frame.

    An object holds a label (1) with its box (1: seven numbers) and type (3), the score (2), whether it overlaps a
    no-label zone (3), and the frame (4, 5). Every part of it has the same size in all objects.
    """
    frame = write_data(4, key.context_name) + write_integer(5, key.timestamp)
    number = np.dtype([("key", "u1"), ("value", "<f8")])
    rest = [("type", "V2"), ("score_key", "u1"), ("score", "<f4"), ("overlap", "V2"), ("frame", f"V{len(frame)}")]
    box_size = 7 * number.itemsize
    label_size = len(_opening(1, box_size)) + box_size + len(write_integer(3, 0))
    score_and_rest = len(write_float(2, 0)) + len(write_integer(3, 0)) + len(frame)
    object_size = len(_opening(1, label_size)) + label_size + score_and_rest
    start = _opening(1, object_size) + _opening(1, label_size) + _opening(1, box_size)

    rows = np.zeros(len(detections), np.dtype([("start", f"V{len(start)}"), ("box", number, 7), *rest]))
    rows["start"] = np.void(start)
    rows["box"]["key"] = [write_double(field, 0)[0] for field in range(1, 8)]
    rows["box"]["value"] = detections.box[:, MESSAGE_COLUMNS]
    rows["type"] = _small_integers(3, detections.type)
    rows["score_key"] = write_float(2, 0)[0]
    rows["score"] = detections.score
    rows["overlap"] = _small_integers(3, detections.overlaps_no_label_zone)
    rows["frame"] = np.void(frame)
    return rows.tobytes()


def _opening(number: int, size: int) -> bytes:
    """Return what stands before the ``size`` bytes of a message."""
    return write_data(number, bytes(size))[:-size]


def _small_integers(number: int, values: np.ndarray) -> np.ndarray:
    """Return fields ``[N]`` of two bytes with integers below 128."""
    pairs = np.zeros((len(values), 2), np.uint8)
    pairs[:, 0], pairs[:, 1] = write_integer(number, 0)[0], values
    return pairs.view("V2")[:, 0]


def _submission_header(info: SubmissionInfo, task: int) -> bytes:
    """Return a message `Submission` without its results."""
    parts = [write_integer(1, task), write_data(2, info.method_name)]
    parts += [write_data(3, author) for author in info.authors]
    parts += [write_data(4, info.affiliation), write_data(5, info.description), write_data(6, info.method_link)]
    parts += [write_integer(9, info.past_frames), write_integer(10, 0)]
    parts += [write_integer(12, SENSORS.index(info.sensors)), write_data(13, info.account_name)]
    parts += [write_integer(14, kind) for kind in info.object_types]
    if info.latency is not None:
        parts.append(write_double(15, info.latency))
    return b"".join([*parts, write_data(16, info.docker_image)])


def _shards(frames: Iterator[bytes], header: bytes) -> Iterator[bytes]:
    """Yield messages `Submission`: frames until there is enough for one."""
    part = bytearray()
    for frame in frames:
        if len(part) >= SHARD_SIZE:
            yield header + write_data(11, bytes(part))
            part.clear()
        part += frame
    yield header + write_data(11, bytes(part))


# -- poses -----------------------------------------------------------------------------------------------------------


def _pose_submission(keys: Sequence[FrameKey], people: KeypointTable, info: SubmissionInfo) -> bytes:
    parts = [write_data(1, info.account_name), write_data(2, info.method_name)]
    parts += [write_data(3, author) for author in info.authors]
    texts = {4: info.affiliation, 5: info.description, 6: info.method_link}
    parts += [write_data(number, text) for number, text in texts.items() if text]
    for person in np.argsort(people.sample, kind="stable"):
        parts.append(write_data(7, _pose(keys[people.sample[person]], people, person)))
    return b"".join(parts)


def _pose(key: FrameKey, people: KeypointTable, person: int) -> bytes:
    """Return a message `PoseEstimation`: the frame, the visible keypoints, the box."""
    frame = write_data(1, key.context_name) + write_integer(2, key.timestamp)
    keypoints = b"".join(
        write_data(1, _keypoint(KEYPOINT_TYPES[index], people.location[person, index]))
        for index in np.flatnonzero(people.is_visible[person])
    )
    x, y, z, length, width, height, yaw = people.box[person].tolist()
    box = write_data(1, _vector(x, y, z)) + write_data(2, _vector(length, width, height)) + write_double(3, yaw)
    return write_data(1, frame) + write_data(2, keypoints) + write_data(3, box)


def _keypoint(kind: int, location: np.ndarray) -> bytes:
    visibility = write_integer(1, False)  # is it occluded?
    place = write_data(1, _vector(*location.tolist())) + write_data(2, visibility)
    return write_integer(1, kind) + write_data(2, place)


def _vector(x: float, y: float, z: float) -> bytes:
    return write_double(1, x) + write_double(2, y) + write_double(3, z)


# -- files -----------------------------------------------------------------------------------------------------------


def _check_suffix(path: str | Path) -> None:
    if not str(path).endswith((MESSAGE, ARCHIVE)):
        raise ValueError(f"submission: path must end with {MESSAGE} or {ARCHIVE}, got {str(path)!r}")


def _write_archive(path: str | Path, files: Iterator[tuple[str, bytes]] | Sequence[tuple[str, bytes]]) -> None:
    with writing_whole(path) as partial, tarfile.open(partial, "w:gz") as archive:
        for name, content in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
