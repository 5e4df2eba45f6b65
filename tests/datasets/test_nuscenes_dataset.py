"""The data set: built from a config, reproducible, picklable, and clear about which sample failed."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from sparse3d.datasets import Draw, NuScenesDataset, SampleError, write_index
from sparse3d.datasets.create import create_nuscenes_index
from sparse3d.datasets.nuscenes_schema import DETECTION_CLASSES
from sparse3d.registry import DATASETS
from sparse3d.structures import Sample
from tests.conftest import REPOSITORY

SYNTH = REPOSITORY / "tests" / "data" / "golden" / "nuscenes_synth"
LOAD = [dict(type="LoadPoints", sweeps=2), dict(type="LoadAnnotations", class_names=DETECTION_CLASSES)]


class _Draw:
    """Records the generator's next number in the sample."""

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        return sample.replace(draw=torch.tensor(rng.random(), dtype=torch.float64))


def _fail(sample: Sample, rng: np.random.Generator) -> Sample:
    raise ValueError("no reason")


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    (path,) = create_nuscenes_index(SYNTH, "mini", splits=["mini_val"], out=tmp_path_factory.mktemp("index"))
    return path


def _draws(dataset: NuScenesDataset, workers: int) -> list[float]:
    loader = DataLoader(dataset, batch_size=1, num_workers=workers, collate_fn=lambda samples: samples[0].draw.item())
    return list(loader)


def test_from_a_config(index: Path) -> None:
    dataset = DATASETS.build(
        dict(type="NuScenesDataset", data_root=str(SYNTH), index=str(index), pipeline=LOAD, class_names=["car", "bus"])
    )
    assert len(dataset) == 4
    assert dataset.metainfo == {"dataset_type": "nuscenes", "classes": ("car", "bus")}
    sample = dataset[1]
    assert sample.points.shape[1] == 5
    assert sample.frame.token == dataset.frame(1).token
    assert len(sample.gt.boxes) == len(sample.gt.labels) == len(sample.gt.num_points) > 0


def test_index_relative_to_the_root(index: Path, tmp_path: Path) -> None:
    (tmp_path / "some.arrow").write_bytes(index.read_bytes())
    assert len(NuScenesDataset(tmp_path, "some.arrow")) == 4


def test_min_points(index: Path, tmp_path: Path) -> None:
    frame = NuScenesDataset(SYNTH, index).frame(0)
    annotations = replace(frame.annotations, num_lidar_points=np.arange(24) % 4)
    write_index(tmp_path / "varied.arrow", [replace(frame, annotations=annotations)], {}, SYNTH)
    everything = NuScenesDataset(SYNTH, tmp_path / "varied.arrow", pipeline=LOAD)[0].gt
    dense = NuScenesDataset(SYNTH, tmp_path / "varied.arrow", pipeline=LOAD, min_points=2)[0].gt
    wanted = everything.num_points >= 2
    assert 0 < wanted.sum() < len(wanted)
    assert dense.num_points.tolist() == everything.num_points[wanted].tolist()
    assert dense.labels.tolist() == everything.labels[wanted].tolist()
    assert torch.equal(dense.boxes.tensor, everything.boxes.tensor[wanted])


@pytest.mark.parametrize(("indices", "rows"), [(None, [0, 1, 2, 3]), (2, [0, 1]), ([3, 1], [3, 1]), ([], [])])
def test_subsets(index: Path, indices: int | list[int] | None, rows: list[int]) -> None:
    tokens = [frame.token for frame in NuScenesDataset(SYNTH, index).frames]
    subset = NuScenesDataset(SYNTH, index, indices=indices)
    assert [subset.frame(row).token for row in range(len(subset))] == [tokens[row] for row in rows]


@pytest.mark.parametrize("indices", [5, [4], [-1]])
def test_refused_subsets(index: Path, indices: int | list[int]) -> None:
    with pytest.raises(ValueError, match=r"indices must lie in \[0, 4\)"):
        NuScenesDataset(SYNTH, index, indices=indices)


def test_end_of_iteration(index: Path) -> None:
    assert len(list(NuScenesDataset(SYNTH, index))) == 4


def test_draws_follow_seed_epoch_and_item(index: Path) -> None:
    dataset = NuScenesDataset(SYNTH, index, pipeline=[_Draw()])
    draws = [dataset[Draw(item, epoch, seed)].draw.item() for item in (0, 1) for epoch in (0, 1) for seed in (0, 1)]
    assert len(set(draws)) == 8
    assert dataset[1].draw.item() == dataset[Draw(1)].draw.item() == draws[4]
    other = NuScenesDataset(SYNTH, index, pipeline=[_Draw()], seed=5)
    assert other[0].draw.item() not in draws
    assert dataset[Draw(0, epoch=7)].epoch == 7


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_and_earlier_epochs_do_not_matter(index: Path, workers: int) -> None:
    """A run that begins at epoch 1 draws what an uninterrupted one draws there; persistent workers see the epoch."""
    dataset = NuScenesDataset(SYNTH, index, pipeline=[_Draw()])
    expected = [[dataset[Draw(item, epoch, 3)].draw.item() for item in range(4)] for epoch in range(3)]
    config = dict(
        dataset=dataset,
        sampler=dict(type="DefaultSampler", shuffle=True, _scope_="sparse3d"),
        batch_size=2,
        num_workers=workers,
        persistent_workers=workers > 0,
        collate_fn=dict(type="pseudo_collate"),
    )
    for start in (0, 1):
        torch.manual_seed(start)
        loader = Runner.build_dataloader(config, seed=3)
        for epoch in range(start, 3):
            loader.sampler.set_epoch(epoch)
            samples = [sample for batch in loader for sample in batch]
            tokens = [frame.token for frame in dataset.frames]
            found = {tokens.index(sample.frame.token): sample.draw.item() for sample in samples}
            assert [found[item] for item in range(4)] == expected[epoch]
            assert all(sample.epoch == epoch for sample in samples)


def test_test_draws_depend_on_the_sample_alone(index: Path) -> None:
    dataset = NuScenesDataset(SYNTH, index, pipeline=[_Draw()], test_mode=True)
    draws = _draws(dataset, workers=0)
    assert len(set(draws)) == 4
    assert draws == _draws(dataset, workers=2)
    assert draws == [dataset[Draw(item, epoch=2, seed=4)].draw.item() for item in range(4)]
    reordered = NuScenesDataset(SYNTH, index, pipeline=[_Draw()], test_mode=True, indices=[2, 0])
    assert _draws(reordered, workers=0) == [draws[2], draws[0]]


def test_survives_pickling(index: Path) -> None:
    dataset = pickle.loads(pickle.dumps(NuScenesDataset(SYNTH, index, pipeline=LOAD, test_mode=True)))
    assert len(dataset[3].points) > 0


def test_errors_name_the_sample(index: Path) -> None:
    dataset = NuScenesDataset(SYNTH, index, pipeline=[_Draw(), _fail])
    frame = dataset.frame(2)
    with pytest.raises(
        SampleError, match=f"sample {frame.token} .*{Path(frame.lidar.path).name}.*_fail: no reason"
    ) as caught:
        dataset[2]
    assert isinstance(caught.value.__cause__, ValueError)


def test_errors_survive_the_worker(index: Path) -> None:
    loader = DataLoader(NuScenesDataset(SYNTH, index, pipeline=[_fail]), batch_size=None, num_workers=1)
    with pytest.raises(SampleError, match="_fail: no reason"):
        next(iter(loader))


def test_missing_sensor_file(index: Path, tmp_path: Path) -> None:
    dataset = NuScenesDataset(tmp_path, index, pipeline=LOAD)
    with pytest.raises(SampleError, match=r"LoadPoints: .*if the data moved, pass the new data_root"):
        dataset[0]


def test_refused_arguments(index: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="seed is at least 0, interval at least 1"):
        NuScenesDataset(SYNTH, index, seed=-1)
    with pytest.raises(ValueError, match="seed is at least 0, interval at least 1"):
        NuScenesDataset(SYNTH, index, interval=0)
    with pytest.raises(FileNotFoundError, match="there is no index; create it"):
        NuScenesDataset(tmp_path, "none.arrow")


def test_recorded_frame(shared: Path) -> None:
    folder = shared / "data" / "nuscenes_frame"
    pipeline = [*LOAD, dict(type="LoadImages")]
    dataset = NuScenesDataset(folder, next(folder.glob("*.pkl")).name, pipeline=pipeline)
    sample = dataset[0]
    assert sample.points.shape == (34688, 5)
    assert sample.images.shape == (6, 3, 900, 1600)
    assert len(sample.gt.boxes) == 68


def test_every_so_many_th_frame(index: Path) -> None:
    everything = NuScenesDataset(SYNTH, index)
    some = NuScenesDataset(SYNTH, index, interval=3)
    tokens = [everything.frame(item).token for item in range(len(everything))]
    assert [some.frame(item).token for item in range(len(some))] == tokens[::3]
