"""The package as others meet it: alone, in data-loader workers, in forked processes."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

import sparse3d_ops
from sparse3d_ops import Segments, iou_3d, segment_max, voxelize
from sparse3d_ops._numba import threads
from sparse3d_ops._numba.segment import segment_sum


def test_works_without_the_framework() -> None:
    """Importing and running needs no package beyond torch, numpy and numba."""
    code = (
        "import sys; sys.modules.update({name: None for name in ('mmengine', 'sparse3d', 'scipy', 'cv2', 'pyarrow')});"
        "import torch, sparse3d_ops;"
        "print(len(sparse3d_ops.voxelize(torch.rand(9, 3), torch.zeros(9).long(), (0,0,0,1,1,1), (1,1,1), 1).coords))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


def test_every_public_name_is_documented() -> None:
    for name in sparse3d_ops.__all__:
        assert getattr(sparse3d_ops, name).__doc__


def work(seed: int) -> torch.Tensor:
    """A little of each kernel that may run on several threads."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(30_000, 3, generator=generator)
    voxels = voxelize(points, torch.zeros(30_000, dtype=torch.int64), (0, 0, 0, 1, 1, 1), (0.1, 0.1, 0.1), 1)
    top = segment_max(points, Segments.from_index(voxels.point_to_voxel, len(voxels.coords)))
    return torch.stack(
        [top.double().sum(), iou_3d(points[:100].repeat(1, 3), points[:200].repeat(1, 3)).double().sum()]
    )


class Works(Dataset):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, item: int) -> torch.Tensor:
        return work(item)


def test_forked_workers_after_kernels_ran_here() -> None:
    """A data-loader worker has one torch thread, so its kernels run in the calling thread."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        expected = torch.stack([work(item) for item in range(4)])
        loader = DataLoader(Works(), batch_size=4, num_workers=1, multiprocessing_context="fork", timeout=60)
        assert torch.equal(next(iter(loader)), expected)
    finally:
        torch.set_num_threads(before)


def group_on_threads(queue: multiprocessing.Queue) -> None:
    out = np.zeros((8, 1), np.float32)
    ones, order, offsets = np.ones((8, 1), np.float32), np.arange(8), np.arange(9)
    threads.run(segment_sum, [0, 3, 6, 8], ones, order, offsets, out)
    queue.put(out.sum())


def test_a_forked_process_starts_its_own_threads() -> None:
    """Threads do not survive a fork: a pool taken over from the parent would wait for ever."""
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    group_on_threads(queue)
    child = context.Process(target=group_on_threads, args=(queue,))
    child.start()
    child.join(timeout=60)
    hung = child.is_alive()
    child.kill()
    assert not hung
    assert [queue.get(timeout=5), queue.get(timeout=5)] == [8, 8]


def test_an_error_on_another_thread_is_raised() -> None:
    def fail(start: int, stop: int) -> None:
        if start == 0:
            raise RuntimeError("first range")

    with pytest.raises(RuntimeError, match="first range"):
        threads.run(fail, [0, 1, 2])
