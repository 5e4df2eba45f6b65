"""Depth supervision: what the LiDAR measured, as targets of the depth bins of image features.

    target of a patch   the bin of the nearest return in it:  k = floor((d - low) / size),  0 <= k < D
    loss                Σ over bins of the binary cross-entropy, averaged over the patches that have a target

The nearest return decides even where it lies before the first bin: the patch has no target then.

Source: BEVDepth (Li et al., AAAI 2023), section 4.1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sparse3d.structures import Sample

from ..losses import mean_count

NO_TARGET = -1


def depth_targets(
    depth_maps: Tensor,  # [N, H, W]
    feature_size: tuple[int, int],
    bins: tuple[float, float, float],
) -> Tensor:  # [N, h, w]
    """Return the bin of each patch, int64; -1 where there is none.

    Args:
        depth_maps: metres, 0 where nothing was measured.
        feature_size: ``(h, w)``, which divide height and width of the maps.
        bins: lower edge of the first bin, upper edge of the last one, size, in metres.

    Raises:
        ValueError: if the maps are not divisible into as many patches.
    """
    low, high, size = bins
    (height, width), (rows, columns) = depth_maps.shape[-2:], feature_size
    if height % rows or width % columns:
        raise ValueError(f"depth maps of {height} x {width} are not divisible into {rows} x {columns} patches")
    patches = depth_maps.unflatten(2, (columns, -1)).unflatten(1, (rows, -1))
    nearest = torch.where(patches > 0, patches, torch.inf).amin(dim=(2, 4))
    place = ((nearest - low) / size).floor()
    valid = (place >= 0) & (place < round((high - low) / size))
    return torch.where(valid, place, NO_TARGET).long()


def depth_loss(
    probabilities: Tensor,  # [N, D, h, w]
    targets: Tensor,  # [N, h, w]
) -> Tensor:
    """Return the loss (a scalar), 0 where no patch has a target."""
    rows = probabilities.movedim(1, -1)[targets != NO_TARGET].float()
    wanted = F.one_hot(targets[targets != NO_TARGET], probabilities.shape[1]).to(rows)
    return F.binary_cross_entropy(rows, wanted, reduction="sum") / mean_count(len(rows)).to(rows)


def gather_depth_maps(samples: Sequence[Sample], image_size: tuple[int, int]) -> Tensor:
    """Return the depth maps of all cameras of a batch, ``[B N, H, W]``, padded to the images' size.

    Raises:
        ValueError: if a sample has none.
    """
    without = [number for number, sample in enumerate(samples) if "depth_maps" not in sample]
    if without:
        raise ValueError(
            f"depth supervision: samples {without} of the batch have no 'depth_maps'; put MakeDepthMaps into the "
            "training pipeline, or set depth_weight to 0"
        )
    height, width = image_size
    maps = [each for sample in samples for each in sample.depth_maps]
    return torch.stack([F.pad(each, (0, width - each.shape[1], 0, height - each.shape[0])) for each in maps])
