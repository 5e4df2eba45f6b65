"""Samplers and class balance: draws carry their epoch, and the counts are the published ones."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from mmengine.dataset import DefaultSampler as PlainSampler
from mmengine.dataset import InfiniteSampler as PlainInfiniteSampler

from sparse3d.datasets import DefaultSampler, FrameIndex, InfiniteSampler, NuScenesDataset
from sparse3d.datasets.create import create_nuscenes_index
from sparse3d.datasets.nuscenes_schema import CATEGORY_TO_CLASS, DETECTION_CLASSES
from sparse3d.datasets.sampling import class_balanced_rows, shown_classes
from sparse3d.registry import DATA_SAMPLERS
from tests.conftest import REPOSITORY

SYNTH = REPOSITORY / "tests" / "data" / "golden" / "nuscenes_synth"


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    (path,) = create_nuscenes_index(SYNTH, "mini", splits=["mini_train"], out=tmp_path_factory.mktemp("index"))
    return path


# -- samplers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shuffle", [True, False])
def test_draws_are_the_plain_samplers_indices(shuffle: bool) -> None:
    data = range(11)
    ours, plain = DefaultSampler(data, shuffle, seed=4), PlainSampler(data, shuffle, seed=4)
    for epoch in (0, 3):
        ours.set_epoch(epoch)
        plain.set_epoch(epoch)
        assert [(draw, draw.epoch, draw.seed) for draw in ours] == [(item, epoch, 4) for item in plain]
    assert len(ours) == 11


def test_passes_of_the_infinite_sampler_are_epochs() -> None:
    draws = list(islice(InfiniteSampler(range(4), seed=4), 12))
    assert [int(draw) for draw in draws] == list(islice(PlainInfiniteSampler(range(4), seed=4), 12))
    assert [draw.epoch for draw in draws] == [0] * 4 + [1] * 4 + [2] * 4


def test_configs_name_our_samplers() -> None:
    for name, kind in (("DefaultSampler", DefaultSampler), ("InfiniteSampler", InfiniteSampler)):
        assert isinstance(DATA_SAMPLERS.build(dict(type=name, dataset=range(3), seed=0)), kind)


# -- class balance ----------------------------------------------------------------------------------------------------


def test_counts_by_hand() -> None:
    """Ten frames show the first class, four the second, one the third: each is drawn for a third of 15."""
    shows = np.zeros((10, 3), dtype=bool)
    shows[:, 0], shows[:4, 1], shows[7, 2] = True, True, True
    rows = class_balanced_rows(shows, np.random.default_rng(0))
    _, second, third = np.split(rows, [5, 10])
    assert len(rows) == 15
    assert set(second) <= set(range(4))
    assert set(third) == {7}
    assert (class_balanced_rows(shows, np.random.default_rng(0)) == rows).all()
    assert (class_balanced_rows(shows, np.random.default_rng(1)) != rows).any()


def test_counts_are_rounded_down() -> None:
    shows = np.ones((5, 3), dtype=bool)
    shows[0, 2] = False
    assert len(class_balanced_rows(shows, np.random.default_rng(0))) == sum(
        int(n * (1 / 3 / (n / 14))) for n in (5, 5, 4)
    )


def test_classes_that_no_frame_shows() -> None:
    shows = np.zeros((6, 4), dtype=bool)
    with pytest.raises(ValueError, match="no frame shows any of the classes"):
        class_balanced_rows(shows, np.random.default_rng(0))
    shows[2, 1] = True
    assert class_balanced_rows(shows, np.random.default_rng(0)).tolist() == []  # floor(1 / 4)
    shows[:, 3] = True
    assert len(class_balanced_rows(shows, np.random.default_rng(0))) == 2  # floor(7 / 4) for two of the four classes


@pytest.mark.parametrize("min_points", [0, 1, 4])
def test_shown_classes(index: Path, min_points: int) -> None:
    frames = FrameIndex(index, SYNTH)
    names = ["bus", *DETECTION_CLASSES[:3]]
    expected = np.zeros((len(frames), len(names)), dtype=bool)
    for row, frame in enumerate(frames):
        annotations = frame.annotations
        for category, points in zip(annotations.categories, annotations.num_lidar_points, strict=True):
            if CATEGORY_TO_CLASS.get(category) in names and points >= min_points:
                expected[row, names.index(CATEGORY_TO_CLASS[category])] = True
    assert expected.any()
    np.testing.assert_array_equal(shown_classes(frames, names, min_points), expected)
    np.testing.assert_array_equal(shown_classes(list(frames), names, min_points), expected)


def test_balanced_dataset(index: Path) -> None:
    plain = NuScenesDataset(SYNTH, index)
    balanced = NuScenesDataset(SYNTH, index, class_balanced=True)
    tokens = {frame.token for frame in plain.frames}
    assert len(balanced) != len(plain)
    assert {balanced.frame(item).token for item in range(len(balanced))} <= tokens
    assert (balanced.positions == NuScenesDataset(SYNTH, index, class_balanced=True).positions).all()
    part = NuScenesDataset(SYNTH, index, class_balanced=True, indices=[2])
    assert set(part.positions) == {2}
