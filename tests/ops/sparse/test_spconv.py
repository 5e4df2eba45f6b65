"""A ``state_dict`` of spconv 2.x loads unchanged and gives the numbers of spconv 2.x."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from pathlib import Path

import pytest
import torch

import sparse3d_ops.sparse as ours
from sparse3d_ops.sparse import SparseSequential

from .cases import sparse_tensor

KEY = {"indice_key": "down"}
CASES = {  # modules of spconv: name, positional arguments, the rest
    "submanifold": [("SubMConv3d", (4, 6, 3), {})],
    "submanifold of 5 taps": [("SubMConv3d", (4, 6, 5), {"bias": False})],
    "submanifold of 1 tap": [("SubMConv3d", (4, 6, 1), {})],
    "strided": [("SparseConv3d", (4, 6, 3, 2, 1), {})],
    "strided, padded aside": [("SparseConv3d", (4, 6, 3, 2, (0, 1, 1)), {"bias": False})],
    "strided along z": [("SparseConv3d", (4, 6, (3, 1, 1), (2, 1, 1)), {"bias": False})],
    "dense growth": [("SparseConv3d", (4, 6, 3, 1, 1), {})],
    "1 tap": [("SparseConv3d", (4, 6, 1), {})],
    "transposed": [("SparseConvTranspose3d", (4, 6, 3, 2, 1), {})],
    "inverse": [("SparseConv3d", (4, 6, 3, 2, 1), KEY), ("SparseInverseConv3d", (6, 5, 3), KEY)],
    "maximum": [("SparseMaxPool3d", (3, 2, 1), {})],
    "flat, submanifold": [("SubMConv2d", (4, 6, 3), {})],
    "flat, strided": [("SparseConv2d", (4, 6, 3, 2, 1), {})],
    "encoder": [
        ("SubMConv3d", (4, 8, 3), {"bias": False}),
        ("SubMConv3d", (8, 8, 3), {}),
        ("SparseConv3d", (8, 16, 3, 2, 1), {"bias": False}),
        ("SubMConv3d", (16, 16, 3), {"bias": False}),
        ("SparseConv3d", (16, 16, (3, 1, 1), (2, 1, 1)), {"bias": False}),
    ],
}


def build(modules: list) -> SparseSequential:
    """Our modules for the same arguments; what spconv calls by a key needs none."""
    made = []
    for kind, args, options in modules:
        kept = {name: value for name, value in options.items() if name != "indice_key"}
        made.append(getattr(ours, kind)(*args, **kept))
    return SparseSequential(*made)


def make_case(name: str) -> tuple[dict, SparseSequential]:
    modules = CASES[name]
    net = build(modules)
    shape = (9, 12) if "flat" in name else (7, 9, 12)
    x = sparse_tensor(shape, 4, 2, 0.2, torch.float32, seed=len(name))
    features = x.features.abs() if name == "maximum" else x.features  # spconv's CPU pooling takes the maximum with 0
    case = {"modules": modules, "state": net.state_dict(), "features": features, "indices": x.indices.contiguous()}
    return {**case, "shape": list(shape), "batch_size": 2}, net


@pytest.fixture(scope="module")
def oracle(python: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[dict, SparseSequential, dict]]:
    """Each case, our modules, and spconv's output."""
    if importlib.util.find_spec("spconv") is None:
        pytest.skip("spconv is not installed")
    folder = tmp_path_factory.mktemp("spconv")
    torch.manual_seed(0)
    cases = {name: make_case(name) for name in CASES}
    torch.save([case for case, _ in cases.values()], folder / "cases.pt")
    script = Path(__file__).with_name("spconv_oracle.py")
    command = [python, str(script), str(folder / "cases.pt"), str(folder / "out.pt")]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, timeout=170)
    outputs = torch.load(folder / "out.pt")
    return {name: (*cases[name], out) for name, out in zip(CASES, outputs, strict=True)}


@pytest.mark.parametrize("name", CASES)
def test_equals_spconv(oracle: dict, name: str) -> None:
    case, net, expected = oracle[name]
    x = ours.SparseTensor(case["features"], case["indices"], case["shape"], case["batch_size"])
    with torch.no_grad():
        out = net(x)
    assert list(out.spatial_shape) == expected["shape"]
    order = sort_rows(expected["indices"], expected["shape"])
    assert torch.equal(out.indices, expected["indices"][order])
    torch.testing.assert_close(out.features, expected["features"][order], rtol=1e-5, atol=1e-6)


def sort_rows(indices: torch.Tensor, shape: list[int]) -> torch.Tensor:
    """The order of ascending keys; spconv's rows come as its hash table holds them."""
    key = indices[:, 0].long()
    for axis, extent in enumerate(shape):
        key = key * extent + indices[:, 1 + axis]
    return key.argsort()
