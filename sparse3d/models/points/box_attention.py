"""Sparse box attention: voxels that share a cubic window attend to each other.

    window of a voxel   floor((coordinate - origin) / size) along z, y and x, for each sample by itself
    y   = x + proj(softmax(q kᵀ / √(C / heads)) v)         over the voxels of the window, of LN(x)
    out = y + W₂ GELU(W₁ LN(y))

There is no shift, mask or positional term. In the released code the origin is the smallest coordinate, along each axis,
of any voxel of the batch, so that the windows of a scan depend on which scans are with it; its weights were trained so.

Windows are laid side by side, padded to the fullest one, which holds at most size³ voxels.

Source: VoxelKP (Shi and Wonka, ICCV 2025, arXiv 2312.08871).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparse3d_ops import Segments, pack, unique
from sparse3d_ops.sparse import Sites, SparseTensor


@dataclass(frozen=True)
class BoxWindows:
    """Voxels laid out by window, in slots of equal number.

    Args:
        places: ``[N]`` int64, the slot ``window * T + rank`` of each voxel.
        filled: ``[W, T]`` bool, the slots that hold a voxel.
    """

    places: Tensor
    filled: Tensor

    @classmethod
    def partition(cls, sites: Sites, size: int, from_corner: bool = False) -> BoxWindows:
        """Lay out the voxels of some sites.

        Args:
            sites: N voxels.
            size: edge of a window in voxels.
            from_corner: whether windows start at the corner of the grid, instead of where the batch's voxels start.
        """
        coords = sites.coords.long()
        if not from_corner and len(coords):
            coords[:, 1:] -= coords[:, 1:].amin(dim=0)
        coords[:, 1:] //= size
        shape = [-(-extent // size) for extent in sites.volume]
        _, window, counts = unique(pack(coords, shape, sites.batch_size))
        width = int(counts.amax()) if len(counts) else 0
        places = window * width + Segments.from_index(window, len(counts)).rank()
        return cls(places, torch.arange(width, device=counts.device) < counts[:, None])

    def lay_out(self, rows: Tensor) -> Tensor:
        """Return rows ``[N, C]`` as ``[W, T, C]``, zeros in empty slots."""
        flat = rows.new_zeros(self.filled.numel(), rows.shape[1])
        return flat.index_copy(0, self.places, rows).view(*self.filled.shape, rows.shape[1])

    def take_back(self, slots: Tensor) -> Tensor:
        """Return ``[W, T, C]`` as rows ``[N, C]``."""
        return slots.flatten(0, 1).index_select(0, self.places)


@dataclass(frozen=True)
class StageIndex:
    """What the blocks of a stage, all on the same sites, need to know of them.

    Args:
        samples: the rows by sample.
        windows: the rows by window, where there is attention.
    """

    samples: Segments
    windows: BoxWindows | None = None


class BoxAttention(nn.Module):
    """Multi-head attention within windows.

    Args:
        channels: width C.
        num_heads: heads; must divide C.

    Raises:
        ValueError: if the heads do not divide the width.
    """

    def __init__(self, channels: int, num_heads: int) -> None:
        super().__init__()
        if channels % num_heads:
            raise ValueError(f"BoxAttention: width {channels} is not divisible by {num_heads} heads")
        self.num_heads = num_heads
        self.q, self.k, self.v, self.proj = (nn.Linear(channels, channels) for _ in range(4))

    def forward(
        self,
        x: Tensor,  # [N, C]
        windows: BoxWindows,
    ) -> Tensor:  # [N, C]
        """Let each row attend to the rows of its window."""
        query, key, value = (self._by_head(windows.lay_out(layer(x))) for layer in (self.q, self.k, self.v))
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=windows.filled[:, None, None])
        return self.proj(windows.take_back(attended.transpose(1, 2).flatten(2)))

    def _by_head(self, slots: Tensor) -> Tensor:
        """Return ``[W, T, C]`` as ``[W, heads, T, C / heads]``."""
        return slots.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class BoxAttentionBlock(nn.Module):
    """Attention and a feed-forward network, each after a norm and around a shortcut; see the top of the file."""

    def __init__(self, channels: int, num_heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attention = BoxAttention(channels, num_heads)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(nn.Linear(channels, channels), nn.GELU(), nn.Linear(channels, channels))

    def forward(self, x: SparseTensor, index: StageIndex) -> SparseTensor:
        """Return a tensor on the same sites, whose windows ``index`` knows."""
        rows = x.features
        rows = rows + self.attention(self.norm1(rows), index.windows)
        return x.replace_features(rows + self.mlp(self.norm2(rows)))
