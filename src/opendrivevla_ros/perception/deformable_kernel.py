"""The Triton kernel of deformable attention. It imports Triton; `deformable_cuda` imports it where that is there."""

# Triton's compiler reads the parameters' annotations itself, and knows only its own.
# mypy: disable-error-code="no-untyped-def, import-not-found, import-untyped"

import triton
import triton.language as tl


@triton.jit
def sum_samples(
    value,  # [B, S, H, D]
    maps,  # int32 [L, 3]: height, width, first position
    x,  # [N, H, L, P] in cells, as y and weights
    y,
    weights,
    source,  # int64 [N]
    out,  # [N, H, D]
    rows_total,  # N * H
    positions,  # S
    HEADS: tl.constexpr,
    DIM: tl.constexpr,
    POINTS: tl.constexpr,
    SAMPLES: tl.constexpr,
    HAS_SOURCE: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,  # D rounded up to a power of two
):
    """out = for each of N * H rows, the weighted sum of its bilinear samples; ROWS of them a program."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    known = row < rows_total
    head = row % HEADS
    origin = tl.zeros([ROWS], tl.int64)
    if HAS_SOURCE:
        origin = tl.load(source + row // HEADS, mask=known, other=0).to(tl.int64) * positions
    channel = tl.arange(0, CHANNELS)
    total = tl.zeros([ROWS, CHANNELS], tl.float32)
    for entry in range(SAMPLES):
        level = entry // POINTS
        height = tl.load(maps + level * 3)
        width = tl.load(maps + level * 3 + 1)
        first = tl.load(maps + level * 3 + 2)
        across = tl.load(x + row * SAMPLES + entry, mask=known, other=0.0)
        down = tl.load(y + row * SAMPLES + entry, mask=known, other=0.0)
        weight = tl.load(weights + row * SAMPLES + entry, mask=known, other=0.0)
        left = tl.floor(across)
        top = tl.floor(down)
        for corner in tl.static_range(4):
            column = left + corner % 2
            line = top + corner // 2
            share = (1.0 - tl.abs(across - column)) * (1.0 - tl.abs(down - line))
            inside = known & (column >= 0) & (column < width) & (line >= 0) & (line < height)
            cell = tl.where(inside, line * width + column, 0.0).to(tl.int64) + first + origin
            place = (cell * HEADS + head)[:, None] * DIM + channel[None, :]
            shown = tl.load(value + place, mask=inside[:, None] & (channel[None, :] < DIM), other=0.0)
            total += shown.to(tl.float32) * tl.where(inside, weight * share, 0.0)[:, None]
    tl.store(out + row[:, None] * DIM + channel[None, :], total, mask=known[:, None] & (channel[None, :] < DIM))
