"""What the documentation shows is true: its Python runs, its commands and options exist, its links lead somewhere.

A block that begins with `# file: NAME` is written to that file; the others of a page run one after the other. Pages
that need data sets or exported models are only compiled.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparse3d.datasets.nuscenes_frames import scene_frames
from sparse3d.datasets.nuscenes_tables import load_tables
from tests.conftest import REPOSITORY
from tests.test_inference import CAMERA, CAMERA_OPTIONS, LIDAR, SYNTH, make, rig

DOCS = REPOSITORY / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md"])
NEEDS = {"bridge_mmdet3d.md": "mmdet3d"}  # pages that show a package which the test suite may lack
EXECUTED = ["adding_a_model.md", "bridge_mmdet3d.md", "coordinates.md", "inference.md", "migrating.md"]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)(#[^)\s]*)?\)")
TOOL = re.compile(r"python (tools/\w+\.py)([^\n|&;`]*)")
OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]*")
FILE = "# file: "


def blocks(page: Path, language: str) -> list[str]:
    return [code for kind, code in BLOCK.findall(page.read_text(encoding="utf-8")) if kind == language]


@pytest.mark.parametrize("name", EXECUTED)
def test_python_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = blocks(DOCS / name, "python")
    assert found
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    (tmp_path / "configs").symlink_to(REPOSITORY / "configs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    names: dict[str, Any] = prepared(tmp_path) if name == "inference.md" else {}
    for number, code in enumerate(found):
        if code.startswith(FILE):
            Path(code.splitlines()[0].removeprefix(FILE)).write_text(code, encoding="utf-8")
        else:
            exec(compile(code, f"{name}, block {number}", "exec"), names)


def prepared(folder: Path) -> dict[str, Any]:
    """Weights, a scan, and a rig, by the names that the page gives them."""
    make(folder, LIDAR, {})
    (folder / f"{LIDAR}.pth").rename(folder / "weights.pth")
    make(folder, CAMERA, CAMERA_OPTIONS)
    (folder / f"{CAMERA}.pth").rename(folder / "camera_weights.pth")
    frame = next(scene_frames(load_tables(SYNTH / "v1.0-mini", ["scene-0061"]), "scene-0061", SYNTH))
    np.fromfile(frame.lidar.path, np.float32).tofile(folder / "scan.pcd.bin")
    images, calibration = rig(frame, [each.name for each in frame.cameras])
    return {"images": images, "calibration": calibration, "camera_options": CAMERA_OPTIONS}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_compiles(page: Path) -> None:
    for code in blocks(page, "python"):
        ast.parse(code)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_their_options_exist(page: Path) -> None:
    common = (REPOSITORY / "tools" / "common.py").read_text(encoding="utf-8")
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for tool, rest in TOOL.findall(text):
        assert (REPOSITORY / tool).is_file(), f"{page.name} names {tool}"
        source = (REPOSITORY / tool).read_text(encoding="utf-8") + common
        for option in OPTION.findall(rest.partition("#")[0]):
            known = f'"{option}"' in source or f'"--no-{option.removeprefix("--")}"' in source
            assert known or option == "--help", f"{page.name}: {tool} has no {option}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target, _ in LINK.findall(page.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_page_is_in_the_menu() -> None:
    menu = (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8")
    for page in DOCS.rglob("*.md"):
        assert str(page.relative_to(DOCS)) in menu, page


def test_every_module_of_the_api_exists() -> None:
    for page in (DOCS / "api").glob("*.md"):
        for name in re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE):
            path = Path(*name.split("."))
            assert any((REPOSITORY / root / path).with_suffix(".py").is_file() for root in (".", "ops")), name
