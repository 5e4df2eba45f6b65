"""Building engines, against a stand-in for TensorRT's package that notes what it is asked for."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from sparse3d.deploy.manifest import Manifest
from sparse3d.deploy.tensorrt import build_engines, trtexec_command, write_script


class TensorRT:
    """The few calls that an engine takes."""

    Logger = type("Logger", (), {"WARNING": 0, "__init__": lambda self, level: None})
    NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)

    def __init__(self, parses: bool = True, builds: bool = True) -> None:
        self.flags, self.files, self.profiles = [], [], []
        outer = self

        class Profile(dict):
            def set_shape(self, name: str, *shapes: tuple[int, ...]) -> None:
                self[name] = shapes

        class Builder:
            def __init__(self, logger: object) -> None: ...

            def create_network(self, flags: int) -> object:
                outer.flags.append(flags)
                return object()

            def create_optimization_profile(self) -> Profile:
                outer.profiles.append(Profile())
                return outer.profiles[-1]

            def create_builder_config(self) -> object:
                return SimpleNamespace(add_optimization_profile=lambda profile: None)

            def build_serialized_network(self, network: object, config: object) -> bytes | None:
                return b"engine" if builds else None

        class OnnxParser:
            num_errors = 1

            def __init__(self, network: object, logger: object) -> None: ...

            def parse_from_file(self, path: str) -> bool:
                outer.files.append(Path(path).name)
                return parses

            def get_error(self, number: int) -> str:
                return "unknown operator"

        self.Builder, self.OnnxParser = Builder, OnnxParser


@pytest.fixture
def chain(exported_chain: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported_chain, tmp_path / "chain"))


def test_one_engine_a_graph(chain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trt = TensorRT()
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    engines = build_engines(chain)
    assert [path.name for path in engines] == ["model_0.plan", "model_1.plan", "model_2.plan"]
    assert all(path.read_bytes() == b"engine" for path in engines)
    assert trt.files == ["model_0.onnx", "model_1.onnx", "model_2.onnx"]
    assert trt.flags == [0, 0, 0], "float32 graphs leave the choice of types to TensorRT"
    for profile, graph in zip(trt.profiles, Manifest.read(chain).graphs, strict=True):
        assert set(profile) == {spec.name for spec in graph.inputs}
        for low, typical, high in profile.values():
            assert all(1 <= a <= b <= c for a, b, c in zip(low, typical, high, strict=True))
    assert not list(chain.glob("*.partial"))


@pytest.mark.parametrize(
    ("kind", "message"),
    [({"parses": False}, r"cannot parse model_0.onnx:\n  unknown operator"), ({"builds": False}, "could not build an")],
)
def test_what_tensorrt_refuses(chain: Path, monkeypatch: pytest.MonkeyPatch, kind: dict, message: str) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", TensorRT(**kind))
    with pytest.raises(RuntimeError, match=message):
        build_engines(chain)
    assert not list(chain.glob("*.plan"))


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_types_that_the_graph_carries_stay(exported_chain: Path, precision: str) -> None:
    manifest = Manifest.read(exported_chain)
    typed = Manifest(**{**vars(manifest), "precision": precision})
    assert "--stronglyTyped" in trtexec_command(typed, typed.graphs[0])
    assert "--stronglyTyped" not in trtexec_command(manifest, manifest.graphs[0])


def test_one_command_a_graph(chain: Path) -> None:
    lines = write_script(chain).read_text().splitlines()
    assert [line.split("=")[1].split()[0] for line in lines if "--saveEngine" in line] == [
        "model_0.plan",
        "model_1.plan",
        "model_2.plan",
    ]
