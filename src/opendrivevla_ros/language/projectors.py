"""Projectors from perception features to language embeddings, with the key names of the published checkpoints.

The family is LLaVA's (arXiv 2310.03744, and its successors' residual and normalised forms).
"""

import re

from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """LayerNorm, then x + Linear(GELU(Linear(x))) on the normalised x. [..., hidden] -> [..., hidden]."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.pre_norm = nn.LayerNorm(hidden_size)
        self.proj = nn.Sequential(nn.Linear(hidden_size, hidden_size), nn.GELU(), nn.Linear(hidden_size, hidden_size))

    def forward(self, x: Tensor) -> Tensor:
        x = self.pre_norm(x)
        return x + self.proj(x)


def build_projector(kind: str, input_size: int, hidden_size: int) -> nn.Module:
    """A module [..., input_size] -> [..., hidden_size].

    kind: `linear`, `mlp{N}x_gelu`, `mlp{N}x_res{M}x_gelu` or `qwen2_5_rms`. Raises ValueError for any other.
    """
    if kind == "linear":
        return nn.Linear(input_size, hidden_size)
    if kind == "qwen2_5_rms":
        return nn.Sequential(nn.RMSNorm(input_size, eps=1e-6), _mlp(input_size, hidden_size, 2))
    match = re.fullmatch(r"mlp([1-9])x_(?:res([1-9])x_)?gelu", kind)
    if match is None:
        known = "linear, mlp{N}x_gelu, mlp{N}x_res{M}x_gelu, qwen2_5_rms"
        raise ValueError(f"unknown projector type {kind!r}; known are {known}")
    depth, residual_blocks = int(match[1]), int(match[2] or 0)
    return _mlp(input_size, hidden_size, depth).extend(ResidualBlock(hidden_size) for _ in range(residual_blocks))


def _mlp(input_size: int, hidden_size: int, depth: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Linear(input_size, hidden_size)]
    for _ in range(depth - 1):
        layers += [nn.GELU(), nn.Linear(hidden_size, hidden_size)]
    return nn.Sequential(*layers)
