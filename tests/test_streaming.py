"""A stream of frames: the same boxes as with all frames at hand, and a new beginning where it breaks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sparse3d.datasets import NuScenesDataset, write_index
from sparse3d.datasets.nuscenes_frames import scene_frames
from sparse3d.datasets.nuscenes_tables import load_tables
from sparse3d.datasets.transforms import Compose, CropImages, LoadImages, ResizeImages, ToVehicleFrame
from sparse3d.models import Detector3D
from sparse3d.registry import MODELS
from sparse3d.streaming import FrameStream
from sparse3d.structures import Frame, Sample
from tests.conftest import REPOSITORY
from tests.models import mv2d
from tests.models import test_matrixvt as matrixvt

SYNTH = REPOSITORY / "tests" / "data" / "golden" / "nuscenes_synth"
AGES = (0.5, 1.0)
PIPELINE = [LoadImages(), ResizeImages(cover=(64, 96)), CropImages((64, 96))]
CLASSES = ["car", "truck"]


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    return list(scene_frames(load_tables(SYNTH / "v1.0-mini", ["scene-0061"]), "scene-0061", SYNTH))


@pytest.fixture(scope="module")
def detector() -> Detector3D:
    torch.manual_seed(0)
    return MODELS.build(
        dict(
            type="Detector3D",
            data_preprocessor=dict(type="Preprocessor", images=dict()),
            image_branch=dict(
                type="ImageBranch",
                backbone=dict(type="ResNet", base_channels=4, out_stages=(1,)),
                neck=dict(type="FPN", in_channels=[32], out_channels=16, num_outs=1),
            ),
            head=dict(
                type="SparseBEVHead",
                grid=dict(point_range=[-51.2, -51.2, -5, 51.2, 51.2, 3], voxel_size=[0.2, 0.2, 8]),
                class_names=CLASSES,
                decoder=dict(center_range=[-99] * 3 + [99] * 3, score_threshold=0.0),
                num_queries=9,
                num_frames=1 + len(AGES),
                channels=16,
                num_layers=2,
                layer=dict(num_points=2, num_levels=1, num_groups=2, num_heads=2, mixing=dict(out_points=8)),
            ),
        )
    ).eval()


def offline(
    detector: Detector3D, frames: Sequence[Frame], folder: Path, ages: Sequence[float] = AGES
) -> list[torch.Tensor]:
    write_index(folder / "index.arrow", frames, {}, SYNTH)
    dataset = NuScenesDataset(SYNTH, folder / "index.arrow", past=ages, pipeline=PIPELINE)
    with torch.no_grad():
        return [detector.test_step([dataset[n]])[0].pred.boxes.tensor for n in range(len(dataset))]


def load(frame: Frame) -> Sample:
    return Compose(PIPELINE)(Sample.from_frame(frame), np.random.default_rng(0))


def retimed(frames: Sequence[Frame], seconds: Sequence[float], scene: str = "a") -> list[Frame]:
    """The frames in a row, at other times: the LiDAR's and the cameras' move along."""
    return [_at(frame, round(time * 1e6), scene) for frame, time in zip(frames, seconds, strict=True)]


def _at(frame: Frame, time: int, scene: str) -> Frame:
    shift = time - frame.timestamp
    cameras = tuple(replace(each, timestamp=each.timestamp + shift) for each in frame.cameras)
    lidar = replace(frame.lidar, timestamp=frame.lidar.timestamp + shift)
    return replace(frame, scene=scene, timestamp=time, lidar=lidar, cameras=cameras)


def test_a_stream_equals_what_is_computed_offline(detector: Detector3D, frames: list[Frame], tmp_path: Path) -> None:
    many = (frames * 3)[:6]
    regular = retimed(many, [0.0, 0.5, 1.0, 1.5, 2.0, 2.5])
    stream = FrameStream(detector, AGES)
    for frame, expected in zip(regular, offline(detector, regular, tmp_path), strict=True):
        found = stream(load(frame)).pred.boxes.tensor
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)
        assert stream.restart is None
    assert len(stream._seen) == 3  # no more than can be asked for


def test_boxes_in_images_are_remembered_too(frames: list[Frame], tmp_path: Path) -> None:
    detector = mv2d.detector(**mv2d.TWO_FRAMES).eval()
    regular = retimed((frames * 2)[:3], [0.0, 0.5, 1.0])
    stream = FrameStream(detector, ages=(0.5,))
    for frame, expected in zip(regular, offline(detector, regular, tmp_path, ages=(0.5,)), strict=True):
        found = stream(load(frame)).pred.boxes.tensor
        assert len(found) > 0
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


def test_missing_frames_and_uneven_steps_are_bridged_as_offline(
    detector: Detector3D, frames: list[Frame], tmp_path: Path
) -> None:
    uneven = retimed((frames * 3)[:5], [0.0, 0.5, 1.4, 1.5, 2.45])
    stream = FrameStream(detector, AGES)
    for frame, expected in zip(uneven, offline(detector, uneven, tmp_path), strict=True):
        torch.testing.assert_close(stream(load(frame)).pred.boxes.tensor, expected, atol=1e-3, rtol=1e-3)
        assert stream.restart is None


@pytest.mark.parametrize(
    ("seconds", "scenes", "reason"),
    [
        ([0.0, 0.5, 1.0], "aab", "scene b after a"),
        ([0.0, 0.5, 0.2], "aaa", "0.300 s before the last one"),
        ([0.0, 0.5, 0.5], "aaa", "0.000 s before the last one"),
        ([0.0, 0.5, 4.0], "aaa", "3.500 s without a frame"),
    ],
)
def test_a_broken_stream_begins_anew(
    detector: Detector3D, frames: list[Frame], seconds: list[float], scenes: str, reason: str
) -> None:
    row = [
        _at(frame, round(time * 1e6), scene) for frame, time, scene in zip(frames * 3, seconds, scenes, strict=False)
    ]
    stream, fresh = FrameStream(detector, AGES), FrameStream(detector, AGES)
    for frame in row:
        last = stream(load(frame))
    assert reason in stream.restart and len(stream._seen) == 1
    assert torch.equal(last.pred.boxes.tensor, fresh(load(row[-1])).pred.boxes.tensor)


def test_what_a_stream_cannot_do_is_named(detector: Detector3D, frames: list[Frame]) -> None:
    with pytest.raises(ValueError, match="no frames after the present one"):
        FrameStream(detector, (0.5, -0.5))
    with pytest.raises(ValueError, match="load it without `past`"):
        FrameStream(detector, AGES)(load(frames[0]).replace(past=(frames[0],)))


def test_a_detector_of_one_frame_streams_too(frames: list[Frame]) -> None:
    """It keeps nothing; its boxes come back from the frame of the vehicle."""
    torch.manual_seed(0)
    from_above = matrixvt.detector().eval()
    stream, pipeline = FrameStream(from_above, ages=()), Compose([*PIPELINE[:1], ToVehicleFrame(), *PIPELINE[1:]])
    for frame in frames[:2]:
        sample = pipeline(Sample.from_frame(frame), np.random.default_rng(0))
        found, [expected] = stream(sample).pred, from_above.test_step([sample])
        torch.testing.assert_close(found.boxes.tensor, expected.pred.boxes.tensor)
        assert len(found.boxes) and torch.equal(found.labels, expected.pred.labels)
