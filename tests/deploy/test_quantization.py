"""Where activations are clipped for eight bits."""

from __future__ import annotations

import numpy as np
import pytest

from sparse3d.deploy.parity import TOLERANCES, BoxParity, Parity
from sparse3d.deploy.quantization import LEVELS, clipping_limit, histogram


def squared_error(magnitudes: np.ndarray, limit: float) -> float:
    """What clipping at a limit and rounding to its steps cost, by doing it."""
    step = limit / LEVELS
    return float(((np.round(np.minimum(magnitudes, limit) / step) * step - magnitudes) ** 2).sum())


def test_a_long_tail_is_clipped_where_the_least_is_lost() -> None:
    magnitudes = np.abs(np.random.default_rng(0).laplace(size=50_000))
    limit, top = clipping_limit(histogram(magnitudes)), magnitudes.max()
    assert limit < 0.9 * top
    best = min(squared_error(magnitudes, top * part) for part in np.linspace(0.1, 1, 50))
    assert squared_error(magnitudes, limit) < 1.05 * best < 0.9 * squared_error(magnitudes, top)


def test_evenly_spread_values_are_not() -> None:
    assert clipping_limit(histogram(np.random.default_rng(0).uniform(0, 8, 50_000))) == pytest.approx(8, rel=0.03)


def test_nothing_to_measure_gives_a_scale_all_the_same() -> None:
    assert clipping_limit(histogram(np.zeros(9))) == 1.0


@pytest.mark.parametrize("agreeing, passes", [(50, True), (49, False)])
def test_eight_bits_are_judged_by_boxes(agreeing: int, passes: bool) -> None:
    boxes = BoxParity(pytorch=100, exported=98, agreeing=agreeing, center=0.1, score=0.05)
    parity = Parity({}, {"heatmap": 0.9}, boxes, boxes, TOLERANCES["int8"])
    assert (not parity.failures) == passes
    assert Parity({}, {"heatmap": float("nan")}, boxes, boxes, TOLERANCES["int8"]).failures
