"""Sparse encoders as graphs of gathers and products: the encoder's own modules, with their convolutions exchanged.

An encoder is cut where a focal convolution lets voxels grow (`table_inputs.py`). What is left between two cuts is run
once on a single voxel, and each convolution is told by the sites that it meets which table it will read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparse3d.models.bev.scatter import stack_rows
from sparse3d.models.points.focal_conv import FocalConv
from sparse3d.models.points.sparse_encoder import SparseEncoder
from sparse3d_ops.sparse import (
    FocalGrowth,
    Geometry,
    Sites,
    SparseConv3d,
    SparseModule,
    SparseSequential,
    SparseTensor,
    SubMConv3d,
)
from sparse3d_ops.sparse.modules import Convolution

from .folding import affine, fold_sparse
from .map_graph import MapGraph
from .named import Named
from .table_inputs import Segment, Table

KNOWN = (SubMConv3d, SparseConv3d)


# -- the encoder in pieces ---------------------------------------------------------------------------------------------


@dataclass
class Piece:
    """The layers of an encoder between two growths.

    Args:
        layers: what makes features of features.
        scores: what makes a growth's scores of them, before the sigmoid; None for the last piece.
        growth: how voxels grow behind it; None for the last piece.
    """

    layers: SparseSequential
    scores: SparseSequential | None = None
    growth: FocalGrowth | None = None

    @property
    def parts(self) -> list[SparseSequential]:
        """``layers``, and ``scores`` where there are any."""
        return [self.layers] if self.scores is None else [self.layers, self.scores]


def cut(encoder: SparseEncoder) -> list[Piece]:
    """Return the pieces of an encoder, whose modules they share.

    Raises:
        ValueError: if the encoder has parameters that no piece holds.
    """
    pieces, layers = [], [encoder.stem]
    for number, stage in enumerate(encoder.stages, start=1):
        layers.append(stage)
        for focal in _focals_behind(encoder, number):
            described = [] if focal.enlarge is None else [focal.enlarge]
            scores = SparseSequential(*described, *_looking(focal), focal.predictor)
            pieces.append(Piece(SparseSequential(*layers), scores, focal.growth))
            added = [] if focal.image_fusion is None else [AddedImages(focal.norm)]
            layers = [SparseSequential(focal.conv, focal.norm, *added, nn.ReLU())]
    pieces.append(Piece(SparseSequential(*layers, encoder.squeeze)))
    held = {each for piece in pieces for part in piece.parts for each in part.parameters()}
    lost = [name for name, each in encoder.named_parameters() if each not in held]
    if lost:
        raise ValueError("export: these weights of the encoder do not reach a graph:\n  " + "\n  ".join(lost))
    return pieces


def _focals_behind(encoder: SparseEncoder, stage: int) -> list[FocalConv]:
    """Return the focal convolutions behind a stage, in their order."""
    focals: Mapping[str, FocalConv] = getattr(encoder, "focals", {})
    own = [focals[str(stage)]] if str(stage) in focals else []
    images = getattr(encoder, "image_focal", None)
    return [*own, images] if stage == 1 and images is not None else own


def _looking(focal: FocalConv) -> list[SparseModule]:
    return {None: [], "concat": [PrependedImages(focal.conv.in_channels)], "sum": [AddedImages()]}[focal.image_fusion]


# -- which convolution reads which table -------------------------------------------------------------------------------


class Surveyor:
    """Follows a single voxel through the pieces of an encoder and writes down the tables.

    Args:
        spatial_shape: extents ``(z, y, x)`` of level 0.
    """

    def __init__(self, spatial_shape: tuple[int, int, int]) -> None:
        self.levels = [Sites(torch.zeros(1, 4, dtype=torch.int32), spatial_shape, 1)]
        self.tables: list[Table] = []
        self.table_of: dict[Convolution, Table] = {}

    def survey(self, piece: Piece) -> Segment:
        """Return what a piece reads, and make the level that the next one begins at.

        Raises:
            ValueError: if a convolution is of another kind than submanifold or strided.
        """
        first, before = len(self.levels) - 1, len(self.tables)
        channels = next(each.in_channels for each in piece.layers.modules() if isinstance(each, Convolution))
        x = SparseTensor.on(self.levels[first], torch.zeros(len(self.levels[first]), channels))
        handles = [
            module.register_forward_hook(self._note)
            for part in piece.parts
            for module in part.modules()
            if isinstance(module, Convolution)
        ]
        x = piece.layers(x)
        if piece.scores is not None:
            piece.scores(x)
        for handle in handles:
            handle.remove()
        last = self._level(x.sites)
        if piece.growth is not None:
            self.levels.append(Sites.from_keys(x.sites.keys, x.spatial_shape, 1))
        return Segment(channels, first, last, tuple(self.tables[before:]), piece.growth)

    def _note(self, module: Convolution, inputs: tuple[SparseTensor], output: SparseTensor) -> None:
        if not isinstance(module, KNOWN) or module.geometry.is_pointwise:
            raise ValueError(f"export: {module} has no way into a graph yet")
        source, target = self._level(inputs[0].sites), self._level(output.sites)
        wanted = (source, target, module.geometry)
        found = [each for each in self.tables if (each.source, each.target, each.geometry) == wanted]
        self.table_of[module] = found[0] if found else self._add(*wanted)

    def _add(self, source: int, target: int, geometry: Geometry) -> Table:
        kind = "submanifold" if source == target else "strided"
        others = sum(each.name.startswith(f"{kind}_{target}") for each in self.tables)
        name = f"{kind}_{target}" + (f"_{others}" if others else "")
        self.tables.append(Table(name, source, target, geometry))
        return self.tables[-1]

    def _level(self, sites: Sites) -> int:
        for number, known in enumerate(self.levels):
            if known is sites:
                return number
        self.levels.append(sites)
        return len(self.levels) - 1


# -- the graph ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GraphTensor:
    """A sparse tensor in a graph: features ``[N, C]``, and the graph's inputs in place of sites."""

    features: Tensor
    named: Named

    def replace_features(self, features: Tensor) -> GraphTensor:
        """Return other features on the same voxels."""
        return GraphTensor(features, self.named)


class TableConvolution(SparseModule):
    """A sparse convolution as one gather and one product.

    Args:
        convolution: with its norm folded into it.
        table: what it reads.
    """

    def __init__(self, convolution: Convolution, table: Table) -> None:
        super().__init__()
        self.table = table.name
        self.weight = nn.Parameter(convolution.weight.detach().flatten(1))  # [out, K * in]
        self.bias = None if convolution.bias is None else nn.Parameter(convolution.bias.detach())

    def forward(self, x: GraphTensor) -> GraphTensor:
        """Convolve."""
        rows = torch.cat([x.features.new_zeros(1, x.features.shape[1]), x.features])
        gathered = F.embedding(x.named[self.table], rows)  # [M, K, in]
        return x.replace_features(F.linear(gathered.flatten(1), self.weight, self.bias))


class PrependedImages(SparseModule):
    """What voxels see in the images, put before their features.

    Args:
        channels: of what they see.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: SparseTensor | GraphTensor) -> SparseTensor | GraphTensor:
        """Look."""
        return x.replace_features(torch.cat([_image_features(x, self.channels), x.features], dim=1))


class AddedImages(SparseModule):
    """What voxels see in the images, added to their features.

    Args:
        norm: that is to normalise the sum, but stands before it, where it is folded; None for none.
    """

    def __init__(self, norm: nn.modules.batchnorm._BatchNorm | None = None) -> None:
        super().__init__()
        self.register_buffer("scale", None if norm is None else affine(norm)[0])

    def forward(self, x: SparseTensor | GraphTensor) -> SparseTensor | GraphTensor:
        """Look."""
        seen = _image_features(x, x.features.shape[1])
        return x.replace_features(x.features + (seen if self.scale is None else seen * self.scale))


def _image_features(x: SparseTensor | GraphTensor, channels: int) -> Tensor:
    """Return what the voxels of a graph see; those that only survey convolutions see nothing."""
    if isinstance(x, GraphTensor):
        return x.named["image_features"].to(x.features.dtype)
    return x.features.new_zeros(len(x.features), channels)


class SparseGraph(nn.Module):
    """One graph of a sparse encoder; the last one goes on to the map and the head.

    Args:
        piece: its layers; the graph takes over and casts them.
        make: what a convolution, with its norm folded into it, becomes in the graph.
        dtype: of features, but for the very first layer, which is told metres.
        is_first: whether this is the first piece.
        map_graph: what follows on the last piece.
        map_shape: ``(layers, y, x)`` of the sparse tensor at the end of the last piece.
    """

    def __init__(
        self,
        piece: Piece,
        make: Callable[[Convolution], SparseModule],
        dtype: torch.dtype,
        is_first: bool,
        map_graph: MapGraph | None = None,
        map_shape: tuple[int, int, int] | None = None,
    ) -> None:
        super().__init__()
        for part in piece.parts:
            exchange(part, make)
        self.first, *others = piece.layers
        self.layers = SparseSequential(*others).to(dtype)
        self.first_dtype, self.dtype = torch.float32 if is_first else dtype, dtype
        self.first.to(self.first_dtype)
        self.scores = None if piece.scores is None else piece.scores.to(dtype)
        self.map_graph, self.map_shape = map_graph, map_shape

    def forward(self, named: Named) -> Named:
        """Return ``features`` and ``scores`` for a growth, or what the head makes of them."""
        if self.scores is None:
            return self.map_graph(self.make_map(named))
        x = self._encode(named)
        return {"features": x.features.float(), "scores": self.scores(x).features.float().sigmoid()}

    def make_map(self, named: Named) -> Tensor:
        """Return the bird's-eye map ``[1, C x layers, Y, X]`` at the end of the last piece."""
        return stack_rows(self._encode(named).features, named["bev_cells"].long(), 1, self.map_shape)

    def _encode(self, named: Named) -> GraphTensor:
        x = self.first(GraphTensor(named["voxel_features"].to(self.first_dtype), named))
        return self.layers(x.replace_features(x.features.to(self.dtype)))


def exchange(layers: nn.Module, make: Callable[[Convolution], SparseModule]) -> None:
    """Fold norms, and put what ``make`` makes of it in the place of each sparse convolution."""
    fold_sparse(layers)
    for parent in list(layers.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Convolution):
                setattr(parent, name, make(child))
