"""The CUDA operators against the torch formulas; skipped, by name, where there is no CUDA GPU."""

import pytest
import torch

from opendrivevla_ros.perception import deformable, deformable_cuda

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU, and this machine has none")
needs_triton = pytest.mark.skipif(not deformable_cuda.has_triton(), reason="needs Triton, which is not installed")
needs_torchvision = pytest.mark.skipif(
    not deformable_cuda.has_torchvision(), reason="needs torchvision, which is not installed"
)


@pytest.mark.parametrize("dim", [8, 24, 32])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@needs_triton
@needs_gpu
def test_the_triton_kernel_equals_the_torch_formula(dim: int, dtype: torch.dtype) -> None:
    shapes = [(9, 13), (4, 6)]
    value = torch.randn(3, 9 * 13 + 4 * 6, 4, dim).to(dtype)
    x, y = torch.rand(2, 101, 4, 2, 4) * 20 - 4
    weights, source = torch.rand(101, 4, 2, 4), torch.randint(0, 3, (101,))
    expected = deformable.sample_cells(value.float(), shapes, x, y, weights, source)
    with torch.no_grad():
        actual = deformable_cuda.sample_cells(value.cuda(), shapes, x.cuda(), y.cuda(), weights.cuda(), source.cuda())
    tolerance = 1e-5 if dtype == torch.float32 else 3e-2
    torch.testing.assert_close(actual.float().cpu(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("stride", [1, 2])
@needs_torchvision
@needs_gpu
def test_torchvisions_deformable_convolution_equals_the_torch_formula(stride: int) -> None:
    x, weight = torch.randn(2, 6, 9, 11), torch.randn(5, 6, 3, 3)
    height, width = -(-9 // stride), -(-11 // stride)
    offset, mask = torch.randn(2, 18, height, width) * 2, torch.rand(2, 9, height, width)
    expected = deformable.modulated_deform_conv2d(x, offset, mask, weight, stride=stride)
    actual = deformable_cuda.modulated_deform_conv2d(
        x.cuda(), offset.cuda(), mask.cuda(), weight.cuda(), stride=stride
    )
    torch.testing.assert_close(actual.cpu(), expected, rtol=1e-4, atol=1e-4)
