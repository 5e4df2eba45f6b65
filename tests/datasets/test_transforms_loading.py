"""Loaders: what they read, in which coordinates, and what they refuse."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from sparse3d.datasets.nuscenes_frames import scene_frames
from sparse3d.datasets.nuscenes_schema import CATEGORY_TO_CLASS, DETECTION_CLASSES
from sparse3d.datasets.nuscenes_tables import load_tables
from sparse3d.datasets.transforms import LoadAnnotations, LoadCameras, LoadImages, LoadPoints, RandomFlip, read_points
from sparse3d.structures import CameraImage, Frame, LidarScan, Sample
from sparse3d_ops.boxes import count_points_in_boxes
from tests.conftest import REPOSITORY

SYNTH = REPOSITORY / "tests" / "data" / "golden" / "nuscenes_synth"
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    return list(scene_frames(load_tables(SYNTH / "v1.0-mini", ["scene-0061"]), "scene-0061", SYNTH))


def _points(frame: Frame, loader: LoadPoints, seed: int = 0) -> np.ndarray:
    return loader(Sample.from_frame(frame), np.random.default_rng(seed)).points.numpy()


def _scans(folder: Path, scans: list[np.ndarray], template: Frame) -> Frame:
    """A frame of these scans ``[P, 5]``: the key frame, and sweeps 0.1 s apart that stood 1 m further back each."""
    records = []
    for age, points in enumerate(scans):
        path = folder / f"{age}.bin"
        points.astype(np.float32).tofile(path)
        pose = np.eye(4)
        pose[0, 3] = -age
        records.append(LidarScan(str(path), 1_000_000 - 100_000 * age, pose))
    return replace(template, lidar=records[0], sweeps=tuple(records[1:]))


# -- points -----------------------------------------------------------------------------------------------------------


def test_key_frame(frames: list[Frame]) -> None:
    points = _points(frames[1], LoadPoints())
    raw = np.fromfile(frames[1].lidar.path, dtype=np.float32).reshape(-1, 5)
    assert points.dtype == np.float32
    np.testing.assert_array_equal(points, np.concatenate([raw[:, :4], np.zeros((438, 1))], axis=1))


def test_columns(frames: list[Frame]) -> None:
    raw = np.fromfile(frames[0].lidar.path, dtype=np.float32).reshape(-1, 5)
    np.testing.assert_array_equal(
        _points(frames[0], LoadPoints(use=(0, 1, 2, 4), time_lag=False)), raw[:, [0, 1, 2, 4]]
    )


def test_sweeps_come_home(tmp_path: Path, frames: list[Frame]) -> None:
    scans = [np.full((2, 5), 10.0 * (1 + age)) for age in range(4)]
    points = _points(_scans(tmp_path, scans, frames[0]), LoadPoints(sweeps=2))
    expected = [[10, 10, 10, 10, 0]] * 2 + [[19, 20, 20, 20, 0.1]] * 2 + [[28, 30, 30, 30, 0.2]] * 2
    np.testing.assert_allclose(points, expected, rtol=1e-6)


def test_sweeps_lie_on_the_static_objects(frames: list[Frame]) -> None:
    """Points of sweeps, brought home, fall into the boxes of what does not move."""
    frame = frames[2]
    boxes = torch.from_numpy(frame.annotations.boxes)
    static = boxes[(boxes[:, 7:].norm(dim=1) < 1e-6) & torch.from_numpy(frame.annotations.num_lidar_points > 5)]
    static[:, 3:6] += 0.1  # the boxes are upright in the sensor's frame, the objects in the world
    single = count_points_in_boxes(torch.from_numpy(_points(frame, LoadPoints())[:, :3]), static[:, :7])
    merged = count_points_in_boxes(torch.from_numpy(_points(frame, LoadPoints(sweeps=9))[:, :3]), static[:, :7])
    assert len(static) >= 5
    assert (merged >= 5 * single).all()


def test_fewer_sweeps_than_asked_for(tmp_path: Path, frames: list[Frame]) -> None:
    frame = _scans(tmp_path, [np.full((1, 5), 9.0)] * 3, frames[0])
    assert len(_points(frame, LoadPoints(sweeps=10))) == 3


def test_random_sweeps(tmp_path: Path, frames: list[Frame]) -> None:
    frame = _scans(tmp_path, [np.full((1, 5), 50.0)] * 11, frames[0])
    loader = LoadPoints(sweeps=4, random_sweeps=True)
    draws = [tuple(np.round(_points(frame, loader, seed)[1:, 4], 3).tolist()) for seed in range(30)]
    assert all(list(draw) == sorted(set(draw)) and len(draw) == 4 for draw in draws)
    assert len(set(draws)) > 10
    assert draws[3] == tuple(np.round(_points(frame, loader, 3)[1:, 4], 3).tolist())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (dict(), [0, 0, 0, 1, 1]),
        (dict(remove_close=False), [0, 0, 0, 1, 1, 1]),
        (dict(remove_close_key=True), [0, 0, 1, 1]),
    ],
)
def test_own_vehicle(tmp_path: Path, frames: list[Frame], arguments: dict, expected: list[int]) -> None:
    points = np.array([[0.9, -0.9, 5, 0, 0], [1, 0, 0, 0, 0], [0.5, -3, 0, 0, 0]])
    found = _points(_scans(tmp_path, [points, points], frames[0]), LoadPoints(sweeps=1, **arguments))
    assert (found[:, 4] > 0).astype(int).tolist() == expected


def test_padding_without_sweeps(tmp_path: Path, frames: list[Frame]) -> None:
    points = np.array([[0.0, 0, 0, 0, 0], [5, 5, 5, 5, 5]])
    frame = _scans(tmp_path, [points], frames[0])
    assert len(_points(frame, LoadPoints(sweeps=3))) == 2
    padded = _points(frame, LoadPoints(sweeps=3, pad_empty_sweeps=True))
    assert padded[:, 0].tolist() == [0, 5, 5, 5, 5]
    assert not padded[:, 4].any()
    assert len(_points(frame, LoadPoints(sweeps=3, pad_empty_sweeps=True, remove_close=False))) == 8


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such LiDAR file; if the data moved, pass the new data_root"):
        read_points(tmp_path / "none.bin", 5)


def test_cut_off_file(tmp_path: Path) -> None:
    (tmp_path / "points.bin").write_bytes(b"\x00" * 44)
    with pytest.raises(ValueError, match=r"points\.bin: 44 bytes are no whole number of points of 5 float32"):
        read_points(tmp_path / "points.bin", 5)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite(tmp_path: Path, value: float) -> None:
    points = np.zeros((4, 5), dtype=np.float32)
    points[2, 3] = value
    points.tofile(tmp_path / "points.bin")
    with pytest.raises(ValueError, match="1 points hold NaN or infinity, the first is point 2"):
        read_points(tmp_path / "points.bin", 5)


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "points.bin").write_bytes(b"")
    assert read_points(tmp_path / "points.bin", 5).shape == (0, 5)


@pytest.mark.parametrize("arguments", [dict(use=(0, 1, 2, 5)), dict(use=(2, 1, 0)), dict(sweeps=-1), dict(use=())])
def test_refused_arguments(arguments: dict) -> None:
    with pytest.raises(ValueError, match="LoadPoints"):
        LoadPoints(**arguments)


def test_files_of_another_width(frames: list[Frame]) -> None:
    with pytest.raises(ValueError, match="5 values a point, num_features is 4"):
        _points(frames[0], LoadPoints(num_features=4))


# -- annotations ------------------------------------------------------------------------------------------------------


def test_annotations(frames: list[Frame]) -> None:
    frame = frames[1]
    gt = LoadAnnotations(DETECTION_CLASSES)(Sample.from_frame(frame), RNG).gt
    names = [CATEGORY_TO_CLASS.get(category) for category in frame.annotations.categories]
    rows = [row for row, name in enumerate(names) if name]
    assert 0 < len(rows) < len(names)
    assert [DETECTION_CLASSES[label] for label in gt.labels] == [names[row] for row in rows]
    assert gt.boxes.tensor.dtype == torch.float32
    np.testing.assert_allclose(gt.boxes.numpy(), frame.annotations.boxes[rows], rtol=1e-6)
    assert gt.num_points.tolist() == frame.annotations.num_lidar_points[rows].tolist()


def test_some_classes_and_points(frames: list[Frame]) -> None:
    counts = np.arange(24)
    frame = replace(frames[1], annotations=replace(frames[1].annotations, num_lidar_points=counts))
    gt = LoadAnnotations(["pedestrian", "car"], min_points=1)(Sample.from_frame(frame), RNG).gt
    names = [CATEGORY_TO_CLASS.get(category) for category in frame.annotations.categories]
    label_of = {"pedestrian": 0, "car": 1}
    expected = [
        (label_of[name], count) for name, count in zip(names, counts, strict=True) if name in label_of and count
    ]
    assert list(zip(gt.labels.tolist(), gt.num_points.tolist(), strict=True)) == expected
    assert names[0] in label_of  # the object without points was one of them


def test_unknown_velocity_stays_unknown(frames: list[Frame]) -> None:
    boxes = frames[0].annotations.boxes.copy()
    boxes[0, 7:] = np.nan
    frame = replace(frames[0], annotations=replace(frames[0].annotations, boxes=boxes))
    velocities = LoadAnnotations(DETECTION_CLASSES)(Sample.from_frame(frame), RNG).gt.boxes.velocities
    assert velocities[0].isnan().all()
    assert not velocities[1:].isnan().any()


def test_no_objects(frames: list[Frame]) -> None:
    gt = LoadAnnotations(["none of these"])(Sample.from_frame(frames[0]), RNG).gt
    assert gt.boxes.tensor.shape == (0, 9)
    assert len(gt.labels) == 0


def test_frame_that_is_not_annotated(frames: list[Frame]) -> None:
    with pytest.raises(ValueError, match="leave LoadAnnotations out"):
        LoadAnnotations(DETECTION_CLASSES)(Sample.from_frame(replace(frames[0], annotations=None)), RNG)


# -- images -----------------------------------------------------------------------------------------------------------


def test_images(frames: list[Frame]) -> None:
    sample = LoadImages()(Sample.from_frame(frames[0]), RNG)
    assert sample.images.shape == (6, 3, 225, 400)
    assert sample.images.dtype == torch.uint8
    assert sample.cameras.names == tuple(camera.name for camera in frames[0].cameras)
    np.testing.assert_allclose(sample.cameras.lidar2cam, [camera.lidar2cam for camera in frames[0].cameras])
    np.testing.assert_allclose(sample.cameras.timestamps, -0.03, atol=1e-9)
    assert sample.cameras.image_sizes.tolist() == [[225, 400]] * 6


def test_colours_are_red_green_blue(tmp_path: Path, frames: list[Frame]) -> None:
    image = np.zeros((4, 6, 3), dtype=np.uint8)
    image[..., 2] = 200  # OpenCV writes blue, green, red
    cv2.imwrite(str(tmp_path / "red.png"), image)
    camera = replace(frames[0].cameras[0], path=str(tmp_path / "red.png"), width=6, height=4)
    sample = LoadImages()(Sample.from_frame(replace(frames[0], cameras=(camera,))), RNG)
    assert sample.images.shape == (1, 3, 4, 6)
    assert sample.images[0, :, 0, 0].tolist() == [200, 0, 0]


def test_images_of_different_sizes(tmp_path: Path, frames: list[Frame]) -> None:
    cameras = []
    for height in (4, 5):
        path = tmp_path / f"{height}.png"
        cv2.imwrite(str(path), np.zeros((height, 6, 3), dtype=np.uint8))
        cameras.append(replace(frames[0].cameras[0], path=str(path), width=6, height=height))
    images = LoadImages()(Sample.from_frame(replace(frames[0], cameras=tuple(cameras))), RNG).images
    assert [tuple(image.shape) for image in images] == [(3, 4, 6), (3, 5, 6)]


def test_cameras_without_images(frames: list[Frame]) -> None:
    sample = LoadCameras()(Sample.from_frame(frames[0]), RNG)
    assert "images" not in sample
    assert len(sample.cameras) == 6


def test_refused_images(tmp_path: Path, frames: list[Frame]) -> None:
    def load(**changes: object) -> None:
        camera = replace(frames[0].cameras[0], **changes)
        LoadImages()(Sample.from_frame(replace(frames[0], cameras=(camera,))), RNG)

    with pytest.raises(ValueError, match="400x225, the calibration is for 1600x900"):
        load(width=1600, height=900)
    with pytest.raises(FileNotFoundError, match="no such image"):
        load(path=str(tmp_path / "none.jpg"))
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(ValueError, match="no readable image"):
        load(path=str(tmp_path / "text.jpg"))
    with pytest.raises(ValueError, match=r"frame .* has no camera"):
        LoadCameras()(Sample.from_frame(replace(frames[0], cameras=())), RNG)


@pytest.mark.parametrize("loader", [LoadPoints(), LoadAnnotations(["car"]), LoadImages(), LoadCameras()])
def test_loaders_come_first(frames: list[Frame], loader: LoadPoints) -> None:
    moved = RandomFlip(x=1)(Sample.from_frame(frames[0]), RNG)
    with pytest.raises(ValueError, match=f"{type(loader).__name__} must come before"):
        loader(moved, RNG)


def test_images_of_a_distorting_lens_are_straightened(tmp_path: Path) -> None:
    intrinsic = np.array([[200.0, 0, 159.5], [0, 200.0, 119.5], [0, 0, 1]])
    distortion = np.array([0.05, -0.3, 0.001, -0.002, 0.01])
    point = np.array([0.6, -0.45, 1.0])
    (bent,) = cv2.projectPoints(point[None], np.zeros(3), np.zeros(3), intrinsic, distortion)[0][0]
    straight = (intrinsic @ point)[:2]
    assert np.linalg.norm(bent - straight) > 5
    image = np.zeros((240, 320, 3), dtype=np.uint8)
    cv2.circle(image, tuple(round(float(value) * 16) for value in bent), 3 * 16, (255, 255, 255), -1, shift=4)
    path = tmp_path / "image.png"
    cv2.imwrite(str(path), image)
    camera = CameraImage("FRONT", str(path), 0, intrinsic, *(np.eye(4),) * 3, 320, 240, distortion=distortion)
    scan = LidarScan("", 0, np.eye(4))
    frame = Frame("t", "s", 0, scan, (), (camera,), np.eye(4), np.eye(4), None)
    loaded = LoadImages()(Sample.from_frame(frame), RNG)
    rows, columns = np.nonzero(loaded.images[0, 0].numpy() > 100)
    assert np.hypot(columns.mean() - straight[0], rows.mean() - straight[1]) < 0.5
