"""CUDA backends of others: spconv 2.x (compiled wheels), and spconv-triton, which has the same functional interface.

Kernel maps are ours, so sites, their order and their sharing are the same as everywhere; a layer hands the map to the
package's implicit GEMM as it wants it: the neighbour tables of both directions, and rows sorted by their sets of taps,
one int32 of bits each. float16 is summed in float32. Neither package takes bfloat16 under this interface, float64, or
more than 31 taps this way; each is an error that says so.

Written against spconv 2.3.8 and spconv-triton 1.0.0.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from ..geometry import Geometry, Triple
from ..kernel_map import KernelMap
from .reference import Reference
from .triton import Triton

MAX_TAPS = 31  # bits of a positive int32
DTYPES = (torch.float16, torch.float32)


class Spconv(Reference):
    """Convolutions by spconv; maps by our Triton kernels where triton is installed, else by plain torch."""

    name = "spconv"
    package = "spconv"

    def why_not(self, device: torch.device) -> str | None:
        """Return None for CUDA with a CUDA build of the package installed."""
        if device.type != "cuda":
            return "it runs on CUDA"
        if find_spec(self.package) is None:
            return f"{self.package} is not installed"
        return None if self.package_has_cuda() else f"this build of {self.package} is for CPUs"

    def package_has_cuda(self) -> bool:
        """Return whether the installed build has CUDA kernels."""
        return not import_module("spconv.cppconstants").CPU_ONLY_BUILD

    @cached_property
    def maps(self) -> Reference:
        """What finds kernel maps."""
        return Reference() if find_spec("triton") is None else Triton()

    @cached_property
    def functional(self) -> ModuleType:
        """The package's functional interface."""
        return import_module(f"{self.package}.pytorch.functional")

    def coarse_keys(self, coords: Tensor, geometry: Geometry, shape: Triple, batch_size: int) -> Tensor:
        """See `Reference`."""
        return self.maps.coarse_keys(coords, geometry, shape, batch_size)

    def fine_keys(self, coords: Tensor, geometry: Geometry, shape: Triple, batch_size: int) -> Tensor:
        """See `Reference`."""
        return self.maps.fine_keys(coords, geometry, shape, batch_size)

    def match(
        self, fine_keys: Tensor, fine_shape: Triple, coarse: Tensor, geometry: Geometry, is_submanifold: bool
    ) -> KernelMap:
        """See `Reference`."""
        return self.maps.match(fine_keys, fine_shape, coarse, geometry, is_submanifold)

    def convolve(self, features: Tensor, weight: Tensor, bias: Tensor | None, kernel_map: KernelMap) -> Tensor:
        """See `Reference`; differentiable once.

        Raises:
            ValueError: if the package does not take the dtype or so many taps.
        """
        if features.dtype not in DTYPES or kernel_map.num_taps > MAX_TAPS:
            raise ValueError(
                f"backend {self.name!r} takes float16 or float32 and at most {MAX_TAPS} taps, got {features.dtype} and "
                f"{kernel_map.num_taps} taps; choose 'triton' or 'reference'"
            )
        if min(kernel_map.num_inputs, kernel_map.num_outputs) == 0:  # the packages refuse empty tensors
            return super().convolve(features, weight, bias, kernel_map)
        there = kernel_map.form("implicit_gemm", lambda: Form.of(kernel_map))
        back = there  # not read
        if torch.is_grad_enabled():
            back = kernel_map.form("implicit_gemm_back", lambda: Form.of(kernel_map.transpose()))
        out = self.functional.SparseImplicitGemmFunction.apply(
            features.contiguous(),
            weight.contiguous(),
            there.table,
            back.table,
            [there.taps],
            [back.taps],
            [there.order],
            [back.order],
            kernel_map.num_outputs,
            [np.array([0xFFFFFFFF], dtype=np.uint32)],
            torch.is_grad_enabled(),
            False,  # not told that a map is submanifold: both directions are given
            import_module(f"{self.package}.tools").CUDAKernelTimer(False),
            True,  # sum in float32
        )
        return out if bias is None else (out + bias).to(out.dtype)


class SpconvTriton(Spconv):
    """Convolutions by spconv-triton; maps as `Spconv`."""

    name = "spconv_triton"
    package = "spconv_triton"

    def package_has_cuda(self) -> bool:
        """Return True: it is compiled where it runs."""
        return True


@dataclass(frozen=True)
class Form:
    """One direction of a kernel map as implicit GEMM takes it.

    Args:
        table: ``[K, M]`` int32 input row under each tap of each output row, -1 for none.
        taps: ``[M, 1]`` int32, bit k set where there is a tap k; ascending.
        order: ``[M]`` int32, the output row that each entry of ``taps`` belongs to.
    """

    table: Tensor
    taps: Tensor
    order: Tensor

    @classmethod
    def of(cls, kernel_map: KernelMap) -> Form:
        """Return the form of a map of at most 31 taps."""
        table = kernel_map.table()
        bits = torch.arange(len(table), dtype=torch.int32, device=table.device)[:, None]
        taps, order = torch.sort(((table >= 0).int() << bits).sum(dim=0, dtype=torch.int32), stable=True)
        return cls(table, taps[:, None], order.int())
