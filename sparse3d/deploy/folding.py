"""Batch normalisation folded into the convolution before it, as graphs have it.

    s = gamma / sqrt(var + eps)      weight' = s * weight      bias' = s * (bias - mean) + beta

A norm belongs to a convolution that is declared right before it in the same module.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from sparse3d_ops.sparse.modules import Convolution

DENSE = (nn.Conv2d, nn.ConvTranspose2d)


def fold_dense(module: nn.Module) -> None:
    """Fold the norms of a module's dense convolutions, in place; norms become identities."""
    for parent, name, follower in list(_normed(module, DENSE)):
        convolution, norm = getattr(parent, name), getattr(parent, follower)
        folded = fuse_conv_bn_eval(convolution, norm, transpose=isinstance(convolution, nn.ConvTranspose2d))
        setattr(parent, name, folded)
        setattr(parent, follower, nn.Identity())


def fold_sparse(module: nn.Module) -> None:
    """Fold the norms of a module's sparse convolutions, in place; norms become identities."""
    for parent, name, follower in list(_normed(module, (Convolution,))):
        convolution, norm = getattr(parent, name), getattr(parent, follower)
        scale, shift = affine(norm)
        weight = convolution.weight.detach() * scale.view(-1, 1, 1, 1, 1)
        bias = shift if convolution.bias is None else convolution.bias.detach() * scale + shift
        convolution.weight, convolution.bias = nn.Parameter(weight), nn.Parameter(bias)
        setattr(parent, follower, nn.Identity())


def affine(norm: nn.modules.batchnorm._BatchNorm) -> tuple[Tensor, Tensor]:
    """Return scale and shift ``[C]`` float32 of a norm with statistics."""
    with torch.no_grad():
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        return scale, norm.bias - norm.running_mean * scale


def _normed(module: nn.Module, kinds: tuple[type, ...]) -> Iterator[tuple[nn.Module, str, str]]:
    for parent in module.modules():
        for (name, child), (follower, norm) in pairwise(parent.named_children()):
            if isinstance(child, kinds) and isinstance(norm, nn.modules.batchnorm._BatchNorm):
                yield parent, name, follower
