"""Multi-scale deformable attention and modulated deformable convolution, in plain torch.

Both sample a feature map at fractional positions, with zeros outside, and sum the samples with learned weights. The
map gets a border of zeros, so that each sample is four table rows with four weights, wherever it lies; one weighted
sum over table rows (`embedding_bag`) then does sampling and summing together, and nothing of the size samples x
channels is ever stored. These are the reference; on CUDA, `deformable_cuda` takes over, and where gradients are
wanted, `deformable_training`.

Sources: Deformable DETR (arXiv 2010.04159, eq. 3), Deformable ConvNets v2 (arXiv 1811.11168, eq. 1).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opendrivevla_ros.perception import deformable_training

# Samples prepared at a time: their positions and weights stay in the processor's cache, and memory stays bounded.
CHUNK_SAMPLES = 65536
# Cells of zeros before and after each row and column: a position moved onto the border has two of them after it.
BORDER = (1, 2)


def multi_scale_deformable_attention(
    value: Tensor, shapes: Sequence[tuple[int, int]], locations: Tensor, weights: Tensor
) -> Tensor:
    """Weighted sums of samples from several feature maps.

    value: [B, S, H, D], the maps one after the other, rows first, S = sum of height * width.
    shapes: (height, width) of each map.
    locations: [B, Q, H, L, P, 2], (x, y) in [0, 1] across the whole map; outside is zero.
    weights: [B, Q, H, L, P].
    Returns [B, Q, H * D].
    """
    batch, queries, heads = locations.shape[:3]
    size = locations.new_tensor([[width, height] for height, width in shapes])[:, None]
    x, y = (locations * size - 0.5).flatten(0, 1).unbind(-1)
    source = torch.arange(batch, device=value.device).repeat_interleave(queries)
    sampled = sample_cells(value, shapes, x, y, weights.flatten(0, 1), source)
    return sampled.view(batch, queries, heads * value.shape[3])


def sample_cells(
    value: Tensor,
    shapes: Sequence[tuple[int, int]],
    x: Tensor,
    y: Tensor,
    weights: Tensor,
    source: Tensor | None = None,
) -> Tensor:
    """As `multi_scale_deformable_attention`, with positions in cells, and a source of its own for each query.

    value: [B, S, H, D]. x, y: [N, H, L, P], in cells of their map, 0 at the centre of the first cell.
    weights: [N, H, L, P].
    source: int64 [N], which of the B values each query samples; None where there is one.
    Returns [N, H * D]. Raises ValueError if the maps do not fill `value`.
    """
    _, positions, heads, dim = value.shape
    if positions != sum(height * width for height, width in shapes):
        raise ValueError(f"value holds {positions} positions, but its maps are {list(shapes)}: give matching shapes")
    number, _, levels, points = x.shape
    if number == 0:  # no camera sees any cell
        return value.new_zeros(0, heads * dim)
    if torch.is_grad_enabled():
        return deformable_training.sample_cells(value, shapes, x, y, weights, source)
    if value.is_cuda:
        from opendrivevla_ros.perception import deformable_cuda

        if deformable_cuda.has_triton():
            return deformable_cuda.sample_cells(value, shapes, x, y, weights, source)
    table, first_rows, rows_each = _padded_table(value, shapes)
    device, samples = value.device, levels * points

    def each_point(per_level: Sequence[int], dtype: torch.dtype) -> Tensor:
        return torch.tensor(per_level, dtype=dtype, device=device).repeat_interleave(points)

    width = each_point([width for _, width in shapes], torch.float32)
    height = each_point([height for height, _ in shapes], torch.float32)
    stride = each_point([width + sum(BORDER) for _, width in shapes], torch.int32)
    first = (
        each_point(first_rows, torch.int32) * heads + torch.arange(heads, dtype=torch.int32, device=device)[:, None]
    )
    x, y, weights = x.flatten(2), y.flatten(2), weights.flatten(2)
    sums = []
    for start in range(0, number, step := max(1, CHUNK_SAMPLES // (heads * samples))):
        part = slice(start, start + step)
        cell, corner_weights = _corners(x[part], y[part], weights[part], width, height, stride)
        row = cell * heads + first
        if source is not None:
            row = row + (source[part] * (rows_each * heads)).int().view(-1, 1, 1)
        down = stride * heads
        rows = torch.cat([row, row + heads, row + down, row + (down + heads)], -1)
        sums.append(
            F.embedding_bag(
                rows.view(-1, 4 * samples),
                table.view(-1, dim),
                per_sample_weights=torch.cat(corner_weights, -1).view(-1, 4 * samples).to(table.dtype),
                mode="sum",
            )
        )
    return (torch.cat(sums) if len(sums) != 1 else sums[0]).view(number, heads * dim)


def _padded_table(value: Tensor, shapes: Sequence[tuple[int, int]]) -> tuple[Tensor, list[int], int]:
    """The maps [B, S, H, D] with a border of zeros: the table, each map's first row in it, and the rows per source."""
    batch = value.shape[0]
    maps, first_rows, end = [], [], 0
    for (height, width), level in zip(
        shapes, value.flatten(2).split([height * width for height, width in shapes], 1), strict=True
    ):
        maps.append(F.pad(level.view(batch, height, width, -1), (0, 0, *BORDER, *BORDER)).flatten(1, 2))
        first_rows.append(end)
        end += (height + sum(BORDER)) * (width + sum(BORDER))
    return (maps[0] if len(maps) == 1 else torch.cat(maps, 1)), first_rows, end


def _corners(
    x: Tensor, y: Tensor, weights: Tensor, width: Tensor | int, height: Tensor | int, stride: Tensor | int
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor, Tensor]]:
    """The upper left cell of each sample in a map with a border, and the weights of its four cells.

    Cells are int32, row * stride + column; weights go upper left, upper right, lower left, lower right. Positions
    further out than the border are moved onto it, where all four cells are zero or weigh nothing.
    """
    x, y = _onto_border(x, width), _onto_border(y, height)
    left, top = x.floor(), y.floor()
    lower = weights * (y - top)
    upper = weights - lower
    share = x - left
    upper_right, lower_right = upper * share, lower * share
    cell = top.int() * stride + (left.int() + (stride + 1))  # position -1 is the border's cell 0
    return cell, (upper - upper_right, upper_right, lower - lower_right, lower_right)


def _onto_border(position: Tensor, size: Tensor | int) -> Tensor:
    """Positions kept within [-1, size]."""
    limit = torch.as_tensor(size, dtype=position.dtype, device=position.device)
    return torch.minimum(position.clamp(min=-1), limit)


def modulated_deform_conv2d(
    x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, *, stride: int = 1, padding: int = 1
) -> Tensor:
    """A convolution whose taps are moved by `offset` and scaled by `mask`, both per output position.

    x: [N, C, H, W]; offset: [N, 2 * taps, h, w], (dy, dx) of each tap in turn, in cells; mask: [N, taps, h, w];
    weight: [out, C, kernel, kernel]. Returns [N, out, h, w].
    """
    if x.is_cuda:
        from opendrivevla_ros.perception import deformable_cuda

        if deformable_cuda.has_torchvision():
            return deformable_cuda.modulated_deform_conv2d(x, offset, mask, weight, stride=stride, padding=padding)
    images, channels, height, width = x.shape
    outputs, _, kernel, _ = weight.shape
    out_height, out_width = offset.shape[-2:]
    taps = kernel * kernel
    table, _, rows_each = _padded_table(x.permute(0, 2, 3, 1).flatten(1, 2).unsqueeze(2), [(height, width)])
    tap = torch.arange(taps, device=x.device)
    row = torch.arange(out_height, device=x.device).view(-1, 1, 1) * stride - padding + tap // kernel
    column = torch.arange(out_width, device=x.device).view(-1, 1) * stride - padding + tap % kernel
    down, right = (
        offset.float().view(images, taps, 2, out_height, out_width).permute(2, 0, 3, 4, 1)
    )  # each [N, h, w, taps]
    modulation = mask.permute(0, 2, 3, 1).float()
    table_width = width + sum(BORDER)
    cell, corner_weights = _corners(right + column, down + row, modulation, width, height, table_width)
    cell = cell + (torch.arange(images, dtype=torch.int32, device=x.device) * rows_each).view(-1, 1, 1, 1)
    cells = torch.stack([cell, cell + 1, cell + table_width, cell + table_width + 1], -1)
    columns = F.embedding_bag(
        cells.view(-1, 4),
        table.view(-1, channels),
        per_sample_weights=torch.stack(corner_weights, -1).view(-1, 4).to(table.dtype),
        mode="sum",
    )
    kernel_matrix = weight.permute(0, 2, 3, 1).reshape(outputs, taps * channels)
    out = F.linear(columns.view(-1, taps * channels), kernel_matrix)
    return out.view(images, out_height, out_width, outputs).permute(0, 3, 1, 2)


class ModulatedDeformConv2d(nn.Module):
    """DCNv2 with its own 3x3 offset convolution (27 outputs: dy, dx of nine taps, nine mask logits), without bias.

    x [N, in, H, W] -> [N, out, H / stride, W / stride].
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, 3, 3))
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        self.conv_offset = nn.Conv2d(in_channels, 27, 3, stride, padding=1)
        nn.init.zeros_(self.conv_offset.weight)
        assert self.conv_offset.bias is not None
        nn.init.zeros_(self.conv_offset.bias)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv_offset(x)
        return modulated_deform_conv2d(
            x, out[:, :18], out[:, 18:].sigmoid(), self.weight, stride=self.stride, padding=1
        )
