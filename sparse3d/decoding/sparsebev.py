"""The boxes of SparseBEV's queries: three ways to write one box, and the step from scores to detections.

    box          (x, y, z, l, w, h, yaw, vx, vy)                                      `Boxes3D`, gravity centre
    query code   (x, y, z as parts of the point range, ln l, ln w, ln h, sin yaw, cos yaw, vx, vy)
    loss code    (x, y, ln l, ln w, z, ln h, sin yaw, cos yaw, vx, vy)                metres

Decoding takes the best of all (query, class) pairs; there is no suppression.

Source: SparseBEV (Liu et al., ICCV 2023), section 3.2; decoding after DETR3D (Wang et al., CoRL 2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparse3d.structures import Boxes3D, Detections

CODE_SIZE = 10
FROM_QUERY_CODE = [0, 1, 3, 4, 2, 5, 6, 7, 8, 9]  # columns of a query code in the order of the loss code
EPS = 1e-5  # parts of the range are kept this far from 0 and 1 before their logit is taken


def encode_queries(boxes: Tensor, point_range: Sequence[float]) -> Tensor:
    """Return query codes ``[..., 10]`` of boxes ``[..., 9]``."""
    low, high = boxes.new_tensor(point_range).split(3)
    yaw = boxes[..., 6:7]
    place = (boxes[..., :3] - low) / (high - low)
    return torch.cat([place, boxes[..., 3:6].log(), yaw.sin(), yaw.cos(), boxes[..., 7:9]], dim=-1)


def decode_queries(codes: Tensor, point_range: Sequence[float]) -> Tensor:
    """Return boxes ``[..., 9]`` of query codes ``[..., 10]``."""
    low, high = codes.new_tensor(point_range).split(3)
    yaw = torch.atan2(codes[..., 6:7], codes[..., 7:8])
    center = codes[..., :3] * (high - low) + low
    return torch.cat([center, codes[..., 3:6].exp(), yaw, codes[..., 8:10]], dim=-1)


def queries_to_loss_codes(codes: Tensor, point_range: Sequence[float]) -> Tensor:
    """Return loss codes ``[..., 10]`` of query codes ``[..., 10]``."""
    low, high = codes.new_tensor(point_range).split(3)
    metric = torch.cat([codes[..., :3] * (high - low) + low, codes[..., 3:]], dim=-1)
    return metric[..., FROM_QUERY_CODE]


def encode_boxes(boxes: Tensor) -> Tensor:
    """Return loss codes ``[..., 10]`` of boxes ``[..., 9]``."""
    size, yaw = boxes[..., 3:6].log(), boxes[..., 6:7]
    parts = [boxes[..., :2], size[..., :2], boxes[..., 2:3], size[..., 2:], yaw.sin(), yaw.cos(), boxes[..., 7:9]]
    return torch.cat(parts, dim=-1)


def decode_boxes(codes: Tensor) -> Tensor:
    """Return boxes ``[..., 9]`` of loss codes ``[..., 10]``."""
    yaw = torch.atan2(codes[..., 6:7], codes[..., 7:8])
    size = torch.cat([codes[..., 2:4], codes[..., 5:6]], dim=-1).exp()
    return torch.cat([codes[..., :2], codes[..., 4:5], size, yaw, codes[..., 8:10]], dim=-1)


def inverse_sigmoid(x: Tensor) -> Tensor:
    """Return the logit of probabilities, which are cut to [0, 1] and kept ``EPS`` away from both ends."""
    x = x.clamp(0, 1)
    return (x.clamp(min=EPS) / (1 - x).clamp(min=EPS)).log()


@dataclass(frozen=True)
class TopKDecoder:
    """Keep the best (query, class) pairs of a sample.

    Args:
        center_range: ``(x0, y0, z0, x1, y1, z1)`` in metres, bounds included, for predicted centres.
        top_k: pairs that are looked at; all of them where there are fewer.
        score_threshold: what a score has to exceed.
    """

    center_range: Sequence[float]
    top_k: int = 300
    score_threshold: float = 0.05

    def __call__(
        self,
        logits: Tensor,  # [B, Q, K]
        codes: Tensor,  # [B, Q, 10]
    ) -> list[Detections]:
        """Return one ``Detections`` a sample, of class logits and loss codes in float32."""
        num_classes = logits.shape[2]
        scores, pairs = logits.sigmoid().flatten(1).topk(min(self.top_k, logits[0].numel()), dim=1)
        boxes = decode_boxes(codes.gather(1, (pairs // num_classes)[..., None].expand(-1, -1, CODE_SIZE)))
        low, high = boxes.new_tensor(self.center_range).split(3)
        inside = ((boxes[..., :3] >= low) & (boxes[..., :3] <= high)).all(dim=-1)
        keep = inside & (scores > self.score_threshold)
        return [
            Detections(Boxes3D(boxes[sample, kept]), scores[sample, kept], pairs[sample, kept] % num_classes)
            for sample, kept in enumerate(keep)
        ]
