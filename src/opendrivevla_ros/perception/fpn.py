"""Feature pyramid: the backbone's stages brought to one width, coarse ones added to fine ones (arXiv 1612.03144)."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from opendrivevla_ros.perception.config import PerceptionConfig
from opendrivevla_ros.perception.resnet import EXPANSION, convolve

STAGES = 3  # of the backbone that feed the pyramid


class FeaturePyramid(nn.Module):
    """Three backbone stages to `feature_levels` levels of `embed_dim` channels; levels beyond three halve the last."""

    def __init__(self, config: PerceptionConfig) -> None:
        super().__init__()
        inputs = [config.resnet_width * EXPANSION * 2**stage for stage in range(1, 1 + STAGES)]
        channels = config.embed_dim
        self.lateral_convs = nn.ModuleList(Convolution(width, channels, kernel=1) for width in inputs)
        self.fpn_convs = nn.ModuleList(
            Convolution(channels, channels, kernel=3, stride=1 if level < STAGES else 2)
            for level in range(config.feature_levels)
        )

    def forward(self, stages: Sequence[Tensor]) -> list[Tensor]:
        """[N, c, h, w] of each stage, fine to coarse -> [N, C, h, w] of each level, fine to coarse."""
        sums = [lateral(stage) for lateral, stage in zip(self.lateral_convs, stages, strict=True)]
        for level in range(len(sums) - 1, 0, -1):
            size = sums[level - 1].shape[-2:]
            sums[level - 1] = sums[level - 1] + F.interpolate(sums[level], size=size, mode="nearest")
        levels = [convolution(sum_) for convolution, sum_ in zip(self.fpn_convs, sums, strict=False)]
        for convolution in self.fpn_convs[STAGES:]:
            levels.append(convolution(levels[-1]))
        return levels


class Convolution(nn.Module):
    """A convolution with bias under the published name `conv`, padded to keep the size."""

    def __init__(self, in_channels: int, out_channels: int, *, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        assert self.conv.bias is not None
        return convolve(x, self.conv.weight, self.conv.bias, self.conv)
