"""Depth maps and the vehicle's frame: calibration, points and boxes stay together whatever moves them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse3d.datasets.nuscenes_frames import scene_frames
from sparse3d.datasets.nuscenes_schema import DETECTION_CLASSES
from sparse3d.datasets.nuscenes_tables import load_tables
from sparse3d.datasets.transforms import (
    CropImages,
    FlipImages,
    LoadAnnotations,
    LoadImages,
    LoadPoints,
    MakeDepthMaps,
    RandomFlip,
    RandomRotate,
    RandomScale,
    ResizeImages,
    RotateImages,
    ToVehicleFrame,
    build_pipeline,
)
from sparse3d.structures import Cameras, Frame, Sample
from tests.conftest import REPOSITORY

SYNTH = REPOSITORY / "tests" / "data" / "golden" / "nuscenes_synth"
RNG = np.random.default_rng(0)
MOVES = [
    ResizeImages((0.4, 0.6)),
    CropImages((60, 110), horizontal="random"),
    FlipImages(0.5),
    RotateImages((-0.1, 0.1)),
    RandomRotate((-math.pi, math.pi)),
    RandomScale((0.9, 1.1)),
    RandomFlip(),
]


@pytest.fixture(scope="module")
def frame() -> Frame:
    tables = load_tables(SYNTH / "v1.0-mini", ["scene-0061"])
    return next(iter(scene_frames(tables, "scene-0061", SYNTH)))


@pytest.fixture(scope="module")
def loaded(frame: Frame) -> Sample:
    sample = Sample.from_frame(frame)
    for loader in (LoadPoints(), LoadImages(), LoadAnnotations(DETECTION_CLASSES)):
        sample = loader(sample, RNG)
    return sample


# -- depth maps --------------------------------------------------------------------------------------------------------


def one_camera(points: list[list[float]]) -> Sample:
    """A camera of 6 x 8 pixels that looks along x from the origin."""
    lidar2cam = torch.tensor([[[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]]])
    intrinsics = torch.tensor([[[4.0, 0, 4], [0, 4, 3], [0, 0, 1]]])
    cameras = Cameras.create(["front"], intrinsics, lidar2cam, torch.tensor([[6, 8]]))
    return Sample().replace(points=torch.tensor(points).view(-1, 3), cameras=cameras)


def test_the_nearest_point_of_a_pixel_counts() -> None:
    sample = one_camera([[9.0, 0, 0], [5.0, 0, 0], [7.0, 0, 0], [10.0, 5.1, 0], [-5.0, 0, 0], [2.0, 2.1, 0]])
    [found] = MakeDepthMaps()(sample, RNG).depth_maps
    expected = torch.zeros(6, 8)
    expected[3, 4], expected[3, 1] = 5, 10
    assert torch.equal(found, expected) and found.dtype == torch.float32


def test_no_points_and_blind_cameras_measure_nothing() -> None:
    assert not MakeDepthMaps()(one_camera([]), RNG).depth_maps.any()
    sample = one_camera([[5.0, 0, 0]])
    blind = replace(sample.cameras, lidar2cam=torch.zeros_like(sample.cameras.lidar2cam))
    assert not MakeDepthMaps()(sample.replace(cameras=blind), RNG).depth_maps.any()
    with pytest.raises(ValueError, match="the sample has no points and no cameras"):
        MakeDepthMaps()(Sample(), RNG)


@settings(deadline=None, max_examples=25, derandomize=True)
@given(st.lists(st.sampled_from(MOVES), max_size=6), st.booleans(), st.integers(0, 2**32 - 1))
def test_points_are_measured_where_they_are_seen(loaded: Sample, chain: list, vehicle: bool, seed: int) -> None:
    """Whatever moved images and points: each map holds the depths of the unmoved world, at the moved pixels."""
    rng = np.random.default_rng(seed)
    _, depths = loaded.cameras.project(loaded.points[:, :3])
    sample = loaded
    for transform in build_pipeline([*([ToVehicleFrame()] if vehicle else []), *chain, MakeDepthMaps()]):
        sample = transform(sample, rng)
    pixels, moved_depths = sample.cameras.project(sample.points[:, :3])
    torch.testing.assert_close(moved_depths, depths, atol=1e-3, rtol=1e-4)
    assert any(each.any() for each in sample.depth_maps)
    for camera in range(len(sample.cameras)):
        measured = sample.depth_maps[camera]
        assert list(measured.shape) == list(sample.images[camera].shape[1:])
        rows = sample.cameras.visible(sample.points[:, :3])[camera].nonzero()[:, 0][::7]
        u, v = pixels[camera, rows].long().unbind(-1)
        assert (measured[v, u] <= moved_depths[camera, rows].float() + 1e-3).all() and (measured[v, u] > 0).all()


# -- the vehicle's frame -----------------------------------------------------------------------------------------------


def test_the_vehicle_stands_on_the_ground_and_looks_ahead(frame: Frame, loaded: Sample) -> None:
    moved = ToVehicleFrame()(loaded, RNG)
    still = np.stack([camera.ego2global for camera in frame.cameras]).mean(axis=0)  # they differ by centimetres
    expected = np.linalg.inv(still) @ frame.lidar2global
    np.testing.assert_allclose(moved.lidar_aug, expected, atol=1e-3)
    np.testing.assert_allclose(moved.lidar_aug[:3, 3], frame.lidar2ego[:3, 3], atol=1.0)
    before, after = loaded.cameras.project(loaded.points[:, :3]), moved.cameras.project(moved.points[:, :3])
    torch.testing.assert_close(after[1], before[1], atol=1e-3, rtol=1e-4)
    assert torch.equal(moved.cameras.bev_aug, loaded.cameras.bev_aug)
    back = moved.as_recorded(moved.gt).boxes
    torch.testing.assert_close(back.centers, loaded.gt.boxes.centers, atol=1e-3, rtol=1e-5)
    turns = torch.remainder(back.yaws - loaded.gt.boxes.yaws + math.pi, 2 * math.pi) - math.pi
    assert turns.abs().max() < 1e-2  # boxes stay upright in both frames, which are tilted against each other


def test_augmentation_comes_after_it(loaded: Sample) -> None:
    turned = RandomRotate((0.3, 0.3))(ToVehicleFrame()(loaded, RNG), RNG)
    cos, sin = math.cos(0.3), math.sin(0.3)
    torch.testing.assert_close(turned.cameras.bev_aug[0, :2, :2], torch.tensor([[cos, -sin], [sin, cos]]).double())
    with pytest.raises(ValueError, match="ToVehicleFrame must come before"):
        ToVehicleFrame()(turned, RNG)


def test_without_recorded_cameras_the_lidars_time_counts(frame: Frame) -> None:
    moved = ToVehicleFrame()(Sample.from_frame(replace(frame, cameras=())), RNG)
    np.testing.assert_allclose(moved.lidar_aug, frame.lidar2ego, atol=1e-9)


def test_opposite_quaternions_are_one_rotation(frame: Frame) -> None:
    """Two cameras whose poses' quaternions have opposite signs: turned by just below and just above half a turn."""
    poses = []
    for angle in (math.pi - 0.01, math.pi + 0.01):
        pose = np.eye(4)
        pose[:2, :2] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
        poses.append(pose)
    cameras = tuple(replace(frame.cameras[0], ego2global=pose) for pose in poses)
    still = replace(frame, cameras=cameras, ego2global=np.eye(4), lidar2ego=np.eye(4))
    moved = ToVehicleFrame()(Sample.from_frame(still), RNG)
    np.testing.assert_allclose(moved.lidar_aug, np.diag([-1.0, -1, 1, 1]), atol=1e-9)
