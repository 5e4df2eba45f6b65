"""The weights that come with the zoo detect something sensible, by the name of their model alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sparse3d import Detector
from sparse3d.datasets.point_files import read_scan
from sparse3d.zoo import configs_folder, find_weights, models
from sparse3d_ops import points_in_boxes
from tests.e2e.conftest import ToolRunner, tool  # noqa: F401 (a fixture)

SCAN = configs_folder() / "demo" / "scan.npy"
SMALL = 3 << 20  # bytes: what comes with the package stays small


def test_the_zoo_knows_its_weights() -> None:
    assert find_weights("pillar_demo") == find_weights(configs_folder() / "demo" / "pillar_demo.py")
    with pytest.raises(FileNotFoundError, match="no weights for 'pillar_tiny'"):
        find_weights("pillar_tiny")
    with pytest.raises(FileNotFoundError, match="no weights"):
        Detector("pillar_tiny")
    assert all(model.weights.stat().st_size < SMALL for model in models() if model.weights is not None)


def test_a_scan_by_the_models_name() -> None:
    found = Detector("pillar_demo")(SCAN).above(0.3)
    assert found.names.count("car") >= 8 and len(set(found.names)) >= 5
    points = torch.from_numpy(read_scan(SCAN))[:, :3]
    assert (points.abs() < 120).all()
    inside = points_in_boxes(points, found.boxes.tensor[:, :7].float())
    hit = torch.bincount(inside[inside >= 0], minlength=len(found)) > 0
    assert hit.float().mean() > 0.7  # boxes stand where the scan has returns
    heights = found.boxes.sizes[:, 2]
    assert ((heights > 0.3) & (heights < 6)).all()


def test_the_first_command_of_the_readme(tool: ToolRunner, tmp_path: Path) -> None:  # noqa: F811
    page = tmp_path / "found.html"
    printed = tool("infer", "pillar_demo", "configs/demo/scan.npy", "--score", "0.3", "--html", page)
    assert printed.startswith("scan.npy: ") and " car" in printed
    assert page.stat().st_size > 200_000
