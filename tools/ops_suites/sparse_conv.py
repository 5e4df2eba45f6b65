"""Sparse convolution on the voxels of a scan: kernel maps, layers, and the encoder of CenterPoint.

spconv is the peer. Its CPU convolution is right with one OpenMP thread only, so it has one, and so has a second row of
ours; the first row of ours has as many threads as the command line says. Every case first checks that both give the
same numbers. The rows called ``gemm`` are a floor: torch's products of as many rows, lying side by side, and no more.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from argparse import Namespace
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import sparse3d_ops as ops
from ops_suites.kernels import POINT_RANGE, VOXEL_SIZES, lidar_points
from ops_suites.memory import peak_memory
from ops_suites.timing import Alone, Case, Function
from sparse3d_ops import sparse
from sparse3d_ops.sparse import Geometry, Sites, SparseTensor, use_backend

CHANNELS = (16, 32, 64, 128)
SUBMANIFOLD = Geometry.submanifold(3, 3)
HALVE = Geometry.of(3, 3, 2, 1)
Layer = tuple[str, tuple[Any, ...], str]  # module, arguments, spconv's key
TOLERANCE = 1e-3  # of float32 sums in another order, relative to the largest value


def sparse_conv_suite(options: Namespace) -> Iterator[Case]:
    """Maps, layers and an encoder."""
    sites = load_sites(options)
    torch.manual_seed(0)
    peer = load_spconv()
    yield from map_cases(sites, peer)
    for channels in CHANNELS:
        yield from layer_cases(sites, channels, peer)
    yield from encoder_cases(sites, peer)


def load_sites(options: Namespace) -> Sites:
    """Return the voxels that the command line names, or those of made-up sweeps."""
    if options.voxels is None:
        points, batch_index = lidar_points(300_000)
        size = VOXEL_SIZES["0.075 m voxels"]
        coords = ops.voxelize(points, batch_index, POINT_RANGE, size, 1).coords
        depth, height, width = ops.grid_shape(POINT_RANGE, size)
        return Sites(coords, (depth + 1, height, width), 1)
    with np.load(options.voxels) as file:
        missing = {"indices", "spatial_shape"} - set(file)
        if missing:
            sys.exit(f"--voxels {options.voxels}: no array {', '.join(sorted(missing))}; found {', '.join(file)}")
        indices, shape = torch.from_numpy(file["indices"].astype(np.int32)), tuple(map(int, file["spatial_shape"]))
    coords = torch.nn.functional.pad(indices, (1, 0))
    return SparseTensor.coalesce(torch.zeros(len(coords), 1), coords, shape, 1).sites


def load_spconv() -> Any:
    """Return spconv's modules, None where it is not installed."""
    return None if importlib.util.find_spec("spconv") is None else importlib.import_module("spconv.pytorch")


def on_one_thread(ours: Function) -> dict[str, Function]:
    """Return ours on one thread, to stand beside ours on several."""
    return {} if torch.get_num_threads() == 1 else {"cpu, 1 thread": Alone(ours)}


# -- cases -------------------------------------------------------------------------------------------------------------


def map_cases(sites: Sites, peer: Any) -> Iterator[Case]:
    """Building a submanifold and a strided map."""
    for name, geometry, is_submanifold in (("subm3", SUBMANIFOLD, True), ("stride2", HALVE, False)):

        def ours(geometry: Geometry = geometry, is_submanifold: bool = is_submanifold) -> Any:
            fresh = without_maps(sites)
            return fresh.submanifold_map(geometry) if is_submanifold else fresh.coarsen(geometry)

        def definition(ours: Function = ours) -> Any:
            with use_backend("reference"):
                return ours()

        others = on_one_thread(ours)
        if peer is not None:
            others["spconv"] = Alone(spconv_pairs(sites, geometry, is_submanifold, peer))
        others["reference"] = definition
        yield Case(f"{name} map", ours, others, backend="cpu")


def without_maps(sites: Sites) -> Sites:
    """Return the same sites, of which no map is known; their coordinates are, as spconv is told them too."""
    return Sites.from_keys(sites.keys, sites.spatial_shape, sites.batch_size, coords=sites.coords)


def layer_cases(sites: Sites, channels: int, peer: Any) -> Iterator[Case]:
    """A submanifold layer: with its map, alone on a map that is there, and with its gradients."""
    layers: list[Layer] = [("SubMConv3d", (channels, channels, 3, 1, 1), "a")]
    pair = Pair(layers, sites, torch.randn(len(sites), channels), peer)
    pair.check()
    floor = {"gemm": products(sites.submanifold_map(SUBMANIFOLD), channels)}
    definition = {"reference": pair.definition}
    both = "forward + backward"
    yield Case("subm3", pair.fresh, pair.others(pair.fresh, pair.peer_forward()) | floor, "forward", channels, "cpu")
    others = pair.others(pair.forward, pair.peer_with_map()) | floor
    yield Case("subm3, map at hand", pair.forward, others, "forward", channels, "cpu")
    yield Case("subm3, map at hand", pair.backward, definition | pair.others(pair.backward), both, channels, "cpu")
    if peer is not None:
        yield memory_case("subm3", layers, sites, channels)


def encoder_cases(sites: Sites, peer: Any) -> Iterator[Case]:
    """CenterPoint's encoder of 21 convolutions with norms and its maps: inference, and a training step."""
    pair = Pair(encoder_layers(), sites, torch.randn(len(sites), 5), peer, with_norms=True)
    pair.check()
    yield Case("encoder", pair.fresh, pair.others(pair.fresh, pair.peer_forward()), "forward", backend="cpu")
    half = pair.in_bfloat16()
    yield Case("encoder", half, {"float32": pair.fresh}, "forward in bfloat16", backend="cpu")
    step, training_forward = "forward + backward", {"forward in training": pair.training_forward}
    yield Case(
        "encoder", pair.fresh_backward, training_forward | on_one_thread(pair.fresh_backward), step, backend="cpu"
    )
    if peer is not None:
        yield memory_case("encoder", encoder_layers(), sites, 5)


def memory_case(name: str, layers: list[Layer], sites: Sites, channels: int) -> Case:
    """Return how much memory a forward pass needs at its peak, of ours and of spconv, each in a process of its own."""

    def peak(library: str) -> Function:
        arguments = (library, layers, sites.indices.numpy(), sites.spatial_shape, channels)
        return lambda: peak_memory(few_and_all, *arguments)

    width = None if name == "encoder" else channels
    return Case(name, peak("cpu"), {"spconv": Alone(peak("spconv"))}, "memory", width, "cpu", "MiB")


def products(kernel_map: sparse.KernelMap, channels: int) -> Function:
    """Return the products of a layer, of rows that lie side by side."""
    counts = kernel_map.offsets.diff().tolist()
    rows = torch.randn(max(counts), channels)
    out, weight = torch.empty_like(rows), torch.randn(channels, channels)
    return lambda: [torch.mm(rows[:count], weight, out=out[:count]) for count in counts]


def encoder_layers() -> list[Layer]:
    """Return the layers of CenterPoint's encoder (without the sums of its residual blocks)."""
    layers: list[Layer] = [("SubMConv3d", (5, 16, 3, 1, 1), "res0")]
    widths = (16, 32, 64, 128)
    for level, width in enumerate(widths):
        if level:
            padding = (0, 1, 1) if level == 3 else 1
            layers.append(("SparseConv3d", (widths[level - 1], width, 3, 2, padding), f"down{level}"))
        layers += [("SubMConv3d", (width, width, 3, 1, 1), f"res{level}")] * 4
    return [*layers, ("SparseConv3d", (128, 128, (3, 1, 1), (2, 1, 1)), "out")]


# -- the two sides -----------------------------------------------------------------------------------------------------


class Pair:
    """The same layers of this project and of spconv, with the same parameters, in inference mode."""

    def __init__(
        self, layers: list[Layer], sites: Sites, features: Tensor, peer: Any, with_norms: bool = False
    ) -> None:
        self.sites, self.features, self.peer = sites, features, peer
        self.net = build(sparse, layers, with_norms)
        self.tensor = SparseTensor.on(sites, features)
        if peer is not None:
            self.peer_net = build(peer, layers, with_norms)
            self.peer_net.load_state_dict(self.net.state_dict())

    def check(self) -> None:
        """Stop unless both sides give the same numbers."""
        if self.peer is None:
            return
        ours, theirs = Alone(self.fresh)(), Alone(self.peer_forward())()
        order = sites_order(theirs.indices, theirs.spatial_shape)
        largest = ours.features.abs().max()
        if not torch.equal(ours.indices, theirs.indices[order]):
            sys.exit("sparse3d and spconv reach different sites")
        if (ours.features - theirs.features[order]).abs().max() > TOLERANCE * largest:
            sys.exit("sparse3d and spconv give different numbers")

    def others(self, ours: Function, theirs: Function | None = None) -> dict[str, Function]:
        """Return what stands beside ours: ours on one thread, and spconv."""
        found = on_one_thread(ours)
        if theirs is not None and self.peer is not None:
            found["spconv"] = Alone(theirs)
        return found

    def forward(self) -> SparseTensor:
        """Apply our layers to a tensor whose maps are there after the first call."""
        with torch.no_grad():
            return self.net(self.tensor)

    def fresh(self) -> SparseTensor:
        """Apply our layers to a tensor without maps."""
        with torch.no_grad():
            return self.net(self.fresh_tensor())

    def backward(self) -> Any:
        """Apply our layers to a tensor whose maps are there, and find all gradients."""
        return self._gradients(self.tensor)

    def fresh_backward(self) -> Any:
        """Apply our layers to a tensor without maps, and find all gradients."""
        return self._gradients(self.fresh_tensor())

    def training_forward(self) -> Any:
        """Do the first half of what ``fresh_backward`` does."""
        return self._training_output(self._leaf(self.fresh_tensor()))

    def definition(self) -> Any:
        """Do what ``backward`` does, by the reference."""
        with use_backend("reference"):
            return self.backward()

    def in_bfloat16(self) -> Function:
        """Return ``fresh`` under autocast."""

        def run() -> SparseTensor:
            with torch.autocast("cpu", torch.bfloat16):
                return self.fresh()

        return run

    def fresh_tensor(self) -> SparseTensor:
        """Return the input on sites that no map is known of."""
        return SparseTensor.on(without_maps(self.sites), self.features)

    def peer_forward(self) -> Function:
        """Return a function that applies spconv's layers to a tensor without maps."""
        return lambda: self._peer_apply({})

    def peer_with_map(self) -> Function:
        """Return a function that applies spconv's layers to a tensor whose maps are there after the first call."""
        known: dict[str, Any] = {}

        def run() -> Any:
            out = self._peer_apply(known)
            known.update(out.indice_dict)
            return out

        return run

    def _peer_apply(self, known: dict[str, Any]) -> Any:
        shape, indices = list(self.sites.spatial_shape), self.sites.indices.contiguous()
        x = self.peer.SparseConvTensor(self.features, indices, shape, self.sites.batch_size)
        x.indice_dict = dict(known)
        with torch.no_grad():
            return self.peer_net(x)

    def _gradients(self, x: SparseTensor) -> Any:
        leaf = self._leaf(x)
        return torch.autograd.grad(self._training_output(leaf).sum(), [leaf.features, *self.net.parameters()])

    def _leaf(self, x: SparseTensor) -> SparseTensor:
        return x.replace_features(self.features.clone().requires_grad_())

    def _training_output(self, x: SparseTensor) -> Tensor:
        self.net.train()
        out = self.net(x).features
        self.net.eval()
        return out


def build(library: Any, layers: list[Layer], with_norms: bool) -> nn.Module:
    """Return layers of a library, with norm and ReLU if asked for; keys are what spconv shares its maps by."""
    modules: list[nn.Module] = []
    for kind, arguments, key in layers:
        make = getattr(library, kind)
        if library is sparse:
            kept = arguments[:3] if kind == "SubMConv3d" else arguments
            modules.append(make(*kept, bias=False))
        else:
            modules.append(make(*arguments, bias=False, indice_key=key))
        if with_norms:
            modules += [nn.BatchNorm1d(arguments[1]), nn.ReLU()]
    return library.SparseSequential(*modules).eval()


def few_and_all(
    library: str, layers: list[Layer], indices: np.ndarray, shape: tuple[int, ...], channels: int
) -> tuple[Function, Function]:
    """Return a library's forward passes on two voxels and on all of them."""
    torch.manual_seed(0)
    coords = torch.from_numpy(indices)
    pair = Pair(layers, Sites(coords, shape, 1), torch.randn(len(coords), channels), load_spconv(), len(layers) > 1)
    few = Pair(layers, Sites(coords[:2], shape, 1), torch.randn(2, channels), pair.peer, len(layers) > 1)
    first, second = ((each.fresh if library == "cpu" else Alone(each.peer_forward())) for each in (few, pair))
    return first, second


def spconv_pairs(sites: Sites, geometry: Geometry, is_submanifold: bool, peer: Any) -> Function:
    """Return spconv's building of a map."""
    steps = [list(part) for part in (geometry.kernel_size, geometry.stride, geometry.padding, geometry.dilation)]
    indices, shape = sites.indices.contiguous(), list(sites.spatial_shape)
    algorithm = peer.ConvAlgo.Native
    return lambda: peer.ops.get_indice_pairs(
        indices, sites.batch_size, shape, algorithm, *steps, [0, 0, 0], is_submanifold, False
    )


def sites_order(indices: Tensor, shape: list[int]) -> Tensor:
    """Return the order of ascending keys of spconv's rows."""
    return ops.pack(indices, shape, int(indices[:, 0].max()) + 1).argsort()
