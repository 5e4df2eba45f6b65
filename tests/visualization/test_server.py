"""The served page: what the controls let through, and in a real browser that there is something to see."""

from __future__ import annotations

import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope

from sparse3d.config import load_config
from sparse3d.datasets import write_index
from sparse3d.datasets.nuscenes_frames import scene_frames
from sparse3d.datasets.nuscenes_tables import load_tables
from sparse3d.registry import MODELS
from sparse3d.structures import Sample
from sparse3d.visualization import PointLayer
from sparse3d.visualization.objects import box_lines, point_colors, read_ground_truth
from sparse3d.visualization.server import SceneServer
from sparse3d.zoo import find_config
from tests.conftest import REPOSITORY
from tests.e2e.conftest import ToolRunner, tool  # noqa: F401 (a fixture)
from tests.visualization.scenes import NAMES, box, predictions, truth
from tests.visualization.test_web import CHROMIUM, Page, cloud, scene_of
from tests.visualization.test_web_cameras import camera_sample

SYNTH = REPOSITORY / "tests" / "data" / "golden" / "nuscenes_synth"
PORT = 18473


@pytest.fixture
def server() -> SceneServer:
    other = Sample(points=cloud(), gt=truth(box(1, 2)), pred=predictions(box(3, 4), box(5, 6), scores=[0.9, 0.2]))
    layer = PointLayer("seen", np.array([[10.0, y, 2.0] for y in range(-4, 5)]), "#00ff00", 1.0)
    served = SceneServer([camera_sample().replace(layers=(layer,)), other, Sample()], NAMES, PORT)
    yield served
    served.stop()


def test_controls_choose_what_is_shown(server: SceneServer) -> None:
    assert [len(each) for each in server._objects()] == [1, 1]
    server.sample = server.samples[1]
    server.score.value = 0.1
    assert [len(each) for each in server._objects()] == [1, 2]
    server.gt.value = False
    assert [len(each) for each in server._objects()] == [0, 2]
    server.sample = server.samples[2]
    server._show_frame()  # a frame without anything
    assert server.facts.content == "0 predictions, 0 objects"


def test_layers_have_switches(server: SceneServer) -> None:
    assert list(server.switches) == ["seen"]
    layers = tuple(PointLayer(name, np.ones((4, 3)), "#ffd0a1", 0.5) for name in ("kept", "grown"))
    server.sample = Sample(layers=layers)
    server._show_frame()
    assert list(server.switches) == ["seen", "kept", "grown"] and len(server.shown_layers) == 2
    assert server.shown_layers[0].points.shape == (4, 3) and server.shown_layers[0].point_size == 0.5
    server.switches["kept"].value = False
    server._show_layers()
    assert [handle.name for handle in server.shown_layers] == ["/layers/grown"]
    server.sample = Sample(layers=layers[:1])  # switched off, and it stays so
    server._show_frame()
    assert not server.shown_layers


def test_lines_and_colours() -> None:
    lines = box_lines(read_ground_truth(truth(box(1, 2), box(3, 4)), NAMES))
    assert lines.shape == (26, 2, 3)
    np.testing.assert_allclose(lines[12], [[1, 2, 0], [3, 2, 0]])  # the tick ends in the middle of the front face
    low, high = point_colors(np.array([[0, 0, -1, 0], [0, 0, 3, 0]], np.float32), "height")
    assert (low != high).any() and point_colors(np.zeros((2, 3), np.float32), "time").shape == (2, 3)


def screenshot(port: int, folder: Path, milliseconds: int) -> np.ndarray:
    """Return the 3D scene of the page ``[H, W, 3]`` as a browser shows it after so much of its own time."""
    picture = folder / f"page_{milliseconds}.png"
    flags = "--headless --no-sandbox --use-angle=swiftshader --enable-unsafe-swiftshader --window-size=1000,700"
    command = [CHROMIUM, *flags.split(), f"--virtual-time-budget={milliseconds}", f"--screenshot={picture}"]
    command += [f"--user-data-dir={folder / 'profile'}", f"http://localhost:{port}"]
    subprocess.run(command, capture_output=True, timeout=120, check=True)
    return cv2.imread(str(picture)).astype(int)[170:, :650]  # beside the controls, below the browser's notice


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_a_browser_shows_points_and_boxes(server: SceneServer, tmp_path: Path) -> None:
    """The browser's time runs ahead of the server's on a busy machine, so it gets more of it until all is there."""
    for milliseconds in (15_000, 60_000, 240_000, 240_000):
        scene = screenshot(server.port, tmp_path, milliseconds)
        blue, green, red = scene.transpose(2, 0, 1)
        darkest, brightest = scene.min(axis=2), scene.max(axis=2)  # white is drawn grey while the page brightens up
        found = {
            "the car's orange lines": int(((red > 150) & (blue < 110)).sum()),
            "the layer's green points": int(((green > 150) & (red < 60) & (blue < 60)).sum()),
            "white lines of the ground truth": int(((darkest > 120) & (brightest - darkest < 25)).sum()),
            "colours of points by height": len(np.unique(scene.reshape(-1, 3), axis=0)),
        }
        if min(found.values()) > 50:
            return
    pytest.fail(f"the page never showed all of it; pixels and colours: {found}")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with a small data set."""
    frames = list(scene_frames(load_tables(SYNTH / "v1.0-mini", ["scene-0061"]), "scene-0061", SYNTH))
    folder = tmp_path / "data"
    folder.mkdir()
    write_index(folder / "sparse3d_val.arrow", frames, {}, SYNTH)
    for name in ("samples", "sweeps"):
        (folder / name).symlink_to(SYNTH / name)
    return folder


def test_the_tool_shows_what_the_model_looked_at(tool: ToolRunner, data: Path, tmp_path: Path) -> None:  # noqa: F811
    config = load_config(find_config("focals_conv_demo"))
    init_default_scope(config.default_scope)
    weights, page = tmp_path / "weights.pth", tmp_path / "scene.html"
    torch.save({"state_dict": MODELS.build(config.model).state_dict()}, weights)
    tool("view", "focals_conv_demo", "--weights", weights, "--data", data, "--frames", "0:1", "--html", page)
    [frame] = scene_of(Page(page.read_text(encoding="utf-8")))["frames"]
    found = {layer["name"]: layer["count"] for layer in frame["layers"]}
    assert list(found)[:2] == ["stage 1: kept", "stage 1: grown"] and len(found) == 6 and max(found.values()) > 0


def test_the_tool_writes_a_page(tool: ToolRunner, data: Path, tmp_path: Path) -> None:  # noqa: F811
    page = tmp_path / "scene.html"
    tool("view", "pillar_tiny", "--data", data, "--frames", "0:2", "--html", page)
    found = scene_of(Page(page.read_text(encoding="utf-8")))["frames"]
    assert len(found) == 2 and found[0]["count"] > 100 and len(found[0]["cameras"]) == 6
    assert found[0]["gt"]["boxes"]
    with pytest.raises(SystemExit, match="none of them"):
        tool("view", "pillar_tiny", "--data", data, "--frames", "90:", "--html", page)
