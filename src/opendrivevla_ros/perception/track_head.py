"""The track head: encodes the BEV, and decodes track queries into classes and boxes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from opendrivevla_ros.perception.attention import DeformableAttention
from opendrivevla_ros.perception.bev_encoder import BevTransformer
from opendrivevla_ros.perception.config import PerceptionConfig
from opendrivevla_ros.perception.decoder import Decoder
from opendrivevla_ros.perception.positions import LearnedPositions
from opendrivevla_ros.perception.tracks import BOX_CODE
from opendrivevla_ros.perception.transforms import inverse_sigmoid, regression_branch

VELOCITY_LOSS_WEIGHT = 0.2  # of the last two box code entries; all others weigh 1


@dataclass(frozen=True)
class TrackDecoding:
    """What the decoder says of Q queries.

    hidden: [layers, Q, C]. references: [layers, Q, 3] in [0, 1] after each layer. logits: [Q, classes] and boxes:
    [Q, 10] (box code, metres, lidar frame) of the last layer. last_reference: [Q, 3] its reference before the sigmoid.
    """

    hidden: Tensor
    references: Tensor
    logits: Tensor
    boxes: Tensor
    last_reference: Tensor


class TrackHead(nn.Module):
    """BEVFormer (arXiv 2203.17270) with UniAD's track queries (arXiv 2212.10156, section 3.1)."""

    def __init__(self, config: PerceptionConfig) -> None:
        super().__init__()
        dim, size = config.embed_dim, config.bev_size
        self.range_metres = config.range_metres
        self.bev_embedding = nn.Embedding(size * size, dim)
        self.positional_encoding = LearnedPositions(size, size, dim // 2)
        cross_attention = partial(DeformableAttention, dim, config.heads, 1, config.decoder_points)
        self.transformer = BevTransformer(config, Decoder(config, config.decoder_layers, cross_attention))
        layers, trajectory = range(config.decoder_layers), 2 * (config.past_steps + config.future_steps)
        self.cls_branches = nn.ModuleList(_class_branch(dim, config.classes) for _ in layers)
        self.reg_branches = nn.ModuleList(regression_branch(dim, BOX_CODE) for _ in layers)
        self.past_traj_reg_branches = nn.ModuleList(regression_branch(dim, trajectory) for _ in layers)
        weights = torch.ones(BOX_CODE)
        weights[-2:] = VELOCITY_LOSS_WEIGHT
        self.code_weights = nn.Parameter(weights, requires_grad=False)

    def encode_bev(
        self, pyramid: Sequence[Tensor], lidar_to_image: Tensor, can_bus: Tensor, previous_bev: Tensor | None
    ) -> Tensor:
        """Camera features to BEV features [S, C]; see `BevTransformer.forward`."""
        return self.transformer(
            self.bev_embedding.weight, self.positional_encoding(), pyramid, lidar_to_image, can_bus, previous_bev
        )

    def decode(self, bev: Tensor, query: Tensor, reference: Tensor) -> TrackDecoding:
        """bev [S, C], query [Q, 2C] (position, content), reference [Q, 3] before the sigmoid."""
        position, content = query.chunk(2, dim=1)
        codes: list[Tensor] = []

        def refine(layer: int, hidden: Tensor, before: Tensor) -> Tensor:
            code = self.reg_branches[layer](hidden).float()  # half precision would round metres to decimetres
            codes.append(code)
            return (code[:, [0, 1, 4]] + inverse_sigmoid(before)).sigmoid()

        hidden, references = self.transformer.decoder(content, position, bev, reference.float().sigmoid(), refine)
        last = references[-1]
        return TrackDecoding(
            hidden=torch.stack(hidden),
            references=torch.stack(references[1:]),
            logits=self.cls_branches[-1](hidden[-1]).float(),
            boxes=self._boxes(codes[-1], last),
            last_reference=inverse_sigmoid(last),
        )

    def trajectories(self, hidden: Tensor, layer: int = -1) -> Tensor:
        """Past and future centre offsets [Q, past + future, 2] from a layer's state; training only."""
        return self.past_traj_reg_branches[layer](hidden).unflatten(1, (-1, 2))

    def _boxes(self, code: Tensor, reference: Tensor) -> Tensor:
        """Box codes [Q, 10] with the centre in metres, which is the refined reference [Q, 3] in the range."""
        lowest, highest = reference.new_tensor(self.range_metres).split(3)
        centre = reference * (highest - lowest) + lowest
        return torch.cat([centre[:, :2], code[:, 2:4], centre[:, 2:], code[:, 5:]], dim=1)


def _class_branch(dim: int, classes: int) -> nn.Sequential:
    hidden = [layer for _ in range(2) for layer in (nn.Linear(dim, dim), nn.LayerNorm(dim), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(dim, classes))
