"""Bad data: each kind gives one error that names sample, file and what is wrong; `skip_bad` goes on and lists it."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from torch.utils.data import DataLoader

from sparse3d.datasets import (
    FrameIndex,
    NuScenesDataset,
    SampleError,
    SkippedSamplesHook,
    skipped_samples,
    write_index,
)
from sparse3d.datasets.create import create_nuscenes_index
from sparse3d.datasets.nuscenes_schema import DETECTION_CLASSES
from sparse3d.models.preprocessor import Preprocessor
from sparse3d.registry import HOOKS
from sparse3d.structures import Frame
from tests.conftest import REPOSITORY

SYNTH = REPOSITORY / "tests" / "data" / "golden" / "nuscenes_synth"
PIPELINE = [
    dict(type="LoadPoints", sweeps=2),
    dict(type="LoadAnnotations", class_names=DETECTION_CLASSES),
    dict(type="LoadImages"),
]
BAD = 1  # the frame that is damaged


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root with the sensor files and an index of the validation scene."""
    root = tmp_path / "root"
    for folder in ("samples", "sweeps"):
        shutil.copytree(SYNTH / folder, root / folder)
    create_nuscenes_index(SYNTH, "mini", splits=["mini_val"], out=root)
    return root


def _dataset(root: Path, **arguments: object) -> NuScenesDataset:
    return NuScenesDataset(root, "sparse3d_mini_val.arrow", pipeline=PIPELINE, **arguments)


def _rewrite(root: Path, change: Callable[[Frame], Frame]) -> None:
    """Write the index anew with one frame changed."""
    path = root / "sparse3d_mini_val.arrow"
    frames = list(FrameIndex(path, root))
    frames[BAD] = change(frames[BAD])
    path.unlink()
    write_index(path, frames, {}, root)


def _lidar(root: Path) -> Path:
    return Path(_dataset(root).frame(BAD).lidar.path)


def _image(root: Path) -> Path:
    return Path(_dataset(root).frame(BAD).cameras[2].path)


# -- the damages ------------------------------------------------------------------------------------------------------


def cut_off_scan(root: Path) -> str:
    path = _lidar(root)
    path.write_bytes(path.read_bytes()[:-7])
    return rf"{path.name}: \d+ bytes are no whole number of points of 5 float32; is it cut off"


def cut_off_sweep(root: Path) -> str:
    path = Path(_dataset(root).frame(BAD).sweeps[0].path)
    path.write_bytes(path.read_bytes()[:30])
    return rf"{path.name}: 30 bytes are no whole number of points"


def missing_scan(root: Path) -> str:
    _lidar(root).unlink()
    return r"no such LiDAR file; if the data moved, pass the new data_root"


def nan_points(root: Path) -> str:
    points = np.fromfile(_lidar(root), dtype=np.float32).reshape(-1, 5)
    points[[3, 9], 2] = np.nan
    points.tofile(_lidar(root))
    return r"2 points hold NaN or infinity, the first is point 3"


def wrong_columns(root: Path) -> str:
    _rewrite(root, lambda frame: replace(frame, lidar=replace(frame.lidar, num_features=4)))
    return r"4 values a point, num_features is 5"


def missing_image(root: Path) -> str:
    path = _image(root)
    path.unlink()
    return rf"{path.name}: no such image"


def cut_off_image(root: Path) -> str:
    path = _image(root)
    path.write_bytes(path.read_bytes()[:-2000])
    return rf"{path.name}: the image is cut off"


def empty_image(root: Path) -> str:
    _image(root).write_bytes(b"")
    return r"no readable image"


def _box(column: int, value: float) -> Callable[[Path], str]:
    def damage(root: Path) -> str:
        def change(frame: Frame) -> Frame:
            boxes = frame.annotations.boxes.copy()
            boxes[2, column] = value
            return replace(frame, annotations=replace(frame.annotations, boxes=boxes))

        token = _dataset(root).frame(BAD).annotations.tokens[2]
        _rewrite(root, change)
        return rf"1 boxes have no positive, finite size or place; the first is annotation 2 \({token}, .*{value}"

    return damage


def missing_calibration(root: Path) -> str:
    def change(frame: Frame) -> Frame:
        cameras = list(frame.cameras)
        cameras[3] = replace(cameras[3], intrinsic=np.zeros((3, 3)))
        return replace(frame, cameras=tuple(cameras))

    _rewrite(root, change)
    return r"the calibration of CAM_BACK is missing: intrinsic = "


def missing_sweep_pose(root: Path) -> str:
    def change(frame: Frame) -> Frame:
        lost = replace(frame.sweeps[1], lidar2key=np.full((4, 4), np.nan))
        return replace(frame, sweeps=(frame.sweeps[0], lost, *frame.sweeps[2:]))

    _rewrite(root, change)
    return r"its calibration is missing: lidar2key is not finite"


DAMAGES = {
    "cut off scan": cut_off_scan,
    "cut off sweep": cut_off_sweep,
    "missing scan": missing_scan,
    "NaN points": nan_points,
    "wrong number of columns": wrong_columns,
    "missing image": missing_image,
    "cut off image": cut_off_image,
    "empty image": empty_image,
    "box without width": _box(4, 0.0),
    "box of negative length": _box(3, -4.5),
    "box nowhere": _box(0, float("nan")),
    "missing calibration": missing_calibration,
    "missing pose of a sweep": missing_sweep_pose,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_one_error_with_names(root: Path, damage: Callable[[Path], str]) -> None:
    message = damage(root)
    dataset = _dataset(root)
    frame = dataset.frame(BAD)
    with pytest.raises(SampleError) as caught:
        dataset[BAD]
    assert re.search(message, str(caught.value))
    assert str(caught.value).startswith(f"sample {frame.token} ({frame.lidar.path}): Load")
    assert "\n" not in str(caught.value)
    assert len(dataset[0].points) > 0  # the others are well


# -- going on ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_skip_bad_goes_on_and_lists(root: Path, workers: int, caplog: pytest.LogCaptureFixture) -> None:
    missing_image(root)
    dataset = _dataset(root, skip_bad=True)
    reason = _reason(root)
    loader = DataLoader(dataset, batch_size=2, num_workers=workers, collate_fn=pseudo_collate)
    hook = HOOKS.build(dict(type="SkippedSamplesHook"))
    runner = SimpleNamespace(logger=logging.getLogger("runner"))
    tokens = []
    with caplog.at_level("WARNING"):
        for _ in range(2):
            for number, batch in enumerate(loader):
                hook.after_train_iter(runner, number, batch)
                tokens += [sample.frame.token for sample in batch]
                assert skipped_samples(batch) == ([reason] if number == 0 else [])
        hook.after_train(runner)
    expected = [dataset.frame(item).token for item in (0, 2, 2, 3)]
    assert tokens == expected * 2
    assert caplog.text.count(f"skipped: {reason}") == 1
    assert f"skip_bad: 1 samples could not be loaded, others stood in for them\n  {reason}" in caplog.text
    assert isinstance(hook, SkippedSamplesHook)


def _reason(root: Path) -> str:
    with pytest.raises(SampleError) as caught:
        _dataset(root)[BAD]
    return str(caught.value)


def test_nothing_skipped_nothing_listed(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    samples = [_dataset(root, skip_bad=True)[item] for item in range(4)]
    hook, runner = SkippedSamplesHook(), SimpleNamespace(logger=logging.getLogger("runner"))
    with caplog.at_level("WARNING"):
        hook.after_test_iter(runner, 0, samples)
        hook.after_test(runner)
    assert caplog.text == ""


def test_stand_ins_draw_as_themselves(root: Path) -> None:
    """A sample is the same whether it was asked for or stands in."""
    missing_image(root)
    dataset = _dataset(root, skip_bad=True, test_mode=True)
    assert torch.equal(dataset[BAD].points, dataset[BAD + 1].points)
    assert len(dataset[BAD].skipped) == 1
    assert dataset[BAD + 1].skipped == ()


def test_skip_bad_does_not_hide_a_missing_data_set(root: Path) -> None:
    shutil.rmtree(root / "samples")
    with pytest.raises(SampleError, match=r"4 samples in a row could not be loaded; the first: sample .*no such LiDAR"):
        _dataset(root, skip_bad=True)[0]


def test_uneven_batches_with_an_empty_cloud(root: Path) -> None:
    _lidar(root).write_bytes(b"")
    pipeline = [dict(type="LoadPoints"), PIPELINE[1]]
    dataset = NuScenesDataset(root, "sparse3d_mini_val.arrow", pipeline=pipeline, indices=[0, 1, 2])
    grid = dict(point_range=[-51.2, -51.2, -5, 51.2, 51.2, 3], voxel_size=[0.8, 0.8, 8])
    preprocessor = Preprocessor(grid, num_features=5)
    batches = [preprocessor(samples)["batch"] for samples in DataLoader(dataset, 2, collate_fn=pseudo_collate)]
    assert [batch.batch_size for batch in batches] == [2, 1]
    counts = torch.bincount(batches[0].batch_index, minlength=2).tolist()
    assert counts[0] > 0 and counts[1] == 0
    assert len(batches[1].voxels.coords) > 0
