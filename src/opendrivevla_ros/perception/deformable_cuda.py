"""Deformable attention as a Triton kernel, and deformable convolution through torchvision, for CUDA.

`deformable` calls these in place of its own formulas where they are installed; its results are the reference.
Untested on a GPU so far: the machines that run this project's tests have none, and skip test_deformable_cuda.py there;
the kernel agrees in Triton's interpreter. It computes no gradients: with these enabled, attention stays with
`deformable`.
"""

import importlib.util
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

ROWS_PER_PROGRAM = 8  # (query, head) pairs that one program sums up side by side


@cache
def has_triton() -> bool:
    """Whether Triton is installed."""
    return importlib.util.find_spec("triton") is not None


@cache
def has_torchvision() -> bool:
    """Whether torchvision is installed."""
    return importlib.util.find_spec("torchvision") is not None


def sample_cells(
    value: Tensor,
    shapes: Sequence[tuple[int, int]],
    x: Tensor,
    y: Tensor,
    weights: Tensor,
    source: Tensor | None = None,
) -> Tensor:
    """`deformable.sample_cells`, without gradients: [B, S, H, D], [N, H, L, P] each -> [N, H * D]."""
    import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]

    from opendrivevla_ros.perception.deformable_kernel import sum_samples

    _, positions, heads, dim = value.shape
    number, _, levels, points = x.shape
    first_rows = [sum(height * width for height, width in shapes[:level]) for level in range(levels)]
    maps = torch.tensor(
        [[*shape, first] for shape, first in zip(shapes, first_rows, strict=True)], device=value.device
    )
    out = value.new_empty(number, heads * dim)
    sum_samples[(triton.cdiv(number * heads, ROWS_PER_PROGRAM),)](
        value.contiguous(),
        maps.int(),
        x.float().contiguous(),
        y.float().contiguous(),
        weights.float().contiguous(),
        maps if source is None else source.contiguous(),
        out,
        number * heads,
        positions,
        HEADS=heads,
        DIM=dim,
        POINTS=points,
        SAMPLES=levels * points,
        HAS_SOURCE=source is not None,
        ROWS=ROWS_PER_PROGRAM,
        CHANNELS=triton.next_power_of_2(dim),
    )
    return out


def modulated_deform_conv2d(
    x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, *, stride: int = 1, padding: int = 1
) -> Tensor:
    """`deformable.modulated_deform_conv2d` by torchvision's operator, in float32 as the published one computes."""
    from torchvision.ops import deform_conv2d  # type: ignore[import-not-found, import-untyped, unused-ignore]

    out = deform_conv2d(x.float(), offset.float(), weight.float(), stride=stride, padding=padding, mask=mask.float())
    return out.to(x.dtype)
