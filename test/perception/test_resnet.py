"""The backbone and the pyramid."""

import torch

from opendrivevla_ros.perception.config import PerceptionConfig
from opendrivevla_ros.perception.fpn import FeaturePyramid
from opendrivevla_ros.perception.resnet import ResNet, convolve_normalised

CONFIG = PerceptionConfig(resnet_blocks=(1, 1, 1, 1), resnet_width=8, embed_dim=16)


def test_stages_halve_the_picture_and_double_the_channels() -> None:
    shapes = [tuple(stage.shape) for stage in ResNet(CONFIG).eval()(torch.zeros(2, 3, 64, 96))]
    assert shapes == [(2, 64, 8, 12), (2, 128, 4, 6), (2, 256, 2, 3)]


def test_the_pyramid_has_one_width_and_a_fourth_level_of_half_the_third() -> None:
    stages = [torch.zeros(2, 64, 12, 20), torch.zeros(2, 128, 6, 10), torch.zeros(2, 256, 3, 5)]
    shapes = [tuple(level.shape) for level in FeaturePyramid(CONFIG)(stages)]
    assert shapes == [(2, 16, 12, 20), (2, 16, 6, 10), (2, 16, 3, 5), (2, 16, 2, 3)]


def test_folded_normalisation_equals_convolution_then_normalisation() -> None:
    convolution, norm = torch.nn.Conv2d(3, 5, 3, padding=1, bias=False), torch.nn.BatchNorm2d(5).eval()
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = torch.randn(2, 3, 6, 7)
    torch.testing.assert_close(convolve_normalised(convolution, norm, x), norm(convolution(x)), rtol=1e-4, atol=1e-5)


def test_training_updates_the_normalisation_statistics_and_gives_gradients() -> None:
    network = ResNet(CONFIG).train()
    network(torch.randn(2, 3, 32, 32))[-1].sum().backward()
    assert network.bn1.running_mean.abs().sum() > 0
    assert network.layer3[0].conv2.conv_offset.weight.grad.abs().sum() > 0
