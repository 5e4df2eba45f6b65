"""Configs of any system, made small enough for one step on a CPU: the same components on a small grid and small images.

What a config says once at its top is what is reduced there, and what components take as their size is reduced by their
type. A new system needs an entry here only if it brings a component that is large in itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from sparse3d.config import load_config
from sparse3d.structures import Grid

CELLS = 16  # of the head's map, along x and y
IMAGE_SIZE = [64, 96]
TOP_LEVEL = {
    "image_size": IMAGE_SIZE,
    "image_scale": [0.1, 0.1],
    "num_queries": 16,
    "resize_factors": [0.5, 0.6],
    "pretrained": None,
}
PAST = [0.5]
MAX_DEPTH = 50  # of ResNets
COMPONENTS: Mapping[str, Mapping[str, Any]] = {
    "EVA02": dict(
        image_size=64,
        pretrained_size=32,
        channels=64,
        depth=2,
        num_heads=2,
        window_size=2,
        global_blocks=(1,),
        frozen_blocks=0,
        checkpointing=False,
    ),
    "SparseBEVHead": dict(num_layers=1),
    "SimpleFPN": dict(in_channels=64),
}


def reduced(path: Path) -> Config:
    """Return a config with a small grid, small images, few queries and two frames."""
    whole = Config.fromfile(str(path))
    options = {name: value for name, value in TOP_LEVEL.items() if name in whole}
    if "num_frames" in whole and "past" in whole:
        options.update(past=PAST, num_frames=1 + len(PAST))
    if "num_point_features" in whole:
        options["grid.point_range"] = small_range(Grid.build(load_config(path).grid))
    config = load_config(path, options)
    config.optim_wrapper.accumulative_counts = 1
    for component in components(config.model):
        component.update(COMPONENTS.get(component["type"], {}))
        if component["type"] == "ResNet":
            component["depth"] = min(component.get("depth", MAX_DEPTH), MAX_DEPTH)
        if component.get("gradient_frames"):
            component["gradient_frames"] = 1
    return config


def small_range(grid: Grid) -> list[float]:
    """Return the middle of a grid's range, so many cells of the head's map wide, with the height as it is."""
    half = [CELLS / 2 * size for size in grid.cell_size]
    middle = [(low + high) / 2 for low, high in zip(grid.lower[:2], grid.upper[:2], strict=True)]
    low, high = ([round(m + sign * h, 6) for m, h in zip(middle, half, strict=True)] for sign in (-1, 1))
    return [*low, grid.lower[2], *high, grid.upper[2]]


def components(value: Any) -> Iterator[dict]:
    """Yield every part of a config that names its type."""
    if isinstance(value, dict):
        if "type" in value:
            yield value
        for item in value.values():
            yield from components(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from components(item)
