"""Bits of words, against Python's integers."""

from __future__ import annotations

import random

import numpy as np

from sparse3d_ops._numba.bits import lowest, popcount


def test_counts_and_lowest_bits() -> None:
    draw = random.Random(0)
    words = [
        1,
        1 << 63,
        2**64 - 1,
        *(draw.getrandbits(64) >> draw.randrange(64) << draw.randrange(8) for _ in range(200)),
    ]
    for word in words:
        word &= 2**64 - 1
        assert popcount(np.uint64(word)) == word.bit_count()
        if word:
            assert lowest(np.uint64(word)) == (word & -word).bit_length() - 1
    assert popcount(np.uint64(0)) == 0
