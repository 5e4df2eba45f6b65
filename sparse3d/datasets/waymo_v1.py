"""Segments of the Waymo Open Dataset v1: one TFRecord file a segment, one `Frame` message a record.

Field numbers are those of dataset.proto, label.proto and keypoint.proto; absent fields have their defaults. Range
images are zlib streams of `MatrixFloat` messages. A record is in memory only while it is read.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from .protobuf_wire import Message
from .tfrecord import read_record, read_records
from .waymo_range_image import NUM_COLUMNS, LaserCalibration, points_of
from .waymo_records import CameraShot, FrameRecord, LabelTable, empty_labels, skeleton_of
from .waymo_schema import CAMERA_NAMES, TOP

CONTEXT, TIMESTAMP, POSE, IMAGES, LASERS, LABELS, ZONES = range(1, 8)  # fields of Frame
NAME = 1  # field of Context, CameraImage, Laser and of their calibrations
CAMERA_CALIBRATIONS, LASER_CALIBRATIONS = 2, 3  # fields of Context
JPEG, IMAGE_POSE, IMAGE_TIME = 2, 3, 5  # fields of CameraImage
FIRST_RETURN, SECOND_RETURN = 2, 3  # fields of Laser
CELLS, CELL_POSES = 2, 4  # fields of RangeImage

Parsed = TypeVar("Parsed")


class RecordSegment:
    """A segment in the format of v1.

    Args:
        path: its TFRecord file.
    """

    def __init__(self, path: Path) -> None:
        self.source = path
        self.name = path.stem

    def files(self) -> list[Path]:
        """Return the files of the segment."""
        return [self.source]

    def records(self, *, labelled: bool) -> list[FrameRecord]:
        """Return the frames in the order of time.

        Args:
            labelled: whether objects are labelled; if so, a segment without labels is an error.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if a record is damaged or no frame, or there are no labels; the message names file and byte.
        """
        records = list(self._parsed(self._record))
        if not any(record.labels for record in records):
            if labelled:
                raise ValueError(f"{self.source}: the segment has no labels")
            records = [replace(record, labels=None) for record in records]
        return sorted(records, key=lambda record: record.timestamp)

    def scans(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the timestamp and the points ``[P, 6]`` float32 of each frame, as they come in the file.

        Raises:
            ValueError: if a record is damaged or no frame; the message names file and byte.
        """
        return self._parsed(lambda _, frame: (frame.integer(TIMESTAMP), frame_points(frame)))

    def images(self) -> Iterator[tuple[tuple[int, int], bytes]]:
        """Yield the place (byte of the record, camera) and the JPEG of each image."""
        for images in self._parsed(frame_images):
            yield from images

    def scan(self, offset: int) -> np.ndarray:
        """Return the points ``[P, 6]`` float32 of the frame whose record begins at a byte.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if the record is damaged or no frame.
        """
        payload = read_record(self.source, offset)
        with self._naming(offset):
            return frame_points(Message(payload))

    def image(self, offset: int, camera: int) -> bytes:
        """Return the JPEG of a camera in the record that begins at a byte.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if the record is damaged or has no such image.
        """
        payload = read_record(self.source, offset)
        with self._naming(offset):
            images = dict(frame_images(offset, Message(payload)))
            if (offset, camera) not in images:
                raise ValueError(f"it has no image of {CAMERA_NAMES[camera]}")
            return images[offset, camera]

    def _parsed(self, parse: Callable[[int, Message], Parsed]) -> Iterator[Parsed]:
        """Yield what ``parse`` makes of the byte and the message of each record."""
        for offset, payload in read_records(self.source):
            with self._naming(offset):
                parsed = parse(offset, Message(payload))
            yield parsed

    @contextmanager
    def _naming(self, offset: int) -> Iterator[None]:
        """Say in which record something is wrong."""
        try:
            yield
        except (ValueError, zlib.error) as error:
            raise ValueError(f"{self.source}, record at byte {offset}: {error}") from error

    def _record(self, offset: int, frame: Message) -> FrameRecord:
        return FrameRecord(
            segment=frame.message(CONTEXT).text(NAME),
            timestamp=frame.integer(TIMESTAMP),
            path=str(self.source),
            offset=offset,
            pose=_matrix(frame.message(POSE)),
            shots=tuple(_shots(frame, str(self.source), offset)),
            labels=_labels(frame.messages(LABELS)),
            no_label_zones=tuple(
                np.stack([zone.doubles(1), zone.doubles(2)], axis=1) for zone in frame.messages(ZONES)
            ),
        )


# -- points and images ------------------------------------------------------------------------------------------------


def frame_points(frame: Message) -> np.ndarray:
    """Return the points ``[P, 6]`` float32 of a frame, laser after laser, first and then second returns.

    Raises:
        ValueError: if it has no laser, a laser has no calibration, or a range image is damaged.
    """
    calibrations = laser_calibrations(frame)
    pose = _matrix(frame.message(POSE))
    lasers = sorted(frame.messages(LASERS), key=lambda laser: laser.integer(NAME))
    if not lasers:
        raise ValueError("the frame has no lasers")
    clouds = [np.zeros((0, NUM_COLUMNS), dtype=np.float32)]
    for laser in lasers:
        number = laser.integer(NAME)
        if number not in calibrations:
            raise ValueError(f"laser {number} has no calibration")
        first = laser.message(FIRST_RETURN)
        cell_poses = _float_matrix(first.data(CELL_POSES)) if number == TOP else None
        for image in (first, laser.message(SECOND_RETURN)):
            if CELLS in image:
                clouds.append(points_of(_float_matrix(image.data(CELLS)), calibrations[number], pose, cell_poses))
    return np.concatenate(clouds)


def laser_calibrations(frame: Message) -> dict[int, LaserCalibration]:
    """Return the calibration of each laser by its number."""
    return {
        laser.integer(NAME): LaserCalibration(
            extrinsic=_matrix(laser.message(5)),
            inclinations=laser.doubles(2),
            bounds=(laser.double(3), laser.double(4)),
        )
        for laser in frame.message(CONTEXT).messages(LASER_CALIBRATIONS)
    }


def frame_images(offset: int, frame: Message) -> list[tuple[tuple[int, int], bytes]]:
    """Return the place (byte of the record, camera) and the JPEG of each image of a frame."""
    return [((offset, image.integer(NAME)), bytes(image.data(JPEG))) for image in frame.messages(IMAGES)]


def _float_matrix(compressed: memoryview) -> np.ndarray:
    """Return a compressed `MatrixFloat` in its shape."""
    matrix = Message(zlib.decompress(compressed))
    values, shape = matrix.floats(1), matrix.message(2).integers(1).tolist()
    if len(values) != np.prod(shape):
        raise ValueError(f"a range image has {len(values)} values for the shape {shape}")
    return values.reshape(shape)


def _matrix(transform: Message) -> np.ndarray:
    values = transform.doubles(1)
    if len(values) != 16:
        raise ValueError(f"a transform has 16 numbers, got {len(values)}")
    return values.reshape(4, 4)


# -- cameras and labels -----------------------------------------------------------------------------------------------


def camera_calibrations(frame: Message) -> dict[int, tuple[np.ndarray, np.ndarray, int, int]]:
    """Return intrinsic ``[9]``, extrinsic ``[4, 4]``, width and height of each camera by its number."""
    return {
        each.integer(NAME): (each.doubles(2), _matrix(each.message(3)), each.integer(4), each.integer(5))
        for each in frame.message(CONTEXT).messages(CAMERA_CALIBRATIONS)
    }


def _shots(frame: Message, path: str, offset: int) -> Iterator[CameraShot]:
    calibrations = camera_calibrations(frame)
    for image in sorted(frame.messages(IMAGES), key=lambda image: image.integer(NAME)):
        camera = image.integer(NAME)
        if camera not in calibrations:
            raise ValueError(f"camera {camera} has no calibration")
        time = round(image.double(IMAGE_TIME) * 1e6)
        yield CameraShot(camera, path, offset, time, _matrix(image.message(IMAGE_POSE)), *calibrations[camera])


def _labels(labels: list[Message]) -> LabelTable:
    if not labels:
        return empty_labels()
    boxes, motions = [label.message(1) for label in labels], [label.message(2) for label in labels]
    skeletons = [_skeleton(label.message(8)) for label in labels]
    return LabelTable(
        ids=tuple(label.text(4) for label in labels),
        types=np.array([label.integer(3) for label in labels]),
        boxes=np.stack([_box(box) for box in boxes]),
        num_points=np.array([label.integer(7) for label in labels]),
        num_top_points=np.array([label.integer(13) for label in labels]),
        speeds=np.stack([_motion(label, motion, (1, 2, 5)) for label, motion in zip(labels, motions, strict=True)]),
        accelerations=np.stack(
            [_motion(label, motion, (3, 4, 6)) for label, motion in zip(labels, motions, strict=True)]
        ),
        difficulties=np.array([label.integer(5) for label in labels]),
        tracking_difficulties=np.array([label.integer(6) for label in labels]),
        cameras=np.array([_camera(label.text(11)) for label in labels]),
        synced_boxes=np.stack([_box(label.message(12)) if 12 in label else np.full(7, np.nan) for label in labels]),
        keypoints=np.stack([keypoints for keypoints, _ in skeletons]),
        visibility=np.stack([visibility for _, visibility in skeletons]),
    )


def _box(box: Message) -> np.ndarray:
    """Return ``(x, y, z, l, w, h, yaw)``; the message has the width before the length."""
    return np.array([box.double(number) for number in (1, 2, 3, 5, 4, 6, 7)])


def _motion(label: Message, motion: Message, numbers: tuple[int, int, int]) -> np.ndarray:
    """Return a speed or an acceleration ``[3]``, NaN where the label has no metadata."""
    return np.array([motion.double(number) if 2 in label else np.nan for number in numbers])


def _camera(name: str) -> int:
    """Return the number of a camera, 0 for none."""
    if name and name not in CAMERA_NAMES:
        raise ValueError(f"unknown camera {name!r}, expected one of {', '.join(CAMERA_NAMES[1:])}")
    return CAMERA_NAMES.index(name) if name else 0


def _skeleton(keypoints: Message) -> tuple[np.ndarray, np.ndarray]:
    found = keypoints.messages(1)
    points = [each.message(2) for each in found]
    places = [point.message(1) for point in points]
    return skeleton_of(
        types=np.array([each.integer(1) for each in found], dtype=np.int64),
        locations=np.array([[place.double(axis) for axis in (1, 2, 3)] for place in places]).reshape(-1, 3),
        occluded=np.array([point.message(2).integer(1) for point in points], dtype=bool),
    )
