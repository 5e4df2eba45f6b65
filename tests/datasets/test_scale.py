"""A data set of nuScenes' full size: the index opens at once, and a worker's memory does not depend on its length."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader, Dataset

from sparse3d.datasets import FrameIndex, NuScenesDataset, write_index
from sparse3d.datasets.index import merge_indexes
from sparse3d.datasets.nuscenes_frames import scene_frames
from sparse3d.datasets.nuscenes_tables import load_tables
from tests.conftest import REPOSITORY

SYNTH = REPOSITORY / "tests" / "data" / "golden" / "nuscenes_synth"
SCENES, FRAMES_PER_SCENE = 700, 40  # nuScenes' training split: 28130 frames
MEMORY = Path("/proc/self/smaps_rollup")


@pytest.fixture(scope="module")
def indexes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """The index of one scene, and one of as many frames as the training split of nuScenes has."""
    folder = tmp_path_factory.mktemp("scale")
    tables = load_tables(SYNTH / "v1.0-mini", ["scene-0061"])
    frame = list(scene_frames(tables, "scene-0061", SYNTH))[3]
    small, large = folder / "small.arrow", folder / "large.arrow"
    write_index(small, (replace(frame, token=str(row)) for row in range(FRAMES_PER_SCENE)), {}, SYNTH)
    merge_indexes(large, [small] * SCENES, {})
    with large.open("rb") as file:
        os.fsync(file.fileno())  # pages that wait to be written would count as a process's own
    yield small, large
    large.unlink()  # some hundred megabytes


def test_the_full_index_opens_in_under_a_second(indexes: tuple[Path, Path]) -> None:
    start = time.perf_counter()
    index = FrameIndex(indexes[1], SYNTH)
    frame = index[20_000]
    assert time.perf_counter() - start < 1
    assert len(index) == SCENES * FRAMES_PER_SCENE
    assert len(frame.sweeps) == 10 and len(frame.cameras) == 6 and len(frame.annotations) == 24


def test_class_balance_of_the_full_index_takes_seconds(indexes: tuple[Path, Path]) -> None:
    start = time.perf_counter()
    dataset = NuScenesDataset(SYNTH, indexes[1], class_balanced=True)
    assert time.perf_counter() - start < 10
    assert len(dataset) > SCENES * FRAMES_PER_SCENE / 2


class _Growth(Dataset):
    """An item is the memory of its own, in kB, that a worker gained by reading frames from all over an index."""

    def __init__(self, path: Path) -> None:
        self.dataset = NuScenesDataset(SYNTH, path)

    def __len__(self) -> int:
        return 1

    def __getitem__(self, item: int) -> int:
        rows = np.random.default_rng(0).integers(0, len(self.dataset), 1500)
        self._read(rows[:20])  # what the first frames cost is not growth
        before = _private_kilobytes()
        self._read(rows)
        return _private_kilobytes() - before

    def _read(self, rows: np.ndarray) -> None:
        for row in rows:
            self.dataset[int(row)]


def _private_kilobytes() -> int:
    """Return the memory that this process alone has written to; pages of mapped files and of its parent are others'."""
    return sum(int(line.split()[1]) for line in MEMORY.read_text().splitlines() if line.startswith("Private_Dirty"))


@pytest.mark.skipif(not MEMORY.exists(), reason="reads the memory of a process from Linux's /proc")
def test_memory_of_a_worker_does_not_grow_with_the_data(indexes: tuple[Path, Path]) -> None:
    small, large = (next(iter(DataLoader(_Growth(path), batch_size=None, num_workers=1))) for path in indexes)
    assert large < small + 4_000
