"""SparseFusion's head: two detectors side by side, whose candidates become one set.

    LiDAR    bird's-eye map -> heat map that has seen the images -> P queries -> LiDAR decoder
    cameras  image maps -> heat maps -> Q queries -> camera decoder -> lifted to the LiDAR frame -> view transformer
    fusion   P + Q candidates attend to each other

Parts: `sparsefusion_semantic.py`, `sparsefusion_lidar.py`, `sparsefusion_camera.py`, `sparsefusion_view.py`,
`sparsefusion_fusion.py`; targets: `targets/sparsefusion_targets.py`; boxes: `decoding/sparsefusion.py`. The image
branch has told the image maps how far away things are (`images/geometric_transfer.py`).

A camera that a sample lacks gives no candidate any weight: its peaks have no heat, nothing looks at its image, and no
other candidate attends to one of its. Without points, no cell looks at an image.

Source: SparseFusion (Xie et al., ICCV 2023).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.structures import InstanceData
from torch import Tensor, nn

from sparse3d.decoding.sparsefusion import CandidateHeat, SparseFusionDecoder
from sparse3d.decoding.transfusion import Queries
from sparse3d.encoding.camera_geometry import CameraGeometry
from sparse3d.encoding.cell_heights import cell_middles
from sparse3d.encoding.depth_maps import FINEST_STRIDE
from sparse3d.encoding.seen_cells import SeenCells
from sparse3d.registry import MODELS
from sparse3d.structures import Grid, Sample

from ..features import Features
from ..layers.deformable import DeformableAttention, ImageMemory
from ..layers.frozen import PartlyFrozen
from ..layers.precision import full_precision
from ..targets.sparsefusion_targets import SparseFusionTargetAssigner
from .sparsefusion_camera import (
    CameraDecoder,
    CameraPredictions,
    ImageHeatmaps,
    ImageQueries,
    image_peaks,
    select_image_queries,
)
from .sparsefusion_fusion import CandidateFusion
from .sparsefusion_layers import Predictions, pixel_positions
from .sparsefusion_lidar import LidarDecoder
from .sparsefusion_losses import LOSS_WEIGHTS, SparseFusionLoss
from .sparsefusion_output import SparseFusionOutput
from .sparsefusion_semantic import SemanticTransfer
from .sparsefusion_view import ViewTransformer, camera_numbers, lift
from .transfusion_queries import find_peaks, select_queries


@MODELS.register_module()
class SparseFusionHead(PartlyFrozen):
    """The head.

    Args:
        grid: the grid; its stride gives the cells of the bird's-eye map.
        class_names: names of all classes; labels are positions in it.
        in_channels: channels of the bird's-eye map.
        decoder: arguments of ``SparseFusionDecoder`` besides the class names.
        channels: width C of the head and of the image maps.
        num_queries: P, of the LiDAR.
        num_camera_queries: Q, of the cameras.
        num_levels: image maps, the first of a stride of 4.
        num_heads: attention heads.
        ffn_channels: hidden width of the decoder layers' feed-forward networks.
        dropout: of the decoder layers.
        peak_size: side of the neighbourhood that a peak of a heat map exceeds, odd.
        every_cell: classes of which every cell may be a peak: small objects that stand close together.
        lone_queries: see ``CameraDecoder``.
        frozen: do not train what the LiDAR detector knows already (shared convolution, class embedding, LiDAR decoder),
            and take ``"running"`` or ``"batch"`` statistics in its BatchNorms; None trains it.
        targets: arguments of ``SparseFusionTargetAssigner`` besides the grid.
        loss_weights: weights of losses where they differ from those published; see ``sparsefusion_losses.py``.
        velocity_weight: weight of each of the two numbers of a velocity; the others have 1.

    Raises:
        ValueError: if a class, a weight or an option is unknown.
    """

    def __init__(
        self,
        grid: Grid | Mapping[str, Any],
        class_names: Sequence[str],
        in_channels: int,
        decoder: Mapping[str, Any],
        channels: int = 128,
        num_queries: int = 200,
        num_camera_queries: int = 200,
        num_levels: int = 4,
        num_heads: int = 8,
        ffn_channels: int = 256,
        dropout: float = 0.1,
        peak_size: int = 3,
        every_cell: Sequence[str] = (),
        lone_queries: str = "zero",
        frozen: str | None = None,
        targets: Mapping[str, Any] | None = None,
        loss_weights: Mapping[str, float] | None = None,
        velocity_weight: float = 0.2,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        _check_known("every_cell", every_cell, class_names)
        _check_known("loss_weights", loss_weights or {}, LOSS_WEIGHTS)
        if peak_size % 2 == 0:
            raise ValueError(f"peak_size: expected an odd number, got {peak_size}")
        self.grid = Grid.build(grid)
        self.num_classes, self.num_queries, self.num_camera_queries = len(class_names), num_queries, num_camera_queries
        self.peak_size = peak_size
        self.every_cell = [list(class_names).index(name) for name in every_cell]
        self.decoder = SparseFusionDecoder(class_names, **decoder)
        self.criterion = SparseFusionLoss(
            self.grid,
            SparseFusionTargetAssigner(self.grid, **(targets or {})),
            {**LOSS_WEIGHTS, **(loss_weights or {})},
            velocity_weight,
        )
        layer = dict(num_heads=num_heads, ffn_channels=ffn_channels, dropout=dropout)
        self.level_embedding = nn.Parameter(torch.randn(num_levels, channels))
        self.shared = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.class_embedding = nn.Linear(self.num_classes, channels)
        self.image_class_embedding = nn.Linear(self.num_classes, channels)
        self.semantic = SemanticTransfer(self.grid, channels, self.num_classes, num_levels, **layer)
        self.image_heatmaps = ImageHeatmaps(channels, self.num_classes, num_levels)
        self.lidar = LidarDecoder(channels, self.num_classes, **layer)
        self.camera = CameraDecoder(channels, self.num_classes, num_levels, **layer, lone_queries=lone_queries)
        self.view = ViewTransformer(self.grid, channels, self.num_classes, **layer)
        self.fusion = CandidateFusion(channels, self.num_classes, **layer)
        self._spread_evenly()
        if frozen is not None:
            self.freeze((self.shared, self.class_embedding, self.lidar), frozen)

    def _spread_evenly(self) -> None:
        """Initialise as published: all matrices alike, and no bias towards background in the heat maps."""
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1 and name != "level_embedding":
                nn.init.xavier_uniform_(parameter)
        for module in self.modules():
            if isinstance(module, DeformableAttention):
                module.reset_parameters()

    # -- inference -----------------------------------------------------------------------------------------------------

    @full_precision
    def forward(self, features: Features) -> SparseFusionOutput:
        """Return what the head says about a batch.

        Raises:
            ValueError: if the bird's-eye map, its heights or the image maps are missing, or of another size.
        """
        self._check(features)
        cameras = CameraGeometry.of(features.cameras, features.image_size)
        seen = self.semantic.see(features.heights, cameras)
        return self.from_maps(features.bev.float(), seen, features.images, cameras)

    def from_maps(
        self,
        bev: Tensor,  # [B, in_channels, Y, X]
        seen: SeenCells,
        images: Sequence[Tensor],  # L of [B, N, C, H, W]
        cameras: CameraGeometry,
    ) -> SparseFusionOutput:
        """Return ``forward`` for the maps of a batch and the cells that its cameras see."""
        shared = self.shared(bev)
        maps = tuple(
            level.float() + embedding[:, None, None]
            for level, embedding in zip(images, self.level_embedding, strict=True)
        )
        hidden = cameras.hidden([tuple(level.shape[-2:]) for level in maps], FINEST_STRIDE)
        memory = ImageMemory(maps, tuple(hidden))
        heatmap = self.semantic(shared, seen, memory)
        queries, positions, origins = self._start_lidar(shared, heatmap)
        lidar_queries, lidar = self.lidar(queries, positions, shared)
        image_heatmaps = self.image_heatmaps(maps)
        started, camera, camera_queries, view = self._detect_in_images(memory, image_heatmaps, cameras)
        places = torch.cat([lidar.codes["center"], view.codes["center"]], dim=1).detach()
        bias = self._hide(cameras, started)
        _, fusion = self.fusion(lidar_queries, camera_queries, places, F.pad(bias, (self.num_queries, 0)))
        return SparseFusionOutput(heatmap, image_heatmaps, origins, started, lidar, camera, view, fusion, cameras)

    def _start_lidar(self, shared: Tensor, heatmap: Tensor) -> tuple[Tensor, Tensor, Queries]:
        """Return the first queries of the LiDAR ``[B, P, C]``, their positions ``[B, P, 2]`` and their origins."""
        peaks = find_peaks(heatmap.detach().sigmoid(), self.peak_size, self.every_cell)
        origins = select_queries(peaks, self.num_queries)
        cells = shared.flatten(2).transpose(1, 2)
        own = cells.gather(1, origins.cells[..., None].expand(-1, -1, cells.shape[2]))
        positions = cell_middles(heatmap.shape[2:], heatmap.device)[origins.cells]
        return own + self.class_embedding(self._one_hot(origins.labels)), positions, origins

    def _detect_in_images(
        self, memory: ImageMemory, heatmaps: list[Tensor], cameras: CameraGeometry
    ) -> tuple[ImageQueries, CameraPredictions, Tensor, Predictions]:
        """Return where camera queries started, what they say, and what they are in the LiDAR frame ``[B, Q, C]``."""
        peaks = image_peaks(heatmaps, self.peak_size) * cameras.seeing[:, None, :, None]
        started = select_image_queries(peaks, self.num_camera_queries)
        positions = torch.cat([pixel_positions(level.shape[-2:], level.device) for level in memory.maps])[
            started.pixels
        ]
        queries = started.gather(memory.maps) + self.image_class_embedding(self._one_hot(started.labels))
        queries, positions, found = self.camera(queries, positions, started.views, memory, cameras)
        lifted = lift(found, cameras, self.grid)
        numbers = camera_numbers(cameras, started.views)
        queries, view = self.view(queries, lifted, positions, numbers, self._hide(cameras, started))
        return started, found, queries, view

    def _hide(self, cameras: CameraGeometry, started: ImageQueries) -> Tensor:
        """Return ``[B, 1, Q]``: -inf hides what comes from a missing camera, unless all do."""
        seeing = cameras.seeing.gather(1, started.views)
        hidden = ~seeing & seeing.any(dim=1, keepdim=True)
        return torch.zeros_like(started.heat).masked_fill(hidden, -torch.inf)[:, None]

    def _one_hot(self, labels: Tensor) -> Tensor:
        return F.one_hot(labels, self.num_classes).float()

    def _check(self, features: Features) -> None:
        bev, heights = features.bev, features.heights
        if bev is None or tuple(bev.shape[-2:]) != self.grid.out_shape:
            came = "None" if bev is None else list(bev.shape)
            raise ValueError(f"features.bev: expected [B, C, *{list(self.grid.out_shape)}], got {came}")
        if heights is None:
            raise ValueError("features.heights is None; the point branch has to be a HeightAwareBranch")
        if features.images is None or len(features.images) != len(self.level_embedding):
            came = "None" if features.images is None else f"{len(features.images)} maps"
            raise ValueError(f"features.images: expected {len(self.level_embedding)} maps, got {came}")

    def predict(self, features: Features, samples: Sequence[Sample]) -> list[InstanceData]:
        """Return ``boxes``, ``scores`` and ``labels`` of each sample, in descending order of score."""
        return self.predict_from_output(self(features))

    @full_precision
    def predict_from_output(self, output: SparseFusionOutput) -> list[InstanceData]:
        """Return ``predict`` for what ``forward`` made."""
        origins = CandidateHeat.join(
            output.lidar_queries.labels,
            output.lidar_queries.heat,
            output.camera_queries.labels,
            output.camera_queries.heat,
            output.camera.logits,
        )
        found = self.decoder.decode(output.fusion.codes, output.fusion.logits, origins, self.grid)
        return [InstanceData(**vars(each)) for each in found]

    # -- training ------------------------------------------------------------------------------------------------------

    def loss(self, features: Features, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Return the losses of a batch (scalars), and the mean IoU of the final candidates with their objects.

        Args:
            features: see ``forward``.
            samples: B samples with ``gt``; one without objects is all background, labels of -1 are left out.

        Raises:
            ValueError: if a sample has no ``gt``, a label exceeds the classes, or a prediction is not finite.
        """
        return self.loss_from_output(self(features), samples)

    @full_precision
    def loss_from_output(self, output: SparseFusionOutput, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """Return ``loss`` for what ``forward`` made."""
        return self.criterion(output, samples)


def _check_known(what: str, names: Any, known: Any) -> None:
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise ValueError(f"{what}: unknown {unknown}; known are {list(known)}")
