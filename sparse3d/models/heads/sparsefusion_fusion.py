"""SparseFusion's fusion: the candidates of both detectors attend to each other, and each says what it is.

Source: SparseFusion (Xie et al., ICCV 2023), section 3.3.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..layers.decoder import QueryDecoderLayer
from ..layers.position import PositionEmbedding
from .sparsefusion_layers import BoxBranches, Predictions, projection


class CandidateFusion(nn.Module):
    """One layer of self-attention over LiDAR and camera candidates, and its predictions.

    Args:
        channels: width C.
        num_classes: K.
        num_heads: attention heads.
        ffn_channels: hidden width of the feed-forward network.
        dropout: of the layer.
    """

    def __init__(self, channels: int, num_classes: int, num_heads: int, ffn_channels: int, dropout: float) -> None:
        super().__init__()
        self.lidar_projection = projection(channels)
        self.camera_projection = projection(channels)
        self.position = PositionEmbedding(2, channels)
        self.layer = QueryDecoderLayer(
            channels, num_heads, ffn_channels, self_attention="none", dropout=dropout, attention_dropout=dropout
        )
        self.branches = BoxBranches(channels, num_classes)

    def forward(
        self,
        lidar: Tensor,  # [B, P, C]
        camera: Tensor,  # [B, Q, C]
        positions: Tensor,  # [B, P + Q, 2]
        bias: Tensor | None = None,  # [B, 1, P + Q]
    ) -> tuple[Tensor, Predictions]:  # [B, P + Q, C]
        """Return refined candidates, those of the LiDAR first, and what they say.

        Args:
            lidar: features of the LiDAR's candidates.
            camera: features of the cameras' candidates.
            positions: of all of them, in cells.
            bias: added to the scores of the attention; -inf hides a candidate from all.
        """
        candidates = torch.cat([self.lidar_projection(lidar), self.camera_projection(camera)], dim=1)
        embedded = self.position(positions.flatten(0, 1)).unflatten(0, positions.shape[:2])
        candidates = self.layer(candidates, embedded, candidates, embedded, bias)
        return candidates, self.branches(candidates, positions)
