"""Camera images in the page: what it holds, and in a real browser what it draws."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from sparse3d.analysis.samples import ring_of_cameras
from sparse3d.structures import Sample
from sparse3d.visualization import write_scene_html
from tests.visualization.scenes import NAMES, box, predictions, truth
from tests.visualization.test_web import CHROMIUM, Page, cloud, open_page, scene_of

SIZE = (180, 320)


def camera_sample() -> Sample:
    """Six grey images; a car 10 m ahead, in the first camera's middle, and ground truth behind the vehicle."""
    images = torch.full((6, 3, *SIZE), 90, dtype=torch.uint8)
    return Sample(
        points=cloud(), images=images, cameras=ring_of_cameras(6, *SIZE),
        pred=predictions(box(10, 0), scores=[0.8]), gt=truth(box(-10, 0)),
    )  # fmt: skip


def write(path: Path, samples: list[Sample]) -> Page:
    write_scene_html(path, samples, NAMES)
    return Page(path.read_text(encoding="utf-8"))


def test_images_and_matrices_come_back(tmp_path: Path) -> None:
    sample = camera_sample()
    cameras = scene_of(write(tmp_path / "scene.html", [sample]))["frames"][0]["cameras"]
    assert [each["name"] for each in cameras] == list(sample.cameras.names)
    data = base64.b64decode(cameras[0]["image"].removeprefix("data:image/jpeg;base64,"))
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert image.shape == (cameras[0]["height"], cameras[0]["width"], 3) == (270, 480, 3)
    assert np.abs(image.astype(int) - 90).max() <= 2
    matrix = np.array(cameras[0]["matrix"]).reshape(4, 4)
    u, v, depth, _ = matrix @ [10, 0, -0.3, 1]
    assert (u / depth, v / depth, depth) == pytest.approx((240, 135, 10), abs=1e-3)


def test_a_page_without_images_has_no_cameras(tmp_path: Path) -> None:
    assert scene_of(write(tmp_path / "scene.html", [Sample(points=cloud())]))["frames"][0]["cameras"] == []


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_boxes_are_drawn_over_the_images(tmp_path: Path) -> None:
    path = tmp_path / "scene.html"
    write(path, [camera_sample(), camera_sample()])
    checks = """
    <script>
    const drawn = () => [...document.querySelectorAll("#cameras canvas")].map((canvas) => {
      const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
      let orange = 0, white = 0, grey = 0;
      for (let place = 0; place < pixels.length; place += 4) {
        const [r, g, b] = pixels.slice(place, place + 3);
        if (r > 200 && b < 120) orange++;
        if (r > 200 && g > 200 && b > 200) white++;
        if (Math.abs(r - 90) < 4 && Math.abs(b - 90) < 4) grey++;
      }
      return [orange > 50, white > 50, grey > 10000];
    });
    setTimeout(() => {
      const before = drawn();
      element("score").value = 0.9;
      element("score").dispatchEvent(new Event("input"));
      const strict = drawn();
      element("play").click();
      setTimeout(() => {
        document.title = JSON.stringify({ before, strict: strict[0], frame: state.frame,
          rows: element("images-row").hidden });
      }, 700);
    }, 800);
    </script></body>"""
    path.write_text(path.read_text(encoding="utf-8").replace("</body>", checks), encoding="utf-8")
    dom = Page(open_page(path, tmp_path / "profile"))
    title = next(text for text in dom.texts if text.startswith('{"before"'))
    assert json.loads(title) == {
        "before": [[True, False, True], *[[False, False, True]] * 2, [False, True, True], *[[False, False, True]] * 2],
        "strict": [False, False, True],  # the prediction scores less
        "frame": 1,
        "rows": False,
    }
