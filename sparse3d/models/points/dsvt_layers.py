"""DSVT's blocks: attention over sets, and pooling between stages.

    block, for layer i = 0, 1 with sets i of the block's layout:
        q = k = x + position_i,   v = x           projected a voxel, then gathered into sets of T slots
        a = MultiHeadAttention(q, k, v)           repeats hidden as keys; read back at each voxel's first slot
        y = LN(x + a);   y = LN(y + FFN(y));   x = LN(x + y)
    x = LN(x + the block's input)

Projections commute with the gather, so they run on N voxels instead of S * T slots. Positions are few: in a window of
W_x W_y W_z cells every voxel has the position of one of them. In eval mode, when BatchNorm is a fixed map, each cell's
position is embedded once and looked up; in training the norm's statistics are those of the voxels.

Source: DSVT (Wang et al., CVPR 2023), sections 3.2 and 3.3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sparse3d_ops import Sets

from ..layers.attention import PackedAttention
from ..layers.position import PositionEmbedding

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "relu": F.relu}
NUM_LAYERS = 2  # of a block: one over the y-major sets, one over the x-major sets
POOLING_HEADS = 8


class SetAttentionLayer(nn.Module):
    """One encoder layer over one partition of the voxels.

    Args:
        channels: width C.
        num_heads: attention heads.
        ffn_channels: hidden width of the FFN.
        dims: coordinates of a position, 2 or 3.
        activation: of the FFN, ``"gelu"`` or ``"relu"``.
    """

    def __init__(self, channels: int, num_heads: int, ffn_channels: int, dims: int, activation: str) -> None:
        super().__init__()
        self.position = PositionEmbedding(dims, channels)
        self.attention = PackedAttention(channels, num_heads)
        self.linear1 = nn.Linear(channels, ffn_channels)
        self.linear2 = nn.Linear(ffn_channels, channels)
        self.activation = ACTIVATIONS[activation]
        self.norm1 = nn.LayerNorm(channels)
        self.norm2 = nn.LayerNorm(channels)
        self.norm3 = nn.LayerNorm(channels)

    def embed(
        self,
        positions: Tensor,  # [cells, dims]
        cells: Tensor,  # [N]
    ) -> Tensor:  # [N, C]
        """Embed the positions of voxels that lie in ``cells`` of their windows."""
        if self.training:
            return self.position(positions[cells])
        return self.position(positions).index_select(0, cells)

    def forward(
        self,
        x: Tensor,  # [N, C]
        position: Tensor,  # [N, C]
        sets: Sets,
    ) -> Tensor:  # [N, C]
        """Let the voxels of each set attend to one another; ``position`` is what ``embed`` made."""
        y = self.norm1(x + self._attend(x, position, sets))
        y = self.norm2(y + self.linear2(self.activation(self.linear1(y))))
        return self.norm3(x + y)

    def _attend(self, x: Tensor, position: Tensor, sets: Sets) -> Tensor:
        matched = sets.gather(self.attention.project_matched(x + position))
        values = sets.gather(self.attention.project_values(x))
        query, key, value = (self.attention.split_heads(part) for part in (*matched.chunk(2, -1), values))
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=~sets.mask[:, None, None])
        return self.attention.out_proj(attended.transpose(1, 2).flatten(0, 1).flatten(1).index_select(0, sets.first))


class DSVTBlock(nn.Module):
    """Two encoder layers over the two partitions of one window layout, and a residual norm.

    Args: those of ``SetAttentionLayer``, and

        checkpoint: compute activations again in the backward pass. Positions are embedded once all the same: a second
            time would move the running statistics of their norms twice.
    """

    def __init__(
        self, channels: int, num_heads: int, ffn_channels: int, dims: int, activation: str, checkpoint: bool = False
    ) -> None:
        super().__init__()
        self.checkpoint = checkpoint
        self.layers = nn.ModuleList(
            SetAttentionLayer(channels, num_heads, ffn_channels, dims, activation) for _ in range(NUM_LAYERS)
        )
        self.norm = nn.LayerNorm(channels)

    def forward(
        self,
        x: Tensor,  # [N, C]
        positions: Sequence[tuple[Tensor, Tensor]],  # 2 x ([cells, dims], [N])
        sets: Sequence[Sets],  # 2
    ) -> Tensor:  # [N, C]
        """Run layer i with positions i (those of the cells, and each voxel's cell) over sets i."""
        embedded = [layer.embed(*position) for layer, position in zip(self.layers, positions, strict=True)]
        if self.checkpoint and self.training:
            return checkpoint(self._run, x, embedded, sets, use_reentrant=False)
        return self._run(x, embedded, sets)

    def _run(self, x: Tensor, embedded: Sequence[Tensor], sets: Sequence[Sets]) -> Tensor:
        y = x
        for layer, position, own in zip(self.layers, embedded, sets, strict=True):
            y = layer(y, position, own)
        return self.norm(y + x)


class MaxPooling(nn.Module):
    """Maximum over the slots of a parent; the zeros of empty slots take part, as published."""

    def __init__(self, in_channels: int, out_channels: int, volume: int) -> None:
        super().__init__()
        _check_equal_widths(in_channels, out_channels)

    def forward(self, slots: Tensor) -> Tensor:
        """Map ``[M, volume, C]`` to ``[M, C]``."""
        return slots.amax(dim=1)


class LinearPooling(nn.Module):
    """Linear without bias on the concatenated slots, then LayerNorm."""

    def __init__(self, in_channels: int, out_channels: int, volume: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_channels * volume, out_channels, bias=False)
        self.norm = nn.LayerNorm(out_channels)

    def forward(self, slots: Tensor) -> Tensor:
        """Map ``[M, volume, C]`` to ``[M, C']``."""
        return self.norm(self.linear(slots.flatten(1)))


class AttentionPooling(nn.Module):
    """The maximum over the slots attends to the slots, then LayerNorm(attended + maximum).

    As published, nothing is masked: an empty slot is a key of its slot's embedding alone and a value of zero.
    """

    def __init__(self, in_channels: int, out_channels: int, volume: int) -> None:
        super().__init__()
        _check_equal_widths(in_channels, out_channels)
        self.attention = PackedAttention(in_channels, POOLING_HEADS)
        self.slot_embedding = nn.Parameter(torch.empty(volume, in_channels))
        self.norm = nn.LayerNorm(in_channels)

    def forward(self, slots: Tensor) -> Tensor:
        """Map ``[M, volume, C]`` to ``[M, C]``."""
        top = slots.amax(dim=1, keepdim=True)
        return self.norm(self.attention(top, slots + self.slot_embedding, slots) + top)[:, 0]


POOLINGS: dict[str, type[nn.Module]] = {
    "attention": AttentionPooling,
    "linear": LinearPooling,
    "max": MaxPooling,
}


def _check_equal_widths(in_channels: int, out_channels: int) -> None:
    if in_channels != out_channels:
        raise ValueError(f"this pooling keeps the width, but the stages are {in_channels} and {out_channels} wide")
