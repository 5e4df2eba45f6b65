"""The page holds the data it was given, loads nothing, runs nothing it was given, and draws in a browser."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sparse3d.structures import Sample
from sparse3d.visualization import PointLayer, write_scene_html
from sparse3d.visualization.web import POINT_TYPE
from tests.visualization.scenes import NAMES, box, predictions, truth

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NASTY = "</script><script>alert(1)</script><img src=x onerror=alert(2)>&\"'{{data}}\u2028"


class Page(HTMLParser):
    """The elements of a page, and the text of each script by its id."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str | None, str] = {}
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        tag, attributes = self.tags[-1] if self.tags else ("", {})
        if tag == "script":
            key = attributes.get("id")
            self.scripts[key] = self.scripts.get(key, "") + data
        else:
            self.texts.append(data)


def sample(points: torch.Tensor | None = None, **fields: Any) -> Sample:
    return Sample(**({} if points is None else {"points": points}), **fields)


def write(path: Path, samples: list[Sample], names: tuple[str, ...] = NAMES, **options: Any) -> Page:
    write_scene_html(path, samples, names, **options)
    return Page(path.read_text(encoding="utf-8"))


def scene_of(page: Page) -> dict[str, Any]:
    return json.loads(page.scripts["data"])


def points_of(frame: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(frame["points"]), dtype=POINT_TYPE)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "scene.html"


def cloud(count: int = 200, features: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, features, generator=generator) * 20


# -- data -------------------------------------------------------------------------------------------------------------


def test_points_come_back(path: Path) -> None:
    points = cloud()
    points[0, 0] = -120.0
    frame = scene_of(write(path, [sample(points)]))["frames"][0]
    found = points_of(frame)
    assert frame["count"] == len(points)
    assert np.abs(found["position"] * frame["step"] - points[:, :3].numpy()).max() <= frame["step"] / 2 + 1e-5
    assert frame["step"] < 0.004
    assert (np.argsort(found["intensity"], kind="stable")[[0, -1]] != -1).all()


def test_intensity_and_time_lag_are_spread_over_all_frames(path: Path) -> None:
    first = torch.tensor([[1.0, 0, 0, 0, 0.0], [2, 0, 0, 50, 0.25]])
    second = torch.tensor([[1.0, 0, 0, 100, 0.5]])
    scene = scene_of(write(path, [sample(first), sample(second)]))
    levels = np.concatenate([points_of(frame) for frame in scene["frames"]])
    assert levels["lag"].tolist() == [0, 128, 255]
    assert levels["intensity"].tolist() == [0, 128, 255]
    assert scene["lags"] == [0, 0.5]


def test_the_time_lag_is_the_last_column(path: Path) -> None:
    points = torch.tensor([[1.0, 0, 0, 9, 31, 0.0], [1, 0, 0, 9, 17, 0.5]])  # a ring before it
    assert scene_of(write(path, [sample(points)]))["lags"] == [0, 0.5]


def test_points_without_features(path: Path) -> None:
    frame = scene_of(write(path, [sample(cloud(features=3))]))["frames"][0]
    assert not points_of(frame)["lag"].any()


def test_boxes_come_back(path: Path) -> None:
    gt = truth(box(1, 2, 3, yaw=0.5), box(4, 5, v=(float("nan"), float("nan"))), labels=[2, -1])
    pred = predictions(box(6, 7, v=(8, 9)), box(1, 1), labels=[1, 0], scores=[0.75, 0.05])
    frame = scene_of(write(path, [sample(cloud(), gt=gt, pred=pred)]))["frames"][0]
    assert frame["gt"]["labels"] == [2, -1]
    np.testing.assert_allclose(frame["gt"]["boxes"][0], [1, 2, 3, 4, 2, 1.5, 0.5, 0, 0])
    assert frame["gt"]["boxes"][1][7:] == [None, None]
    assert frame["pred"]["scores"] == [0.05, 0.75]  # low scores stay: the slider starts above them
    assert frame["pred"]["boxes"][1][7:] == [8, 9]


@pytest.mark.parametrize("fields", [{}, {"gt": truth(box(1, 2))}, {"pred": predictions(box(1, 2))}, {"gt": truth()}])
@pytest.mark.parametrize("points", [None, torch.zeros(0, 5), cloud()], ids=["no", "empty", "some"])
def test_anything_may_be_missing(path: Path, points: torch.Tensor | None, fields: dict[str, Any]) -> None:
    frame = scene_of(write(path, [sample(points, **fields)]))["frames"][0]
    assert frame["count"] == (0 if points is None else len(points))
    assert len(frame["gt"]["boxes"]) == len(fields.get("gt", truth()).boxes)
    assert len(frame["pred"]["boxes"]) == len(fields.get("pred", truth()).boxes)


def test_layers_come_back(path: Path) -> None:
    layer = PointLayer("kept <voxels>", np.array([[1.0, 2, 3], [-40, 5, 0]]), "#ffd0a1", 0.4)
    found, bare = scene_of(write(path, [sample(cloud(), layers=(layer,)), sample(cloud())]))["frames"]
    [packed] = found["layers"]
    assert (packed["name"], packed["color"], packed["size"], packed["count"]) == ("kept <voxels>", "#ffd0a1", 0.4, 2)
    np.testing.assert_allclose(points_of(packed)["position"] * packed["step"], layer.points, atol=1e-3)
    assert bare["layers"] == []


def test_several_frames_in_order(path: Path) -> None:
    scene = scene_of(write(path, [sample(cloud(count)) for count in (3, 1, 2)]))
    assert [frame["count"] for frame in scene["frames"]] == [3, 1, 2]
    assert [frame["name"] for frame in scene["frames"]] == ["frame 1", "frame 2", "frame 3"]


def test_a_page_is_small(path: Path) -> None:
    write(path, [sample(cloud(35_000))])
    assert path.stat().st_size < 500_000  # 8 bytes a point, a third more in base64


def test_refuses_what_does_not_fit(path: Path) -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        write(path, [])
    with pytest.raises(ValueError, match="points"):
        write(path, [sample(torch.zeros(4, 2))])
    with pytest.raises(ValueError, match=r"gt.labels"):
        write(path, [sample(gt=truth(box(1, 2), labels=[7]))])
    assert not path.exists()


# -- safety -----------------------------------------------------------------------------------------------------------


def test_the_page_loads_nothing(path: Path) -> None:
    page = write(path, [sample(cloud(), gt=truth(box(1, 2)))])
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"https?://|\b(fetch|XMLHttpRequest|WebSocket|import)\s*\(|@import|url\(", text)
    links = [value for _, attributes in page.tags for name, value in attributes.items() if name in ("src", "href")]
    assert links == ["data:,"]
    policy = next(attributes["content"] for tag, attributes in page.tags if "http-equiv" in attributes)
    assert policy.startswith("default-src 'none'")


def test_names_and_titles_stay_text(path: Path) -> None:
    plain = write(path, [sample(cloud(), gt=truth(box(1, 2)))])
    nasty = write(path, [sample(cloud(), gt=truth(box(1, 2)))], (NASTY, "truck", "pedestrian"), title=NASTY)
    assert [tag for tag, _ in nasty.tags] == [tag for tag, _ in plain.tags]
    assert scene_of(nasty)["classes"][0]["name"] == NASTY
    assert NASTY in nasty.texts
    assert set(nasty.scripts) == {"data", None}


# -- in a browser -----------------------------------------------------------------------------------------------------


def open_page(path: Path, profile: Path) -> str:
    """Return the page's elements after its scripts ran."""
    flags = "--headless --no-sandbox --disable-gpu --use-angle=swiftshader --enable-unsafe-swiftshader --disable-quic"
    flags += " --no-first-run --disable-background-networking --disable-component-update --disable-sync"
    command = [CHROMIUM, *flags.split(), f"--user-data-dir={profile}", "--virtual-time-budget=5000", "--dump-dom"]
    return subprocess.run([*command, path.as_uri()], capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_the_page_draws_in_a_browser(path: Path, tmp_path: Path) -> None:
    pred = predictions(box(6, 7, v=(8, 9)), box(1, 1), scores=[0.75, 0.05])
    layer = PointLayer(NASTY, np.array([[0.0, 4, 0]] * 3), "#00ff00", 2.0)  # before the view from obliquely above
    first = sample(cloud(1234), gt=truth(box(1, 2)), pred=pred, layers=(layer,))
    write(path, [first, sample()], (NASTY, *NAMES[1:]), title=NASTY)
    checks = """
    <script>
    const texts = (...names) => names.map((name) => element(name).textContent);
    const seen = texts("facts", "pred-count", "gt-count"), gl = renderer.gl;
    // Drawing gives the canvas its size, which the page itself may not have done yet.
    renderer.draw(orbit.matrix(renderer.aspect), { mode: "height", size: 0.1, heights: scene.heights });
    const height = gl.drawingBufferHeight, width = gl.drawingBufferWidth, pixels = new Uint8Array(4 * width * height);
    gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, pixels);
    const bright = pixels.filter((value, place) => place % 4 === 0 && value > 60).length > 100;
    const green = () => {
      renderer.draw(orbit.matrix(renderer.aspect), { mode: "none", size: 0.1, heights: scene.heights });
      gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, pixels);
      return pixels.filter((value, place) => place % 4 === 1 && value > 250 && pixels[place - 1] === 0).length > 50;
    };
    const [row] = element("layers").children, layer = [green(), row.textContent.endsWith("3")];
    row.querySelector("input").click();
    layer.push(green());
    row.querySelector("input").click();
    layer.push(green());
    showFrame(1);
    layer.push(green());
    const [empty] = texts("facts"), classes = element("classes").children.length;
    const hit = enterBox([10, 0, 0, 4, 2, 2, Math.PI / 2, 0, 0], [0, 0, 0], [1, 0, 0], 0);
    document.title = JSON.stringify({ seen, bright, layer, error: gl.getError(), empty, hit, classes });
    </script></body>"""
    page = path.read_text(encoding="utf-8")
    path.write_text(page.replace("</body>", checks), encoding="utf-8")
    dom = Page(open_page(path, tmp_path / "profile"))
    title = dom.texts[next(place for place, text in enumerate(dom.texts) if text.startswith('{"seen"'))]
    assert json.loads(title) == {
        "seen": ["1,234 points", "1 of 2", "1 of 1"],
        "bright": True,
        "layer": [True, True, False, True, False],  # on, its count, off, on, a frame without it
        "error": 0,
        "empty": "0 points",
        "hit": 9.0,  # the box stands across: its width of 2 m lies along the ray
        "classes": 3,
    }
    assert sum(tag == "img" for tag, _ in dom.tags) == 0
