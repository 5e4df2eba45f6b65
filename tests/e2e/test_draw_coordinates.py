"""The pictures of conventions are those of the documentation."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from tests.conftest import REPOSITORY
from tests.e2e.conftest import ToolRunner, tool  # noqa: F401 (a fixture)


def test_the_pictures_are_those_of_the_page(tool: ToolRunner, tmp_path: Path) -> None:  # noqa: F811
    tool("draw_coordinates", "--out", tmp_path)
    pictures = sorted(tmp_path.iterdir())
    assert [path.name for path in pictures] == ["coordinate_boxes.png", "coordinate_frames.png"]
    for path in pictures:
        drawn, kept = cv2.imread(str(path)), cv2.imread(str(REPOSITORY / "docs" / "images" / path.name))
        assert drawn.shape == kept.shape
        assert np.abs(drawn.astype(int) - kept).mean() < 2  # fonts differ a little between releases
