"""The query decoder that the track head and the map head share: it looks at the BEV and refines references."""

from collections.abc import Callable

from torch import Tensor, nn

from opendrivevla_ros.perception.attention import DeformableAttention, FeedForward, SelfAttention
from opendrivevla_ros.perception.config import PerceptionConfig


class DecoderLayer(nn.Module):
    """Self-attention, deformable attention to the BEV, feed-forward; each with residual, then layer norm.

    Deformable DETR, arXiv 2010.04159, section 4.2.
    """

    def __init__(self, config: PerceptionConfig, cross_attention: DeformableAttention) -> None:
        super().__init__()
        dim = config.embed_dim
        self.attentions = nn.ModuleList([SelfAttention(dim, config.heads), cross_attention])
        self.ffns = nn.ModuleList([FeedForward(dim, config.ffn_dim)])
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))

    def forward(
        self, query: Tensor, position: Tensor, bev: Tensor, references: Tensor, shape: tuple[int, int]
    ) -> Tensor:
        """query, position [1, Q, C], bev [1, S, C], references [1, Q, 1, 2 or 4] in [0, 1] -> [1, Q, C]."""
        query = self.norms[0](query + self.attentions[0](query, position))
        query = self.norms[1](query + self.attentions[1](query, bev, references, [shape], position))
        return self.norms[2](self.ffns[0](query))


class Decoder(nn.Module):
    """A stack of layers; after each one, `refine` moves the references (iterative refinement, section 4.2)."""

    def __init__(
        self, config: PerceptionConfig, layers: int, make_cross_attention: Callable[[], DeformableAttention]
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(config, make_cross_attention()) for _ in range(layers))

    def forward(
        self,
        query: Tensor,
        position: Tensor,
        bev: Tensor,
        references: Tensor,
        refine: Callable[[int, Tensor, Tensor], Tensor],
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The query after each layer, [Q, C] each, and the references before the first and after each layer.

        query, position: [Q, C]. bev: [S, C] of a square grid. references: [Q, 2] points, [Q, 3] points of which the
        BEV has x and y, or [Q, 4] boxes (cx, cy, w, h), in [0, 1]. `refine(layer, query, references)` returns the new
        ones; no gradient flows through them into the next layer.
        """
        side = round(len(bev) ** 0.5)
        hidden, refined = [], [references]
        x, position, bev = query[None], position[None], bev[None]
        for number, layer in enumerate(self.layers):
            before = refined[-1].detach()
            where = before[:, :2] if before.shape[1] == 3 else before
            x = layer(x, position, bev, where[None, :, None], (side, side))
            hidden.append(x[0])
            refined.append(refine(number, x[0], before))
        return hidden, refined
