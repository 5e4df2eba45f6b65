"""Our Triton kernels compile for GPUs, which needs none, and keep the loads of later steps in flight."""

from __future__ import annotations

import re

import pytest
import torch

from sparse3d_ops.sparse.backends.triton import INTERPRETED, Tile

triton = pytest.importorskip("triton", reason="triton is not installed")
if INTERPRETED:
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from sparse3d_ops._triton import convolution, maps, sampling  # noqa: E402

RULE = {"SIZE": (3, 3, 3), "STRIDE": (2, 2, 2), "PADDING": (1, 1, 1), "DILATION": (1, 1, 1)}
POINTERS = {
    "words": "i32", "counts": "i32", "ranks": "i32", "keys": "i64", "coords": "i32", "coarse": "i32", "table": "i32",
    "bits": "i32", "order": "i32", "tiles": "i32", "inputs": "i32", "outputs": "i32", "runs": "i64", "firsts": "i32",
    "partial": "fp32", "bias": "fp32",
}  # fmt: skip
ATOMIC = re.compile(r"\b(?:atom|red)\.\w+\.[\w.]+")
SHARED_MEMORY = {80: 163 << 10, 90: 227 << 10}  # bytes of a program


def compiled(kernel, capability: int, constants: dict, options: dict | None = None, **types: str):
    """Compile a kernel; pointers are of the named types, numbers are int32, and both divide by 16 where they matter."""
    names = kernel.arg_names
    signature = {name: "constexpr" if name in constants else "i32" for name in names}
    for name, kind in {**POINTERS, **types}.items():
        if name in signature and name not in constants:
            signature[name] = f"*{kind}"
    aligned = {(names.index(n),): [["tt.divisibility", 16]] for n, kind in signature.items() if kind.startswith("*")}
    aligned |= {
        (names.index(n),): [["tt.divisibility", 16]] for n in ("num_rows", "out_stride", "tap_stride") if n in names
    }
    if "in_stride" in names:
        constants = {**constants, "in_stride": 1}
        signature["in_stride"] = "constexpr"
    source = ASTSource(kernel, signature, constants, aligned)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options or {"num_warps": 4})


@pytest.mark.parametrize("capability", [80, 90])
def test_map_kernels(capability: int) -> None:
    block = {"BLOCK": maps.BLOCK}
    reached = compiled(maps.reach, capability, {**RULE, **block, "TO_COARSE": True}).asm["ptx"]
    assert {operation.split(".")[-2] for operation in ATOMIC.findall(reached)} == {"or"}
    for kernel, constants in (
        (maps.count_bits, block),
        (maps.list_keys, block),
        (maps.find, {**RULE, **block, "STEPS": 17}),
        (maps.order_keys, {**block, "TAPS": 27}),
    ):
        ptx = compiled(kernel, capability, constants, out="i64").asm["ptx"]
        assert not ATOMIC.search(ptx)


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(
    ("dtype", "channels", "rows"),
    [
        (torch.float16, 16, 100_000),
        (torch.float16, 64, 100_000),
        (torch.float16, 128, 20_000),
        (torch.float16, 256, 50_000),
        (torch.bfloat16, 128, 100_000),
        (torch.float32, 64, 100_000),
    ],
)
def test_convolution(dtype: torch.dtype, channels: int, rows: int, capability: int) -> None:
    tile = Tile.of(rows, channels, channels, dtype)
    constants = {
        "IN": channels, "OUT": channels, "TAPS": 27, "MIRROR": False, "HAS_BIAS": True, "WIDEN": False,
        "PRECISION": "tf32x3", "ROWS": tile.rows, "COLUMNS": tile.columns, "CHANNELS": tile.channels,
    }  # fmt: skip
    options = {"num_warps": tile.warps, "num_stages": tile.stages}
    kind = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32"}[dtype]
    types = dict.fromkeys(("features", "weight", "out"), kind)
    made = compiled(convolution.implicit_gemm, capability, constants, options, **types)
    ptx = made.asm["ptx"]
    assert "cp.async" in ptx, "loads wait for each other"
    assert "wgmma.mma_async" in ptx or "mma.sync" in ptx, "no tensor core"
    assert not ATOMIC.search(ptx)
    assert made.metadata.shared <= SHARED_MEMORY[capability]


@pytest.mark.parametrize("capability", [80, 90])
def test_weight_gradient(capability: int) -> None:
    constants = {
        "IN": 64, "OUT": 64, "WIDEN": False, "PRECISION": "tf32x3", "PAIRS": 64, "ROWS": 64, "COLUMNS": 64,
    }  # fmt: skip
    options = {"num_warps": 4, "num_stages": 3}
    made = compiled(convolution.weight_gradient, capability, constants, options, features="fp16", gradient="fp16")
    assert "cp.async" in made.asm["ptx"]
    compiled(convolution.add_runs, capability, {"BLOCK": 1024}, out="fp32")


@pytest.mark.parametrize("capability", [80, 90])
def test_sampling(capability: int) -> None:
    constants = {
        "GROUPS": 4, "FRAMES": 8, "POINTS_EACH": 4, "VIEWS": 1, "LEVELS": 4, "CHANNELS": 64, "LANES": 64,
        "BLOCK": sampling.POINTS,
    }  # fmt: skip
    names = ("features", "locations", "weights", "out", "gradients", "to_features", "to_locations", "to_weights")
    types = {**dict.fromkeys(names, "fp32"), "views": "i64"}
    forward = compiled(sampling.sample_level, capability, constants, **types).asm["ptx"]
    backward = compiled(sampling.sample_level_backward, capability, {**constants, "WANTED": True}, **types).asm["ptx"]
    frozen = compiled(sampling.sample_level_backward, capability, {**constants, "WANTED": False}, **types).asm["ptx"]
    assert not ATOMIC.search(forward) and not ATOMIC.search(frozen)
    assert ATOMIC.search(backward) and all(".add." in operation for operation in ATOMIC.findall(backward))
    assert "ld.global.v4" in forward  # a pixel is read four channels at a time
