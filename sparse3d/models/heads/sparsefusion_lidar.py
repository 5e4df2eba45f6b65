"""SparseFusion's LiDAR detector: queries at the peaks of a heat map look at the whole bird's-eye map.

    q_0 = feature of the peak's cell + embedding of its class;   q = layer(q_0, map)

Every query attends to every cell and to all other queries, unlike in `transfusion_head.py`.

Source: SparseFusion (Xie et al., ICCV 2023), section 3.2, after TransFusion (Bai et al., CVPR 2022).
"""

from __future__ import annotations

from torch import Tensor, nn

from sparse3d.encoding.cell_heights import cell_middles

from ..layers.decoder import QueryDecoderLayer
from ..layers.position import PositionEmbedding
from .sparsefusion_layers import BoxBranches, Predictions


class LidarDecoder(nn.Module):
    """One decoder layer and its predictions.

    Args:
        channels: width C.
        num_classes: K.
        num_heads: attention heads.
        ffn_channels: hidden width of the feed-forward network.
        dropout: of the layer.
    """

    def __init__(self, channels: int, num_classes: int, num_heads: int, ffn_channels: int, dropout: float) -> None:
        super().__init__()
        self.query_position = PositionEmbedding(2, channels)
        self.key_position = PositionEmbedding(2, channels)
        self.layer = QueryDecoderLayer(channels, num_heads, ffn_channels, dropout=dropout, attention_dropout=dropout)
        self.branches = BoxBranches(channels, num_classes)

    def forward(
        self,
        queries: Tensor,  # [B, Q, C]
        positions: Tensor,  # [B, Q, 2]
        bev: Tensor,  # [B, C, Y, X]
    ) -> tuple[Tensor, Predictions]:  # [B, Q, C]
        """Return refined queries and what they say; ``positions`` are in cells."""
        memory = bev.flatten(2).transpose(1, 2)
        of_queries = self.query_position(positions.flatten(0, 1)).unflatten(0, positions.shape[:2])
        of_cells = self.key_position(cell_middles(bev.shape[2:], bev.device))
        queries = self.layer(queries, of_queries, memory, of_cells[None])
        return queries, self.branches(queries, positions)
