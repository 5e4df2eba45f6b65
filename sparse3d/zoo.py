"""The model zoo: every configuration of `configs/`, what it is and what its authors published.

A folder of `configs/` is a system; its `metafile.yml` describes the collection and lists its models, in the layout that
OpenMMLab's projects share. `model-index.yml` at the root names these files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

import yaml

PACKAGE = Path(__file__).resolve().parent
PLACES = (
    PACKAGE.parent / "configs",
    PACKAGE / "configs",
)  # beside the package in a checkout, inside of an installed one
METAFILE = "metafile.yml"
BASE = "_base_"


@dataclass(frozen=True)
class Model:
    """One configuration of the zoo.

    Args:
        name: unique; also the stem of its config.
        config: the config file.
        collection: name of its collection, the paper's.
        metadata: epochs, batch size, parameters and the like; the collection's where the model says nothing.
        published: figures of the authors, one entry a task and data set.
        paper: address of the paper.
        weights: released weights that come with the package, or None.
    """

    name: str
    config: Path
    collection: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    published: Sequence[Mapping[str, Any]] = ()
    paper: str = ""
    weights: Path | None = None

    @property
    def folder(self) -> str:
        """Name of the system's folder, which is also that of its checkpoint converter."""
        return self.config.parent.name

    @property
    def figures(self) -> str:
        """What was published, on one line."""
        lines = (
            f"{each['Dataset']}: " + ", ".join(f"{name} {value}" for name, value in each["Metrics"].items())
            for each in self.published
        )
        return "; ".join(lines)


def configs_folder() -> Path:
    """Return the folder of the configs.

    Raises:
        FileNotFoundError: if the package was installed without them.
    """
    for place in PLACES:
        if (place / BASE).is_dir():
            return place
    raise FileNotFoundError(
        f"sparse3d's configs are in none of {', '.join(map(str, PLACES))}; give the path of a config"
    )


def config_files(folder: Path | None = None) -> list[Path]:
    """Return every config that describes a model, bases left out."""
    folder = folder or configs_folder()
    return sorted(path for path in folder.glob("*/*.py") if path.parent.name != BASE)


def models(folder: Path | None = None) -> tuple[Model, ...]:
    """Return the models that the zoo's metafiles list."""
    return _models(folder or configs_folder())


@cache
def _models(folder: Path) -> tuple[Model, ...]:
    return tuple(model for path in sorted(folder.glob(f"*/{METAFILE}")) for model in read_metafile(path))


def read_metafile(path: Path) -> Iterator[Model]:
    """Yield the models of a metafile.

    Raises:
        ValueError: if it is no YAML, or an entry is missing.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        collections = {each["Name"]: each for each in content["Collections"]}
        root = path.parent.parent.parent
        for each in content["Models"]:
            collection = collections[each["In Collection"]]
            yield Model(
                name=each["Name"],
                config=root / each["Config"],
                collection=collection["Name"],
                metadata={**collection.get("Metadata", {}), **each.get("Metadata", {})},
                published=tuple(each.get("Published", ())),
                paper=collection["Paper"]["URL"],
                weights=root / each["Weights"] if "Weights" in each else None,
            )
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: no readable metafile: {error!r}") from error


def find_config(name: str | Path) -> Path:
    """Return the config that a path or a name of the zoo stands for.

    Args:
        name: path of a config file, or the stem of one in ``configs/``, e.g. ``"dsvt_pillar_nuscenes"``.

    Raises:
        FileNotFoundError: if there is no such config; names that are near are said.
    """
    path = Path(name)
    if path.suffix == ".py":
        if path.is_file():
            return path
        raise FileNotFoundError(f"{path}: no such config")
    known = {each.stem: each for each in config_files()}
    if str(name) in known:
        return known[str(name)]
    near = get_close_matches(str(name), known, n=3, cutoff=0.4)
    hint = f"; near are {', '.join(near)}" if near else "; `python tools/zoo.py` lists them"
    raise FileNotFoundError(f"the zoo has no model {str(name)!r}{hint}")


def find_weights(name: str | Path) -> Path:
    """Return the weights that the zoo has for a config.

    Args:
        name: as for ``find_config``.

    Raises:
        FileNotFoundError: if there is no such config, or no weights come with it.
    """
    config = find_config(name).resolve()
    for model in models():
        if model.config.resolve() == config and model.weights is not None:
            return model.weights
    raise FileNotFoundError(
        f"the zoo has no weights for {str(name)!r}; give those of a training, or of the authors, brought to ours by "
        "tools/convert_checkpoint.py"
    )
