"""Bits of a word of 64."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def popcount(word: np.uint64) -> np.int64:
    """Return the number of set bits: sums of neighbouring 1, 2, 4 bits, then of the eight bytes by a product.

    LLVM knows the pattern, and puts one instruction in its place where the processor has it.
    """
    word = word - ((word >> np.uint64(1)) & np.uint64(0x5555555555555555))
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((word * np.uint64(0x0101010101010101)) >> np.uint64(56))


@njit(cache=True, nogil=True)
def lowest(word: np.uint64) -> np.int64:
    """Return the place of the lowest set bit of a word that is not 0."""
    return popcount(~word & (word - np.uint64(1)))
