"""Sine embeddings of positions: every frequency as a sine and a cosine.

    e_i = sin(2π x / T^(i / C)) for even i,    cos(2π x / T^((i - 1) / C)) for odd i,        T = 10000

Source: Attention Is All You Need (Vaswani et al., NIPS 2017), section 3.5, for positions between 0 and 1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

TEMPERATURE = 10000.0


def sine_embedding(values: Tensor, channels: int, *, interleaved: bool = True) -> Tensor:
    """Return ``[..., channels]`` of values ``[...]``, in parts of a turn.

    Args:
        values: floating point.
        channels: C, even.
        interleaved: sines and cosines alternate; otherwise all sines come first.
    """
    exponents = torch.arange(0, channels, 2, device=values.device, dtype=values.dtype) / channels
    angles = (values * 2 * math.pi)[..., None] / TEMPERATURE**exponents
    return torch.stack([angles.sin(), angles.cos()], dim=-1 if interleaved else -2).flatten(-2)
