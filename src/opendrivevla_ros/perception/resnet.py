"""ResNet with bottlenecks in the Caffe style, and modulated deformable convolutions in its later stages.

He et al. (arXiv 1512.03385) with the stride in a block's first 1x1 convolution; DCNv2 (arXiv 1811.11168).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opendrivevla_ros.perception.config import PerceptionConfig
from opendrivevla_ros.perception.deformable import ModulatedDeformConv2d

EXPANSION = 4


class ResNet(nn.Module):
    """Pictures to the outputs of stages 2, 3 and 4, at strides 8, 16 and 32."""

    def __init__(self, config: PerceptionConfig) -> None:
        super().__init__()
        width = config.resnet_width
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1, self.layer2, self.layer3, self.layer4 = _stages(config)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """images [N, 3, H, W] -> [N, 8w, H/8, W/8], [N, 16w, H/16, W/16], [N, 32w, H/32, W/32] (w: resnet_width)."""
        x = images.contiguous(memory_format=torch.channels_last)
        x = F.relu(convolve_normalised(self.conv1, self.bn1, x), inplace=True)
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        c3 = self.layer2(self.layer1(x))
        c4 = self.layer3(c3)
        return c3, c4, self.layer4(c4)


def _stages(config: PerceptionConfig) -> list[nn.Sequential]:
    """The four stages; each after the first halves the size and doubles the channels."""
    stages, channels = [], config.resnet_width
    for stage, (blocks, deformable) in enumerate(zip(config.resnet_blocks, config.deformable_stages, strict=True)):
        planes, layers = config.resnet_width * 2**stage, nn.Sequential()
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            layers.append(Bottleneck(channels, planes, stride=stride, deformable=deformable))
            channels = planes * EXPANSION
        stages.append(layers)
    return stages


class Bottleneck(nn.Module):
    """1x1 (with the stride), 3x3 (plain or deformable) and 1x1 convolutions, normalised, around a shortcut."""

    def __init__(self, channels: int, planes: int, *, stride: int, deformable: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, planes, 1, stride, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2: nn.Module = (
            ModulatedDeformConv2d(planes, planes)
            if deformable
            else nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        )
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, planes * EXPANSION, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes * EXPANSION)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or channels != planes * EXPANSION:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, planes * EXPANSION, 1, stride, bias=False), nn.BatchNorm2d(planes * EXPANSION)
            )

    def forward(self, x: Tensor) -> Tensor:
        """[N, channels, H, W] -> [N, 4 * planes, H / stride, W / stride]."""
        out = F.relu(convolve_normalised(self.conv1, self.bn1, x), inplace=True)
        out = F.relu(convolve_normalised(self.conv2, self.bn2, out), inplace=True)
        out = convolve_normalised(self.conv3, self.bn3, out)
        shortcut = x if self.downsample is None else convolve_normalised(self.downsample[0], self.downsample[1], x)
        return F.relu(out.add_(shortcut), inplace=True)


def convolve_normalised(convolution: nn.Module, norm: nn.Module, x: Tensor) -> Tensor:
    """Batch normalisation of a convolution without bias.

    In evaluation the normalisation is a scale and a shift per channel, so it is folded into the convolution's weights:
    one pass over the feature map in place of two. On the way back the fold costs more than that pass.
    """
    if norm.training or torch.is_grad_enabled() or not isinstance(convolution, nn.Conv2d):
        return norm(convolution(x))
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_var is not None
    assert norm.running_mean is not None
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    shift = norm.bias - norm.running_mean * scale
    weight = convolution.weight * scale.view(-1, 1, 1, 1)
    return convolve(x, weight, shift, convolution)


def convolve(x: Tensor, weight: Tensor, bias: Tensor, layer: nn.Conv2d) -> Tensor:
    """`layer` with another weight [out, in, k, k] and bias [out]: x [N, in, H, W] -> [N, out, h, w].

    A 1x1 kernel is computed as the matrix product that it is; torch's convolution on one thread is slower.
    """
    weight, bias = weight.to(x.dtype), bias.to(x.dtype)
    if layer.kernel_size != (1, 1):
        return F.conv2d(x, weight, bias, layer.stride, layer.padding)
    down, right = layer.stride
    pixels = x.permute(0, 2, 3, 1)[:, ::down, ::right]
    out = F.linear(pixels.reshape(-1, x.shape[1]), weight.flatten(1), bias)
    return out.view(*pixels.shape[:3], -1).permute(0, 3, 1, 2)
