"""MV2D's graphs: images -> proposals, proposals -> boxes in images, boxes in images -> boxes in space.

What happens between them, and their inputs: `region_inputs.py`. In half precision only backbone and neck are: boxes are
pixels and metres.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sparse3d.encoding.box_levels import POOLED_CELLS, POOLED_LEVELS
from sparse3d.encoding.roi_looks import CellLooks, RegionLooks
from sparse3d.models import Detector3D
from sparse3d.models.heads.mv2d_head import hide_empty_slots
from sparse3d_ops import roi_align

from .image_inputs import ImageInputs
from .named import Named
from .region_inputs import QueryRules, RegionInputs
from .sensor_scan import CameraScan

NOTHING = -1e4  # logit of an empty slot


class ImageGraph(nn.Module):
    """Backbone, neck, the network that judges anchors, and the map that queries look at.

    Args:
        detector: in eval mode; the graph takes over its modules and casts them.
        dtype: of backbone and neck.
    """

    def __init__(self, detector: Detector3D, dtype: torch.dtype) -> None:
        super().__init__()
        branch, head = detector.image_branch, detector.head
        self.dtype, self.level = dtype, head.level
        self.backbone, self.neck = branch.backbone.to(dtype), branch.neck.to(dtype)
        self.proposals = branch.detector.proposals
        self.map_neck, self.position_encoding = head.neck, head.position_encoding

    def forward(self, named: Named) -> Named:
        """Return the pyramid, what is said of anchors, and features and positions of the map."""
        levels = [level.float() for level in self.neck(self.backbone(named["images"][0].to(self.dtype)))]
        logits, deltas = self.proposals(levels)
        x = self.map_neck([levels[self.level]])[0][None]
        positions = self.position_encoding.embed(x, named["rays"], named["places"])
        return {
            **_number("map", levels[:POOLED_LEVELS]),
            **_number("anchor_logits", logits),
            **_number("anchor_deltas", deltas),
            "placed_map": torch.cat([x, positions], dim=2),
        }


class BoxGraph(nn.Module):
    """The network that names and reshapes proposals; takes it over from a detector in eval mode."""

    def __init__(self, detector: Detector3D) -> None:
        super().__init__()
        self.box_head = detector.image_branch.detector.box_head

    def forward(self, named: Named) -> Named:
        """Return boxes ``[P, K, 4]`` and scores ``[P, K]``."""
        lists = [
            align(named[f"map_{level}"], named[f"boxes_{level}"], named[f"images_{level}"], 1 / 2 ** (level + 2))
            for level in range(POOLED_LEVELS)
        ]
        logits, deltas = self.box_head.judge(torch.cat(lists)[named["rows"].long()])
        boxes, scores = self.box_head.decode(logits, deltas, named["proposals"], named["sizes"])
        return {"boxes": boxes, "scores": scores}


class QueryGraph(nn.Module):
    """The rest of the head.

    Args:
        detector: in eval mode, whose ``ImageGraph`` is made already.
        by_cells: whether queries look at cells of the map.
    """

    def __init__(self, detector: Detector3D, *, by_cells: bool) -> None:
        super().__init__()
        self.head = detector.head
        self.head.neck = self.head.position_encoding = nn.Identity()  # are in the first graph
        self.looks = CellLooks if by_cells else RegionLooks

    def forward(self, named: Named) -> Named:
        """Return ``logits`` ``[1, Q, K]`` and ``codes`` ``[1, Q, 10]`` of the last layer."""
        maps, filled = named["placed_map"], named["filled"]
        regions = align(maps[0], named["roi_boxes"], named["roi_images"], 1 / self.head.stride)[None]
        references = self.head.place(regions, named["known"], named["to_lidar"])
        memory = self.head.look_up(maps, regions, self.looks(named["looks"].long(), named["shown"]))
        logits, codes = self.head.refine(references, memory, hide_empty_slots(filled))
        codes = self.head.to_speed(codes, named.get("lags"))
        return {"logits": logits[-1].masked_fill(~filled[..., None], NOTHING), "codes": codes[-1]}


def align(
    features: Tensor,  # [N, C, H, W]
    boxes: Tensor,  # [R, 4]
    images: Tensor,  # [R]
    scale: float,
) -> Tensor:  # [R, C, 7, 7]
    """Return ``roi_align``, in a graph as the one operator that engines have for it."""
    if not torch.compiler.is_exporting():
        return roi_align(features, boxes, images.long(), POOLED_CELLS, scale)
    return torch.onnx.ops.symbolic(
        "RoiAlign",
        (features, boxes, images.long()),
        attrs={
            "coordinate_transformation_mode": "half_pixel",
            "mode": "avg",
            "output_height": POOLED_CELLS,
            "output_width": POOLED_CELLS,
            "sampling_ratio": 0,
            "spatial_scale": scale,
        },
        dtype=features.dtype,
        shape=(boxes.shape[0], features.shape[1], POOLED_CELLS, POOLED_CELLS),
    )


def _number(name: str, levels: Sequence[Tensor]) -> Named:
    return {f"{name}_{number}": level for number, level in enumerate(levels)}


def region_inputs(detector: Detector3D, scan: CameraScan) -> RegionInputs:
    """Describe how images become the inputs of a detector's graphs; sizes are those of a scan."""
    images = ImageInputs.of(detector.data_preprocessor.normalizer, scan)
    head, boxes_2d = detector.head, detector.image_branch.detector
    with torch.no_grad():
        levels = detector.image_branch.extract(torch.zeros(1, 1, 3, *images.input_size))
    return RegionInputs(
        grid=head.grid,
        images=images,
        levels=tuple(tuple(level.shape[-2:]) for level in levels),
        map_shape=tuple(levels[head.level].shape[-2:]),
        channels=levels[0].shape[2],
        num_classes=boxes_2d.box_head.num_classes,
        per_level=boxes_2d.proposals.per_level[1],
        proposals=boxes_2d.proposals.filter,
        detections=boxes_2d.filter,
        queries=QueryRules(
            head.position_encoding.pixels, head.top_k, head.margin if head.by_cells else None, head.num_frames
        ),
    )
