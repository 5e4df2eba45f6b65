"""Windows and sets against a literal reading of the definition, and against recorded partitions of DSVT."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse3d_ops import partition_sets, partition_windows


def literal_windows(coords, spatial_shape, window_shape, shift) -> tuple[list[int], list[tuple[int, int, int]]]:
    """Official window id and in-window (z, y, x) of each voxel, written down as the paper's code numbers them."""
    sz = 0 if spatial_shape[0] == window_shape[0] else shift[0]
    sy, sx = shift[1:]
    wz, wy, wx = window_shape
    mz, my, mx = (math.ceil(s / w) + 1 for s, w in zip(spatial_shape, window_shape, strict=True))
    ids, inside = [], []
    for b, z, y, x in coords:
        px, py, pz = x + sx, y + sy, z + sz
        ids.append(b * mx * my * mz + (px // wx) * my * mz + (py // wy) * mz + pz // wz)
        inside.append((pz % wz, py % wy, px % wx))
    return ids, inside


def literal_sets(ids, inside, axes: tuple[int, int, int], set_size: int) -> tuple[list[list[int]], list[list[bool]]]:
    """One partition; ``axes`` order the in-window coordinates (z, y, x) of a window, most significant first."""
    sets, masks = [], []
    for window in sorted(set(ids)):
        members = sorted(
            (row for row, each in enumerate(ids) if each == window), key=lambda row: [inside[row][a] for a in axes]
        )
        count = math.ceil(len(members) / set_size)
        slots = [members[j * len(members) // (count * set_size)] for j in range(count * set_size)]
        for start in range(0, len(slots), set_size):
            one = slots[start : start + set_size]
            sets.append(one)
            masks.append([i > 0 and one[i] == one[i - 1] for i in range(set_size)])
    return sets, masks


def random_voxels(shape, batch_size: int, count: int, seed: int) -> torch.Tensor:
    """Distinct voxels in a random order; sample 0 holds none when there are two or more."""
    cells = math.prod(shape)
    keys = torch.randperm(cells * max(1, batch_size - 1), generator=torch.Generator().manual_seed(seed))[:count]
    keys = keys + (cells if batch_size > 1 else 0)
    z, y, x = (keys // (shape[1] * shape[2])) % shape[0], keys // shape[2] % shape[1], keys % shape[2]
    return torch.stack([keys // cells, z, y, x], dim=1).int()


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.data())
def test_equals_the_literal_definition(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.integers(1, n)) for n in (6, 14, 17))
    window = tuple(data.draw(st.integers(1, n)) for n in (6, 7, 6))
    shift = tuple(data.draw(st.integers(0, w - 1)) for w in window)
    batch_size = data.draw(st.integers(1, 3))
    coords = random_voxels(shape, batch_size, data.draw(st.integers(0, 150)), data.draw(st.integers(0, 99)))
    set_size = data.draw(st.integers(1, 9))

    windows = partition_windows(coords, shape, window, shift, batch_size)
    ids, inside = literal_windows(coords.tolist(), shape, window, shift)
    dense = {official: row for row, official in enumerate(sorted(set(ids)))}
    assert windows.ids.tolist() == [dense[official] for official in ids]
    assert [tuple(row) for row in windows.in_window.tolist()] == inside

    sets = partition_sets(windows, set_size)
    for partition, axes in enumerate([(1, 2, 0), (2, 1, 0)]):
        indices, mask = literal_sets(ids, inside, axes, set_size)
        assert sets.indices[partition].tolist() == indices
        assert sets.mask[partition].tolist() == mask


def test_every_voxel_is_a_key_of_exactly_one_set() -> None:
    coords = random_voxels((4, 40, 40), 3, 3000, 0)
    sets = partition_sets(partition_windows(coords, (4, 40, 40), (4, 10, 10), (0, 5, 5), 3), 16)
    for partition in (0, 1):
        shown = sets.indices[partition][~sets.mask[partition]]
        assert shown.sort().values.tolist() == list(range(3000))
    assert sets.indices.dtype == torch.int64
    assert sets.mask.dtype == torch.bool


def test_no_voxel_and_one_voxel() -> None:
    none = partition_windows(torch.zeros(0, 4, dtype=torch.int32), (1, 8, 8), (1, 4, 4), (0, 2, 2), 2)
    assert none.ids.shape == (0,)
    assert partition_sets(none, 5).indices.shape == (2, 0, 5)
    one = partition_windows(torch.tensor([[1, 0, 3, 6]]), (1, 8, 8), (1, 4, 4), (0, 2, 2), 2)
    sets = partition_sets(one, 5)
    assert sets.indices.tolist() == [[[0] * 5]] * 2
    assert sets.mask.tolist() == [[[False] + [True] * 4]] * 2


def test_strided_coordinates() -> None:
    coords = random_voxels((2, 20, 20), 2, 200, 1)
    strided = coords.repeat_interleave(2, dim=0)[::2]
    arguments = ((2, 20, 20), (2, 6, 6), (0, 3, 3), 2)
    assert torch.equal(partition_windows(strided, *arguments).ids, partition_windows(coords, *arguments).ids)


def test_refusals() -> None:
    coords = torch.tensor([[0, 0, 3, 6]])
    with pytest.raises(ValueError, match=r"coords\[:, 3\] \(x\): entries must lie in \[0, 6\)"):
        partition_windows(coords, (1, 8, 6), (1, 4, 4), (0, 0, 0), 1)
    with pytest.raises(ValueError, match="window_shape"):
        partition_windows(coords, (1, 8, 8), (0, 4, 4), (0, 0, 0), 1)
    with pytest.raises(ValueError, match="shift"):
        partition_windows(coords, (1, 8, 8), (1, 4, 4), (0, 0, 4), 1)
    with pytest.raises(ValueError, match="set_size: must be at least 1"):
        partition_sets(partition_windows(coords, (1, 8, 8), (1, 4, 4), (0, 0, 0), 1), 0)


@pytest.mark.parametrize("case", ["dsvt_pillar_a", "dsvt_voxel3d_a"])
def test_recorded_partitions(case: str, shared: Path) -> None:
    """The recorded configuration counts (x, y, z); ours (z, y, x)."""
    folder = shared / "golden" / "dsvt"
    config = json.loads((folder / f"{case}.json").read_text())["config"]["INPUT_LAYER"]
    arrays = np.load(folder / f"{case}.npz")
    shape = config["sparse_shape"]
    for stage, window in enumerate(config["window_shape"]):
        coords = torch.from_numpy(arrays[f"out/voxel_coors_stage{stage}"])
        for layout in (0, 1):
            factors = config["hybrid_factor"] if layout else (1, 1, 1)
            enlarged = [w * f for w, f in zip(window, factors, strict=True)]
            shift = config["shifts_list"][stage][layout]
            windows = partition_windows(coords, shape[::-1], enlarged[::-1], shift[::-1], 2)
            sets = partition_sets(windows, config["set_info"][stage][0])
            name = f"stage{stage}_shift{layout}"
            assert np.array_equal(windows.in_window, arrays[f"out/coors_in_win_{name}"])
            assert np.array_equal(sets.indices, arrays[f"out/set_voxel_inds_{name}"])
            assert np.array_equal(sets.mask, arrays[f"out/set_voxel_mask_{name}"])
        if stage < len(config["downsample_stride"]):
            shape = [-(-n // s) for n, s in zip(shape, config["downsample_stride"][stage], strict=True)]
