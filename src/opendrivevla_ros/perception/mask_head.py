"""Mask heads: queries look at every BEV cell, and how strongly they do becomes their mask.

The mask decoder of Panoptic SegFormer (arXiv 2109.03814), as in UniAD's map head.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from opendrivevla_ros.perception.config import PerceptionConfig


class MaskAttention(nn.Module):
    """Query and key projections, and the small network that fuses the heads' scores into one mask."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.linear_l1 = nn.Sequential(nn.Linear(heads, heads), nn.ReLU())
        self.linear = nn.Sequential(nn.Linear(heads, 1), nn.ReLU())

    def scores(self, query: Tensor, memory: Tensor) -> Tensor:
        """Scaled dot products of query [Q, C] with memory [S, C] for each head: [H, Q, S]."""
        q = self.q(query).unflatten(1, (self.heads, -1)) * (query.shape[1] // self.heads) ** -0.5  # [Q, H, D]
        if self._few(query):
            folded = torch.einsum("qhd,hdc->hqc", q, self.k.weight.unflatten(0, (self.heads, -1)))
            constant = torch.einsum("qhd,hd->hq", q, self.k.bias.unflatten(0, (self.heads, -1)))
            return folded @ memory.T + constant[..., None]
        k = self.k(memory).unflatten(1, (self.heads, -1))
        return q.transpose(0, 1) @ k.permute(1, 2, 0)

    def masks(self, query: Tensor, memory: Tensor) -> Tensor:
        """Masks [Q, S], at least 0 but not bounded above; a cell belongs to the mask above 0.5."""
        fused = self.scores(query, memory).flatten(
            1
        )  # [H, Q * S]: the layers work on the first axis, unlike nn.Linear
        for layer in (self.linear_l1, self.linear):
            weight, bias = layer.parameters()
            fused = torch.addmm(bias[:, None], weight, fused).relu_()
        return fused.float().view(len(query), len(memory))

    def _few(self, query: Tensor) -> bool:
        """Whether projecting the queries of all heads to memory's space costs less than projecting memory."""
        return len(query) * self.heads <= query.shape[1]


class CrossAttention(MaskAttention):
    """Multi-head attention to the BEV. Its mask network only serves the training losses."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__(dim, heads)
        self.v = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, query: Tensor, memory: Tensor) -> Tensor:
        """query [Q, C], memory [S, C] -> [Q, C], without the residual."""
        if self._few(query):
            seen = self.scores(query, memory).softmax(-1) @ memory  # [H, Q, C]
            attended = torch.einsum("hqc,hdc->qhd", seen, self.v.weight.unflatten(0, (self.heads, -1))).flatten(1)
            return self.proj(attended + self.v.bias)
        q, k, v = (
            projection(x).unflatten(1, (self.heads, -1)).transpose(0, 1)[None]
            for projection, x in ((self.q, query), (self.k, memory), (self.v, memory))
        )
        attended = functional.scaled_dot_product_attention(q, k, v)
        return self.proj(attended[0].transpose(0, 1).flatten(1))


class JointSelfAttention(nn.Module):
    """Multi-head self-attention with one projection for queries, keys and values."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, query: Tensor) -> Tensor:
        """[Q, C] -> [Q, C], without the residual."""
        q, k, v = self.qkv(query).unflatten(1, (3, self.heads, -1)).permute(1, 2, 0, 3)[:, None]
        attended = functional.scaled_dot_product_attention(q, k, v)
        return self.proj(attended[0].transpose(0, 1).flatten(1))


class Mlp(nn.Module):
    """Two linear layers with GELU between: [Q, C] -> [Q, C]."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc1(x)))


class MaskBlock(nn.Module):
    """Self-attention among the queries where asked for, attention to the BEV, MLP; each with residual, then norm."""

    def __init__(self, config: PerceptionConfig, *, self_attention: bool) -> None:
        super().__init__()
        dim, heads = config.embed_dim, config.heads
        self.attn = CrossAttention(dim, heads)
        self.head_norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, dim * config.mask_mlp_ratio)
        self.head_norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.self_attention = JointSelfAttention(dim, heads) if self_attention else None
        if self_attention:
            self.norm3 = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, query: Tensor, memory: Tensor, position: Tensor | None = None) -> Tensor:
        """query, position [Q, C], memory [S, C] -> [Q, C]. The position only directs the attention to memory."""
        if self.self_attention is not None:
            query = self.norm3(query + self.self_attention(query))
        looking = query if position is None else query + position
        query = self.head_norm1(query + self.attn(looking, memory))
        return self.head_norm2(query + self.mlp(query))


class MaskHead(nn.Module):
    """Blocks that refine queries, then one mask a query.

    position_in_residual: add the position to the query itself before each block, as the published code does (T9).
    """

    def __init__(
        self, config: PerceptionConfig, blocks: int, *, self_attention: bool, position_in_residual: bool = False
    ) -> None:
        super().__init__()
        self.position_in_residual = position_in_residual
        self.blocks = nn.ModuleList(MaskBlock(config, self_attention=self_attention) for _ in range(blocks))
        self.attnen = MaskAttention(config.embed_dim, config.heads)

    def forward(self, query: Tensor, memory: Tensor, position: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """query, position [Q, C], memory [S, C] -> refined query [Q, C], without the position, and masks [Q, S]."""
        for block in self.blocks:
            if position is not None and self.position_in_residual:
                query = block(query + position, memory)
            else:
                query = block(query, memory, position)
        return query, self.attnen.masks(query if position is None else query + position, memory)
