"""The same boxes whatever the input's form: a frame, a sample, points, files, a batch, a stream."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from sparse3d import Detector, camera_sample
from sparse3d.config import load_config
from sparse3d.datasets import NuScenesDataset, write_index
from sparse3d.datasets.nuscenes_frames import scene_frames
from sparse3d.datasets.nuscenes_tables import load_tables
from sparse3d.datasets.transforms import LoadPoints
from sparse3d.engine import CheckpointError
from sparse3d.registry import MODELS
from sparse3d.results import NamedDetections
from sparse3d.scan_stream import ScanStream
from sparse3d.structures import Frame, Sample
from sparse3d.zoo import find_config
from tests.conftest import REPOSITORY

SYNTH = REPOSITORY / "tests" / "data" / "golden" / "nuscenes_synth"
LIDAR, CAMERA = "pillar_tiny", "sparsebev_r18_demo"
LIDAR_OPTIONS = {"model.head.decoder.score_threshold": 0.0, "model.head.decoder.max_per_sample": 40}
CAMERA_OPTIONS = {
    "image_size": [64, 96], "num_queries": 12, "past": [0.5], "num_frames": 2, "model.head.num_layers": 1,
    "model.image_branch.backbone.base_channels": 8, "model.image_branch.neck.in_channels": [8, 16, 32, 64],
    "model.head.decoder.score_threshold": 0.0,
}  # fmt: skip


def make(folder: Path, name: str, options: dict) -> Detector:
    """A detector with random weights, read from a file."""
    torch.manual_seed(0)
    model = MODELS.build(load_config(find_config(name), options).model)
    for module in model.modules():  # running statistics that differ from those of a new model
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_var.uniform_(0.5, 2.0)
    path = folder / f"{name}.pth"
    torch.save({"state_dict": model.state_dict()}, path)
    return Detector(name, path, options=options)


@pytest.fixture(scope="module")
def lidar(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    return make(tmp_path_factory.mktemp("weights"), LIDAR, LIDAR_OPTIONS)


@pytest.fixture(scope="module")
def camera(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    return make(tmp_path_factory.mktemp("weights"), CAMERA, CAMERA_OPTIONS)


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    return list(scene_frames(load_tables(SYNTH / "v1.0-mini", ["scene-0061"]), "scene-0061", SYNTH))


def same(found: NamedDetections, expected: NamedDetections, tolerance: float = 0.0) -> None:
    assert len(found) == len(expected) > 0
    torch.testing.assert_close(found.boxes.tensor, expected.boxes.tensor, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(found.scores, expected.scores, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(found.labels, expected.labels)


def key_points(frame: Frame) -> torch.Tensor:
    """The columns of training, of the key frame alone."""
    return LoadPoints(sweeps=0)(Sample.from_frame(frame), np.random.default_rng(0)).points


# -- points -----------------------------------------------------------------------------------------------------------


def test_a_frame_gives_what_testing_gives(lidar: Detector, frames: list[Frame], tmp_path: Path) -> None:
    write_index(tmp_path / "index.arrow", frames, {}, SYNTH)
    pipeline = lidar.config.test_dataloader.dataset.pipeline
    sample = NuScenesDataset(SYNTH, tmp_path / "index.arrow", pipeline=pipeline, test_mode=True)[1]
    with torch.no_grad():
        expected = NamedDetections.of(lidar.model.test_step([sample])[0].pred, lidar.class_names)
    found = lidar(frames[1])
    same(found, expected)
    assert found.class_names == tuple(lidar.config.class_names) and found.frame is frames[1]
    assert found.to_nuscenes()[0]["sample_token"] == frames[1].token
    same(lidar(sample), expected)


def test_points_in_every_form(lidar: Detector, frames: list[Frame], tmp_path: Path) -> None:
    points = key_points(frames[0])
    expected = lidar(points)
    same(lidar(points.numpy()), expected)
    same(lidar(points[:, :4]), expected)  # a scan as recorded has no time lag yet
    same(lidar(frames[0].lidar.path), expected)
    np.save(tmp_path / "scan.npy", points)
    same(lidar(tmp_path / "scan.npy"), expected)
    assert expected.frame is None


def test_many_inputs_come_back_in_order(lidar: Detector, frames: list[Frame]) -> None:
    inputs = [frames[0], key_points(frames[1]), frames[0].lidar.path, torch.zeros(0, 5)]
    found = lidar(inputs, batch_size=3)
    for one, item in zip(found, inputs, strict=True):
        same(one, lidar(item), tolerance=1e-5)
    assert lidar([]) == []


def test_what_is_no_input_is_refused(lidar: Detector, frames: list[Frame], tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="expected points"):
        lidar([3])
    with pytest.raises(ValueError, match=r"expected \[P, 5\] float32"):
        lidar(torch.zeros(3, 7))
    with pytest.raises(FileNotFoundError, match="no such point file"):
        lidar(tmp_path / "none.pcd")
    with pytest.raises(FileNotFoundError, match=r"near are .*pillar_tiny"):
        Detector("pilar_tiny", tmp_path)
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        Detector(LIDAR, tmp_path)
    (tmp_path / "other.pth").touch()
    torch.save({"state_dict": {"wrong": torch.zeros(1)}}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="unexpected wrong"):
        Detector(LIDAR, tmp_path / "other.pth")


# -- streams ----------------------------------------------------------------------------------------------------------


def test_a_stream_of_scans_equals_their_sweeps(frames: list[Frame]) -> None:
    frame = next(each for each in frames if each.sweeps)
    load = LoadPoints(sweeps=len(frame.sweeps))
    expected = load(Sample.from_frame(frame), np.random.default_rng(0)).points
    stream = ScanStream(load)
    for scan in [*reversed(frame.sweeps), frame.lidar]:
        raw = torch.from_numpy(np.fromfile(scan.path, np.float32).reshape(-1, 5)[:, :4])
        record = Frame("", "", scan.timestamp, scan, (), (), np.eye(4), frame.lidar2global @ scan.lidar2key, None)
        points = stream(raw, record)
    torch.testing.assert_close(points, expected, atol=1e-4, rtol=1e-5)


def test_a_detector_on_a_stream_of_scans(lidar: Detector, frames: list[Frame]) -> None:
    stream = lidar.stream()
    same(stream(frames[0]), lidar(key_points(frames[0])))
    raw = key_points(frames[1])[:, :4]
    second = stream(raw, frames[0].timestamp + 50_000, frames[0].lidar2global)
    points = torch.cat(
        [key_points(frames[1]), torch.nn.functional.pad(key_points(frames[0])[:, :4], (0, 1), value=0.05)]
    )
    far = (points[:, :2].abs() >= 1).any(dim=1) | (points[:, 4] == 0)
    same(second, lidar(points[far]), tolerance=1e-4)
    late = stream(raw, frames[0].timestamp + 5_000_000)
    same(late, lidar(raw))  # five seconds later nothing of the past counts
    with pytest.raises(ValueError, match="needs its time"):
        stream(raw)


def test_a_camera_stream(camera: Detector, frames: list[Frame]) -> None:
    stream = camera.stream()
    same(stream(frames[0]), camera(frames[0]))
    assert not torch.equal(stream(frames[1]).boxes.tensor, camera(frames[1]).boxes.tensor)  # it remembers


# -- cameras ----------------------------------------------------------------------------------------------------------


def rig(frame: Frame, names: list[str]) -> tuple[dict, dict]:
    chosen = {each.name: each for each in frame.cameras if each.name in names}
    calibration = {
        name: dict(intrinsic=each.intrinsic.tolist(), lidar2cam=each.lidar2cam.tolist(),
                   delay=(each.timestamp - frame.lidar.timestamp) * 1e-6)
        for name, each in chosen.items()
    }  # fmt: skip
    return {name: each.path for name, each in chosen.items()}, calibration


def test_images_in_any_order_equal_the_frame(camera: Detector, frames: list[Frame]) -> None:
    paths, calibration = rig(frames[0], [each.name for each in frames[0].cameras])
    shuffled = dict(sorted(paths.items()))
    same(camera(camera_sample(shuffled, calibration)), camera(frames[0]), tolerance=1e-4)


def test_a_camera_may_be_missing(camera: Detector, frames: list[Frame]) -> None:
    kept = [each for each in frames[0].cameras if each.name != "CAM_BACK"]
    without = Frame(**{**vars(frames[0]), "cameras": tuple(kept)})
    found = camera(camera_sample(*rig(frames[0], [each.name for each in kept])))
    same(found, camera(without), tolerance=1e-4)


def test_bad_rigs_are_named(camera: Detector, frames: list[Frame]) -> None:
    paths, calibration = rig(frames[0], ["CAM_FRONT"])
    with pytest.raises(ValueError, match="no calibration for"):
        camera_sample({**paths, "CAM_LEFT": "x.jpg"}, calibration)
    with pytest.raises(ValueError, match=r"expected \[H, W, 3\] uint8"):
        camera_sample({"CAM_FRONT": np.zeros((4, 4))}, calibration)
    with pytest.raises(ValueError, match="none of the cameras"):
        camera(camera_sample({"OTHER": next(iter(paths.values()))}, {"OTHER": calibration["CAM_FRONT"]}))


def test_importing_the_package_is_cheap(python: str) -> None:
    code = "import sparse3d, sys; assert not {'torch', 'mmengine', 'numpy'} & set(sys.modules), 'heavy'"
    assert subprocess.run([python, "-c", code], cwd=REPOSITORY).returncode == 0
