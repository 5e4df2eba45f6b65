"""What has to hold in the model zoo; each check yields one line a problem.

files        every config is listed once, every listed file is there, every folder has its README
index        `model-index.yml` names every metafile
repetition   no config says again what its bases say, nor what follows from the grid
model        it builds; its size is the stated one; every parameter has a name in the converter's table
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import yaml
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

from .checkpoints import SYSTEMS
from .checkpoints.convert import Rules
from .config import load_config
from .registry import MODELS
from .structures import Grid
from .zoo import METAFILE, Model, config_files, models

INDEX = "model-index.yml"
OURS = "demo"  # configs of this folder, or whose names end so, are our own: no checkpoint is published for them
MILLION = 1e6
REFERENCE = re.compile(r"\\(\d)")


# -- files ------------------------------------------------------------------------------------------------------------


def check_files(folder: Path) -> Iterator[str]:
    """Check configs and metafiles against each other."""
    listed = [model.config.resolve() for model in models(folder)]
    for path in config_files(folder):
        if listed.count(path.resolve()) != 1:
            yield f"{path}: listed {listed.count(path.resolve())} times in {path.parent / METAFILE}; once is right"
    for model in models(folder):
        if not model.config.is_file():
            yield f"{model.name}: there is no {model.config}"
        if model.config.stem != model.name:
            yield f"{model.name}: its config is called {model.config.stem}"
        if model.weights is not None and not model.weights.is_file():
            yield f"{model.name}: there is no {model.weights}"
    for system in sorted({path.parent for path in config_files(folder)}):
        if not (system / "README.md").is_file():
            yield f"{system}: no README.md"


def check_index(folder: Path) -> Iterator[str]:
    """Check the index against the metafiles."""
    path = folder.parent / INDEX
    named = set(yaml.safe_load(path.read_text(encoding="utf-8"))["Import"]) if path.is_file() else set()
    there = {str(each.relative_to(folder.parent)) for each in folder.glob(f"*/{METAFILE}")}
    yield from (f"{path}: {each} is missing" for each in sorted(there - named))
    yield from (f"{path}: there is no {each}" for each in sorted(named - there))


# -- repetition -------------------------------------------------------------------------------------------------------


def check_repetition(path: Path) -> Iterator[str]:
    """Check that a config says nothing again."""
    own = _own_entries(path)
    bases = own.pop("_base_", [])
    if bases:
        yield from (f"{path}: {name} is what _base_ says" for name in _repeated(own, _merged_bases(path, bases), ()))
    config = load_config(path)
    if "grid" in config:
        grid = Grid.build(config.grid)
        derived = {"voxel_size": grid.voxel_size, "shape": grid.shape, "out_shape": grid.out_shape}
        for name, value in derived.items():
            yield from (f"{path}: {place} is the grid's {name}" for place in _places(own, list(value), ("grid",)))


def _own_entries(path: Path) -> dict[str, Any]:
    """Return what a config file itself says."""
    entries: dict[str, Any] = {}
    exec(
        compile(path.read_text(encoding="utf-8"), str(path), "exec"), entries
    )  # a config is a program, as for mmengine
    return {name: value for name, value in entries.items() if name == "_base_" or not name.startswith("_")}


def _merged_bases(path: Path, bases: str | Sequence[str]) -> Mapping[str, Any]:
    merged: dict[str, Any] = {}
    for base in [bases] if isinstance(bases, str) else bases:
        merged.update(Config.fromfile(str(path.parent / base))._cfg_dict)
    return merged


def _repeated(own: Mapping[str, Any], base: Mapping[str, Any], trail: tuple[str, ...]) -> Iterator[str]:
    for name, value in own.items():
        if name not in base or own.get("_delete_"):
            continue
        if isinstance(value, Mapping) and isinstance(base[name], Mapping):
            yield from _repeated(value, base[name], (*trail, name))
        elif _plain(value) == _plain(base[name]):
            yield ".".join((*trail, name))


def _places(value: Any, wanted: list, trail: tuple[str, ...]) -> Iterator[str]:
    """Yield where a list of numbers stands, the grid itself left out."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            if name != "grid":
                yield from _places(item, wanted, (*trail, str(name)))
    elif isinstance(value, (list, tuple)):
        if list(value) == wanted:
            yield ".".join(trail[1:])
        for place, item in enumerate(value):
            yield from _places(item, wanted, (*trail, str(place)))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


# -- model ------------------------------------------------------------------------------------------------------------


def build_on_meta(config: Config) -> nn.Module:
    """Build a config's model without memory for its weights."""
    init_default_scope(config.default_scope)
    with torch.device("meta"):
        return MODELS.build(config.model)


def check_model(model: Model) -> Iterator[str]:
    """Check that a model builds, its stated size, and that the converter knows its parameters."""
    try:
        detector = build_on_meta(load_config(model.config))
    except Exception as error:  # whatever a config can do wrong is one line of the report
        yield f"{model.name}: does not build: {error!r}"
        return
    count = sum(parameter.numel() for parameter in detector.parameters())
    stated = model.metadata.get("Parameters")
    if stated and abs(float(str(stated).removesuffix(" M")) - count / MILLION) > 0.5 * _last_digit(str(stated)):
        yield f"{model.name}: has {count / MILLION:.2f} M parameters, its metafile says {stated}"
    if is_ours(model):
        return
    if model.folder not in SYSTEMS:
        yield f"{model.name}: sparse3d.checkpoints knows no system {model.folder!r}"
        return
    missing = uncovered_names(SYSTEMS[model.folder], detector.state_dict())
    if missing:
        yield f"{model.name}: {len(missing)} names are in no table of its converter: {', '.join(missing[:3])}, ..."


def is_ours(model: Model) -> bool:
    """Return whether a model is our own, such that no checkpoint of others fits it."""
    return model.folder == OURS or model.name.endswith(OURS)


def uncovered_names(system: ModuleType, names: Sequence[str]) -> list[str]:
    """Return which of our names no official name becomes, by the table of a converter that fits best."""
    patterns = [re.compile(name_pattern(each)) for each in vars(system).values() if _is_table(each)]
    return min(([name for name in names if not pattern.fullmatch(name)] for pattern in patterns), key=len)


def name_pattern(rules: Rules) -> str:
    """Return a pattern of all our names that a table can make."""
    return "|".join(f"(?:{_made_by(pattern, ours)})" for pattern, ours in rules if ours is not None) or r"(?!)"


def _made_by(pattern: str, replacement: str) -> str:
    """Return a pattern of what a rule makes: its replacement, with what each group matches in the group's place."""
    groups = _groups(pattern)
    parts = REFERENCE.split(replacement)
    return "".join(groups[int(part)] if place % 2 else re.escape(part) for place, part in enumerate(parts))


def _groups(pattern: str) -> list[str]:
    """Return the groups of a pattern by their number; the whole stands for number 0."""
    found, open_at = [f"(?:{pattern})"], []
    place = 0
    while place < len(pattern):
        letter = pattern[place]
        if letter == "\\":
            place += 1
        elif letter == "(":
            captures = pattern[place + 1] != "?"
            open_at.append((place, len(found) if captures else None))
            found += [""] if captures else []
        elif letter == ")":
            start, number = open_at.pop()
            if number is not None:
                found[number] = f"(?:{pattern[start + 1 : place]})"
        place += 1
    return found


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, tuple) and len(each) == 2 for each in value)


def _last_digit(number: str) -> float:
    """Return what the last digit of a written number stands for."""
    digits = number.removesuffix(" M").partition(".")[2]
    return 10.0 ** -len(digits) * 1.001


def check_all(folder: Path) -> Iterator[str]:
    """Yield every problem of the zoo."""
    yield from check_files(folder)
    yield from check_index(folder)
    for path in config_files(folder):
        yield from check_repetition(path)
    for model in models(folder):
        yield from check_model(model)
