"""The definition in plain torch: it runs on every device, and every other backend is tested against it."""

from __future__ import annotations

import torch
from torch import Tensor

from ...coords import lookup
from ..geometry import Geometry, Triple
from ..kernel_map import KernelMap, from_rows


class Reference:
    """Sparse convolution in plain torch; other backends override what they do faster.

    All methods take int32 ``coords`` ``[N, 4]`` ``(batch, z, y, x)`` and int64 ``keys`` ``[N]`` in ascending order.
    """

    name = "reference"

    def why_not(self, device: torch.device) -> str | None:
        """Return why this backend cannot run on a device, None where it can."""
        return None

    def coarse_keys(self, coords: Tensor, geometry: Geometry, shape: Triple, batch_size: int) -> Tensor:
        """Return the ascending keys of all coarse sites of a grid of ``shape`` that some fine site reaches."""
        steps, dilation, padding, stride, extents = _axes(coords, geometry, shape)
        reach = coords[:, None, 1:].long() + padding - steps * dilation  # [N, K, 3]
        coarse = reach.div(stride, rounding_mode="floor")
        return _unique_keys(coords, coarse, (coarse * stride == reach) & (coarse >= 0) & (coarse < extents), shape)

    def fine_keys(self, coords: Tensor, geometry: Geometry, shape: Triple, batch_size: int) -> Tensor:
        """Return the ascending keys of all fine sites of a grid of ``shape`` that some coarse site reaches."""
        steps, dilation, padding, stride, extents = _axes(coords, geometry, shape)
        fine = coords[:, None, 1:].long() * stride + steps * dilation - padding
        return _unique_keys(coords, fine, (fine >= 0) & (fine < extents), shape)

    def match(
        self,
        fine_keys: Tensor,  # [N]
        fine_shape: Triple,
        coarse: Tensor,  # [M, 4]
        geometry: Geometry,
        is_submanifold: bool,
    ) -> KernelMap:
        """Return the map from fine to coarse sites."""
        steps, dilation, padding, stride, extents = _axes(coarse, geometry, fine_shape)
        fine = coarse[:, None, 1:].long() * stride + steps * dilation - padding
        inside = ((fine >= 0) & (fine < extents)).all(dim=2)
        keys = _keys(coarse, fine, fine_shape).where(inside, -1)
        rows = lookup(fine_keys, keys.T.flatten()).view(geometry.volume, len(coarse))
        return from_rows(rows, len(fine_keys), geometry, is_submanifold)

    def convolve(
        self,
        features: Tensor,  # [N, Cin]
        weight: Tensor,  # [Cout, K, Cin]
        bias: Tensor | None,  # [Cout]
        kernel_map: KernelMap,
    ) -> Tensor:  # [M, Cout]
        """Return the convolution; sums are in float32 (float64 for float64), the result in the features' dtype."""
        wide = torch.promote_types(features.dtype, torch.float32)
        out = torch.zeros(kernel_map.num_outputs, len(weight), dtype=wide, device=features.device)
        inputs, outputs = kernel_map.inputs.long(), kernel_map.outputs.long()
        for tap, (start, stop) in enumerate(kernel_map.tap_ranges()):
            product = features[inputs[start:stop]].to(wide) @ weight[:, tap].to(wide).T
            out = out.index_add(0, outputs[start:stop], product)
        return (out if bias is None else out + bias.to(wide)).to(features.dtype)


def _axes(coords: Tensor, geometry: Geometry, shape: Triple) -> tuple[Tensor, ...]:
    """Return taps ``[K, 3]``, dilation, padding, stride and shape ``[3]`` on the device of the sites."""
    values = (geometry.dilation, geometry.padding, geometry.stride, shape)
    return tuple(part.to(coords.device) for part in (geometry.taps(), *map(torch.tensor, values)))


def _keys(coords: Tensor, sites: Tensor, shape: Triple) -> Tensor:
    """Return the keys ``[N, K]`` of sites ``[N, K, 3]`` in the samples of ``coords``."""
    z, y, x = sites.unbind(-1)
    return ((coords[:, :1].long() * shape[0] + z) * shape[1] + y) * shape[2] + x


def _unique_keys(coords: Tensor, sites: Tensor, valid: Tensor, shape: Triple) -> Tensor:
    return torch.unique(_keys(coords, sites, shape)[valid.all(dim=2)])
