"""Reading configs: mmengine's text configs plus references.

After inheritance and command-line overrides are applied, a string `"$name"` anywhere in the config stands for the
top-level entry `name`. So the grid, the class names and the like are written once, and overriding them there changes
every place that uses them.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

REFERENCE = "$"


def load_config(path: str | Path, options: Mapping[str, Any] | None = None) -> Config:
    """Read a config file, apply overrides, and resolve its references.

    Args:
        path: an mmengine text config.
        options: dotted overrides as ``--cfg-options`` gives them, e.g. ``{"grid.voxel_size": [0.6, 0.6, 8]}``.

    Returns:
        The resolved config; dumping and reading it back changes nothing.

    Raises:
        FileNotFoundError: if there is no such file.
        KeyError: if a reference names no top-level entry.
    """
    config = Config.fromfile(str(path))
    if options:
        config.merge_from_dict(dict(options))
    entries = config._cfg_dict
    resolved = {name: _resolve(value, entries, (name,)) for name, value in entries.items()}
    return Config(ConfigDict(resolved), filename=config.filename)


def _resolve(value: Any, entries: Mapping[str, Any], trail: tuple[str, ...]) -> Any:
    """Replace references inside ``value``; ``trail`` is the path to it, for errors and to stop at a circle."""
    if isinstance(value, str) and value.startswith(REFERENCE):
        name = value[len(REFERENCE) :]
        if name not in entries:
            near = get_close_matches(name, entries, n=3, cutoff=0.5)
            hint = f"; did you mean {', '.join(near)}?" if near else ""
            raise KeyError(f"config: {'.'.join(trail)} refers to {value!r}, but there is no top-level {name!r}{hint}")
        if value in trail:
            raise KeyError(f"config: {value!r} refers to itself ({' -> '.join(trail)})")
        return _resolve(deepcopy(entries[name]), entries, (*trail, value))
    if isinstance(value, Mapping):
        return {key: _resolve(item, entries, (*trail, str(key))) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_resolve(item, entries, (*trail, str(i))) for i, item in enumerate(value))
    return value
