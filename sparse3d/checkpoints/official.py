"""Official checkpoint files -> our detectors, in full or not at all.

Each official code base is a module here with `STATE_KEYS`, the entries of its files that may hold the state dictionary,
and `convert`, which brings a whole official state to our names and conventions.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from torch import Tensor, nn

from ..engine.files import read_checkpoint
from . import centerpoint, dsvt, focals_conv, matrixvt, mv2d, sparsebev, sparsefusion, voxelkp
from .convert import find_state, load_converted
from .spconv import to_own_layout

SYSTEMS: Mapping[str, ModuleType] = {
    "centerpoint": centerpoint,
    "dsvt": dsvt,
    "focals_conv": focals_conv,
    "matrixvt": matrixvt,
    "mv2d": mv2d,
    "sparsebev": sparsebev,
    "sparsefusion": sparsefusion,
    "voxelkp": voxelkp,
}


def load_official(detector: nn.Module, system: str, path: str | Path, *, trusted: bool = False) -> None:
    """Load an official checkpoint file into a detector.

    Args:
        detector: the model of the config that the checkpoint is for.
        system: whose checkpoint it is, a key of ``SYSTEMS``.
        path: the file; nothing in it is executed.
        trusted: read pickled objects as well, which can run any code.

    Raises:
        CheckpointError: if the file is missing or damaged, or holds objects and is not ``trusted``.
        ValueError: if the file has no state dictionary, or an entry of either side is unaccounted for; all are listed.
    """
    state = find_state(read_checkpoint(path, trusted=trusted), path, *SYSTEMS[system].STATE_KEYS)
    load_official_state(detector, system, state)


def load_official_state(detector: nn.Module, system: str, state: Mapping[str, Tensor]) -> None:
    """Load an official state dictionary into a detector; arguments and errors as ``load_official``."""
    load_converted(detector, to_own_layout(SYSTEMS[system].convert(state), detector))
