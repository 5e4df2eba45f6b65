"""Counts that are known by hand, and a sparse layer that costs what its pairs cost."""

from __future__ import annotations

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

from sparse3d.analysis.flops import count_costs
from sparse3d.analysis.samples import made_up_sample, ring_of_cameras
from sparse3d.registry import MODELS
from sparse3d.structures import Sample
from sparse3d.zoo import find_config
from sparse3d_ops.sparse import SparseTensor, SubMConv3d
from tests.e2e.conftest import ToolRunner, tool  # noqa: F401 (a fixture)
from tests.models.reduced import reduced


class Toy(nn.Module):
    """A dense convolution on a 4 x 4 map, and a sparse one on a row of three sites."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Conv2d(2, 5, 3, padding=1)
        self.sparse = SubMConv3d(2, 3, 3)

    def test_step(self, samples: list) -> None:
        self(samples)

    def forward(self, samples: list) -> None:
        self.dense(torch.zeros(1, 2, 4, 4))
        coords = torch.tensor([[0, 1, 1, x] for x in (1, 2, 3)], dtype=torch.int32)
        self.sparse(SparseTensor(torch.zeros(3, 2), coords, (3, 3, 5), batch_size=1))


def test_counts_by_hand() -> None:
    whole, dense, sparse = count_costs(Toy(), [Sample()], depth=1)
    assert (dense.name, dense.multiply_adds, dense.parameters) == ("dense", 4 * 4 * 9 * 2 * 5, 2 * 5 * 9 + 5)
    pairs = 3 + 2 + 2  # each site under the middle tap, and the neighbours to either side
    assert (sparse.name, sparse.multiply_adds, sparse.parameters) == ("sparse", pairs * 2 * 3, 27 * 2 * 3 + 3)
    assert (whole.name, whole.multiply_adds) == ("", dense.multiply_adds + sparse.multiply_adds)


@pytest.mark.parametrize("name", ["focals_conv_demo", "sparsebev_r18_demo", "pillar_tiny"])
def test_any_model_can_be_counted(name: str) -> None:
    config: Config = reduced(find_config(name))
    init_default_scope(config.default_scope)
    detector = MODELS.build(config.model)
    whole, *parts = count_costs(detector, [made_up_sample(config)], depth=1)
    assert whole.parameters == sum(part.parameters for part in parts) > 0
    assert whole.multiply_adds == sum(part.multiply_adds for part in parts) > 0


def test_cameras_stand_in_a_ring() -> None:
    cameras = ring_of_cameras(6, 100, 200)
    ahead = torch.stack([torch.arange(6) * torch.pi / 3]).T
    points = torch.cat([10 * ahead.cos(), 10 * ahead.sin(), torch.full((6, 1), -0.3)], dim=1)
    pixels, depth = cameras.project(points)
    own = torch.arange(6)
    torch.testing.assert_close(pixels[own, own].float(), torch.tensor([100.0, 50.0]).expand(6, 2), atol=1e-3, rtol=0)
    assert torch.allclose(depth[own, own].float(), torch.tensor(10.0))


def test_the_tool_prints_a_table(tool: ToolRunner) -> None:  # noqa: F811
    printed = tool("flops", "pillar_tiny", "--depth", "1")
    assert "whole" in printed and "point_branch" in printed
