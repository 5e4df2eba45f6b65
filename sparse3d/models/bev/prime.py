"""Prime extraction: what an image column sees, without its height.

    depth      Σ_v  softmax_v(score) depth[:, v, u]            score by two convolutions of the context features
    context    max_v of features that two 1 x 1 convolutions mix, then convolutions along the image's width

Source: MatrixVT (Zhou et al., ICCV 2023), section 3.2.
"""

from __future__ import annotations

from torch import Tensor, nn


class DepthReducer(nn.Module):
    """The depth distribution of a column: the weighted mean of its pixels' distributions.

    Args:
        channels: of the context features.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.score = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, 1, 3, padding=1),
        )

    def forward(
        self,
        context: Tensor,  # [N, C, h, w]
        depth: Tensor,  # [N, D, h, w]
    ) -> Tensor:  # [N, D, w]
        """Return the columns' distributions, which sum to 1 as the pixels' do."""
        return (depth * self.score(context).softmax(dim=2)).sum(dim=2)


class HoriConv(nn.Module):
    """The features of a column, refined along the width of the image.

    Args:
        channels: of the context features and of the result.
        mid_channels: width of the convolutions between.
    """

    def __init__(self, channels: int, mid_channels: int = 512) -> None:
        super().__init__()
        self.merger = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.Sigmoid(), nn.Conv2d(channels, channels, 1))
        self.reduce = _conv_norm(channels, mid_channels, bias=False)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                *_conv_norm(mid_channels, mid_channels, bias=False), *_conv_norm(mid_channels, mid_channels, bias=False)
            )
            for _ in range(2)
        )
        self.out = _conv_norm(mid_channels, channels, bias=True)

    def forward(self, context: Tensor) -> Tensor:
        """Map ``[N, C, h, w]`` to ``[N, C, w]``."""
        x = self.reduce(self.merger(context).amax(dim=2))
        for block in self.blocks:
            x = x + block(x)
        return self.out(x)


def _conv_norm(in_channels: int, out_channels: int, *, bias: bool) -> nn.Sequential:
    convolution = nn.Conv1d(in_channels, out_channels, 3, padding=1, bias=bias)
    return nn.Sequential(convolution, nn.BatchNorm1d(out_channels), nn.ReLU(inplace=True))
