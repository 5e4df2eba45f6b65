"""Earlier frames by their timestamps, and their cameras in the present LiDAR frame."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sparse3d.datasets import NuScenesDataset, write_index
from sparse3d.datasets.history import History, scenes_and_timestamps
from sparse3d.datasets.nuscenes_frames import scene_frames
from sparse3d.datasets.nuscenes_tables import load_tables
from sparse3d.datasets.transforms import LoadCameras, LoadImages, RandomRotate, frame_cameras
from sparse3d.structures import Frame, Sample
from tests.conftest import REPOSITORY

SYNTH = REPOSITORY / "tests" / "data" / "golden" / "nuscenes_synth"


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    return list(scene_frames(load_tables(SYNTH / "v1.0-mini", ["scene-0061"]), "scene-0061", SYNTH))


def make(frame: Frame, scene: str, seconds: float) -> Frame:
    return replace(frame, scene=scene, timestamp=round(seconds * 1e6))


def test_the_nearest_earlier_frame_of_the_scene_is_found(frames: list[Frame]) -> None:
    seconds = [("b", 0.0), ("a", 1.0), ("a", 0.0), ("a", 0.5), ("b", 0.5), ("a", 2.02), ("a", 2.5)]  # in no order
    history = History([make(frames[0], *each) for each in seconds], (0.5, 1.0))
    assert history.rows(6) == [5, 1]  # 2.02 s is nearest to 2.0, 1.0 s to 1.5
    assert history.rows(1) == [3, 2]
    assert history.rows(3) == [2, 2]  # the scene does not reach back to -0.5 s
    assert history.rows(2) == [2, 2]  # the first frame is its own past
    assert history.rows(0) == [0, 0]
    assert history.rows(4) == [0, 0]


def test_frames_after_it_are_found_too(frames: list[Frame]) -> None:
    seconds = [("b", 0.0), ("a", 1.0), ("a", 0.0), ("a", 0.5), ("b", 0.5), ("a", 2.02), ("a", 2.5)]  # in no order
    history = History([make(frames[0], *each) for each in seconds], (0.5, -0.5, -1.0))
    assert history.rows(3) == [2, 1, 1]
    assert history.rows(6) == [5, 6, 6]  # the last frame is its own future
    assert history.rows(2) == [2, 3, 1]
    assert history.rows(4) == [0, 4, 4]  # the other scene is none of it


def test_ages_are_other_times_than_now(frames: list[Frame]) -> None:
    for ages in ((0.0,), (1.0, 1.0)):
        with pytest.raises(ValueError, match="none of them 0"):
            History(frames, ages)


def test_the_data_set_hands_them_to_the_loaders(frames: list[Frame], tmp_path: Path) -> None:
    index = tmp_path / "index.arrow"
    write_index(index, frames, {}, SYNTH)
    dataset = NuScenesDataset(SYNTH, index, past=(0.5, 1.0), pipeline=[LoadCameras()])
    listed, mapped = scenes_and_timestamps(frames), scenes_and_timestamps(dataset.frames)
    assert all(np.array_equal(*pair) for pair in zip(listed, mapped, strict=True))
    last = len(frames) - 1
    assert [each.token for each in dataset.past(last)] == [frames[last - 1].token, frames[last - 2].token]
    cameras, now = dataset[last].cameras, frame_cameras(frames[last])
    count = len(now)
    assert len(cameras) == 3 * count and cameras.names == 3 * now.names
    assert torch.equal(cameras.lidar2img[:count], now.lidar2img)
    ages = -cameras.timestamps.view(3, count).mean(dim=1)
    assert (ages.diff() > 0.3).all()


def test_a_past_camera_sees_a_still_point_where_it_was(frames: list[Frame]) -> None:
    """The way through the world and the way through the present LiDAR frame lead to the same pixel."""
    now, then = frames[-1], frames[0]
    points = torch.tensor([[2.0, 18.0, 0.5], [-6.0, 25.0, 1.0]], dtype=torch.float64)
    in_world = np.c_[points.numpy(), np.ones(2)] @ now.lidar2global.T
    in_past_lidar = torch.from_numpy((in_world @ np.linalg.inv(then.lidar2global).T)[:, :3])
    count = len(now.cameras)
    pixels, depth = frame_cameras(now, [then]).project(points)
    expected, expected_depth = frame_cameras(then).project(in_past_lidar)
    torch.testing.assert_close(pixels[count:], expected, equal_nan=True)
    torch.testing.assert_close(depth[count:], expected_depth)
    assert not torch.allclose(depth[:count], depth[count:], atol=0.1)


def test_a_camera_that_is_missing_is_black_and_blind(frames: list[Frame]) -> None:
    whole = frames[-1]
    names = [camera.name for camera in whole.cameras]
    lacking = replace(frames[0], cameras=whole.cameras[1:])
    sample = Sample.from_frame(whole, past=(lacking,))
    loaded = LoadImages(names[::-1])(sample, np.random.default_rng(0))
    assert loaded.cameras.names == (*names[::-1], *names[::-1])
    assert not loaded.images[-1].any() and loaded.images[len(names) - 1].any()
    points = torch.randn(200, 3, dtype=torch.float64) * 20
    seen = RandomRotate()(loaded, np.random.default_rng(0)).cameras.visible(points)
    assert seen[: len(names)].any(dim=1).all() and not seen[-1].any()
    with pytest.raises(ValueError, match=r"has none of the cameras \('roof',\)"):
        LoadCameras(["roof"])(sample, np.random.default_rng(0))
