"""Sampling with `grid_sample`, where gradients are wanted: its backward pass is faster than a table's."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def sample_cells(
    value: Tensor, shapes: Sequence[tuple[int, int]], x: Tensor, y: Tensor, weights: Tensor, source: Tensor | None
) -> Tensor:
    """The same as `deformable.sample_cells`; every query is put in a row of its source, which may be in any order."""
    sources, _, heads, dim = value.shape
    number, _, _, points = x.shape
    if source is None:
        longest, slot = number, None
    else:
        counts = source.bincount(minlength=sources)
        longest = int(counts.max())
        order = source.argsort(stable=True)
        place = order.new_empty(number)
        place[order] = order.new_ones(number).cumsum(0) - 1 - (counts.cumsum(0) - counts)[source[order]]
        slot = source * longest + place

    def in_rows(part: Tensor) -> Tensor:
        """[N, H, P] as [sources * H, longest, P], zeros in the rows' unused ends."""
        if slot is not None:
            part = part.new_zeros(sources * longest, *part.shape[1:]).index_copy(0, slot, part)
        return part.view(sources, longest, heads, points).transpose(1, 2).reshape(sources * heads, longest, points)

    exact = torch.promote_types(value.dtype, x.dtype)  # in half precision, places would be rounded to cells
    total: Tensor | None = None
    levels = value.split([height * width for height, width in shapes], 1)
    for level, ((height, width), cells) in enumerate(zip(shapes, levels, strict=True)):
        maps = cells.permute(0, 2, 3, 1).reshape(sources * heads, dim, height, width).to(exact)
        # beyond one cell outside, all is zero; far beyond, grid_sample's integers would overflow
        across = (2 * x[:, :, level].clamp(-1, width) + 1) / width - 1
        down = (2 * y[:, :, level].clamp(-1, height) + 1) / height - 1
        grid = torch.stack([in_rows(across), in_rows(down)], -1).to(exact)
        sampled = F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        summed = (sampled * in_rows(weights[:, :, level])[:, None]).sum(-1)  # [sources * H, D, longest]
        total = summed if total is None else total + summed
    assert total is not None
    rows = total.view(sources, heads, dim, longest).permute(0, 3, 1, 2).reshape(sources * longest, heads * dim)
    return (rows if slot is None else rows[slot]).to(value.dtype)
