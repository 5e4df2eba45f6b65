"""deploy.json: what an exported directory holds, and the check that it is whole.

    model.onnx      the graph; model_0.onnx, model_1.onnx, ... where voxels grow between several
    deploy.json     this manifest: inputs and their ranges, grid, classes, decoding, versions, checksums
    golden.npz      one scan ("points", "images" and "cameras/...", or all of them), each graph's inputs
                    ("model/in/...") and PyTorch's outputs ("model/out/...") for it, the detector's boxes ("boxes",
                    "scores", "labels")
    parity.json     how far ONNX Runtime was from PyTorch on that scan

A C++ program needs the graphs and the manifest; golden.npz tells it whether it does the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

FORMAT = "sparse3d-deploy"
VERSION = 3
MANIFEST, GOLDEN, PARITY = "deploy.json", "golden.npz", "parity.json"
PLAIN, AUTOWARE = DIALECTS = ("plain", "autoware")
BLOCK = 1 << 20  # bytes read at once
HINT = "export it again with tools/export.py"


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of a graph; a string in its shape names a dimension that differs from scan to scan."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class GraphSpec:
    """A graph: its file, inputs and outputs."""

    file: str
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]

    @property
    def stem(self) -> str:
        """The file's name without its ending."""
        return Path(self.file).stem


@dataclass(frozen=True)
class Dimension:
    """A dimension that differs from scan to scan: its range, and its extent in the golden scan."""

    low: int
    typical: int
    high: int


@dataclass(frozen=True)
class Manifest:
    """The contents of deploy.json.

    Args:
        model: name of the config.
        precision: ``"fp32"``, ``"fp16"`` or ``"int8"``.
        dialect: ``"plain"``, standard operators, or ``"autoware"``, with nodes of Autoware's plugins.
        class_names: labels are positions in it.
        grid: arguments of the head's ``Grid``.
        preparation: type and arguments of the inputs besides the grid, one of those that `runtime.py` lists.
        head: name of the head's class, which says how outputs are decoded.
        decoding: arguments of that decoding.
        graphs: in the order in which they run.
        dimensions: name -> range.
        opset: of the graphs.
        versions: package -> version that exported it.
        checksums: file -> SHA-256.
    """

    model: str
    precision: str
    dialect: str
    class_names: list[str]
    grid: dict[str, Any]
    preparation: dict[str, Any]
    head: str
    decoding: dict[str, Any]
    graphs: list[GraphSpec]
    dimensions: dict[str, Dimension]
    opset: int
    versions: dict[str, str]
    checksums: dict[str, str]

    def write(self, folder: Path) -> None:
        """Write deploy.json into a folder."""
        content = {"format": FORMAT, "version": VERSION, **asdict(self)}
        (folder / MANIFEST).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: str | Path) -> Manifest:
        """Read the manifest of an exported directory and check that the directory is whole.

        Raises:
            FileNotFoundError: if the directory holds no manifest, or a file that it lists is missing.
            ValueError: if the manifest is cut off, of another version, or a file is not the one that was exported.
        """
        folder = Path(folder)
        path = folder / MANIFEST
        if not path.is_file():
            raise FileNotFoundError(f"{folder}: no {MANIFEST}, so this is no exported model; see tools/export.py")
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}: not readable as JSON ({error}); the directory is damaged, {HINT}") from error
        found = (content.pop("format", None), content.pop("version", None)) if isinstance(content, dict) else None
        if found != (FORMAT, VERSION):
            raise ValueError(f"{path}: expected format {FORMAT} version {VERSION}, got {found}; {HINT}")
        manifest = cls._build(path, content)
        check_files(folder, manifest.checksums)
        return manifest

    @classmethod
    def _build(cls, path: Path, content: Mapping[str, Any]) -> Manifest:
        missing = [each.name for each in fields(cls) if each.name not in content]
        if missing:
            raise ValueError(f"{path}: entries {missing} are missing; the file is damaged, {HINT}")
        graphs = [
            GraphSpec(each["file"], *(_specs(each[name]) for name in ("inputs", "outputs")))
            for each in content["graphs"]
        ]
        dimensions = {name: Dimension(**each) for name, each in content["dimensions"].items()}
        return cls(**{**content, "graphs": graphs, "dimensions": dimensions})


def graph_files(count: int) -> list[str]:
    """Return the files of a model's graphs."""
    return ["model.onnx"] if count == 1 else [f"model_{number}.onnx" for number in range(count)]


def _specs(values: list[Mapping[str, Any]]) -> list[TensorSpec]:
    return [TensorSpec(each["name"], each["dtype"], tuple(each["shape"])) for each in values]


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def check_files(folder: Path, checksums: Mapping[str, str]) -> None:
    """Raise unless the folder holds exactly the files that were exported."""
    missing = [name for name in checksums if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{folder}: {', '.join(missing)} missing; the directory is incomplete, {HINT}")
    for name, expected in checksums.items():
        if checksum(folder / name) != expected:
            raise ValueError(
                f"{folder / name}: wrong checksum, the file was changed or cut off since its export; {HINT}"
            )
