from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparse3d_ops import Segments, SegmentTree, segment_gather, segment_max


@settings(deadline=None, max_examples=40, derandomize=True)
@given(counts=st.lists(st.sampled_from([1, 2, 7, 8, 9, 63, 64, 65, 513, 600]), max_size=6), seed=st.integers(0, 99))
def test_equals_the_maximum_over_segments_in_every_bit(counts: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    index = torch.repeat_interleave(torch.tensor(counts, dtype=torch.int64))
    index = index[torch.randperm(len(index), generator=generator)]
    values = torch.randn(len(index), 3, generator=generator)
    segments = Segments.from_index(index, len(counts))
    tree = SegmentTree.from_segments(segments)
    assert torch.equal(segment_max(values, tree), segment_max(values, segments))
    rows = torch.randn(len(counts), 3, generator=generator)
    assert torch.equal(segment_gather(rows, tree), segment_gather(rows, segments))


def test_the_tables_stay_small() -> None:
    """The last level is as wide as the largest segment needs, and no level repeats more than its padding."""
    segments = Segments.from_index(torch.repeat_interleave(torch.tensor([1000, *[3] * 50])), 51)
    first, second, third, last = SegmentTree.from_segments(segments).levels
    assert first.shape == (125 + 50, 8)
    assert second.shape == (16 + 50, 8)
    assert third.shape == (2 + 50, 8)
    assert last.shape == (51, 2)


def test_an_empty_segment_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one row in each"):
        SegmentTree.from_segments(Segments.from_index(torch.tensor([0, 2]), 3))
