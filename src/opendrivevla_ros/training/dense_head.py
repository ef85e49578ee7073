"""What the BEV says by itself, cell by cell; only training has it.

It gives the BEV something to learn before the queries find anything, and then shows the decoder where to look
(CenterPoint, arXiv 2006.11275, section 4, whose head this is, with linear layers).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opendrivevla_ros.perception.config import MAP_CLASSES, PerceptionConfig
from opendrivevla_ros.perception.tracks import BOX_CODE
from opendrivevla_ros.training.labels import BoxLabels
from opendrivevla_ros.training.losses import (
    FOUND_WEIGHTS,
    box_loss,
    heatmap_loss,
    heatmap_target,
    occupancy_loss,
)
from opendrivevla_ros.training.matching import BOX_WEIGHT

CENTRE_PRIOR = 0.1  # the heatmap's first guess everywhere (CornerNet, arXiv 1808.01244, section 4.1)
PEAKS = 40  # places in a frame where an object may be


class DenseHead(nn.Module):
    """Centres, boxes and map classes of every BEV cell, straight from its features."""

    def __init__(self, config: PerceptionConfig) -> None:
        super().__init__()
        self._config = config
        self.centres = nn.Linear(config.embed_dim, config.classes)
        self.boxes = nn.Linear(config.embed_dim, BOX_CODE)
        self.occupancy = nn.Linear(config.embed_dim, len(MAP_CLASSES))
        nn.init.constant_(self.centres.bias, -math.log((1 - CENTRE_PRIOR) / CENTRE_PRIOR))

    def forward(self, bev: Tensor, boxes: BoxLabels, occupied: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The losses of BEV features [S, C] against boxes and occupied cells [map classes, n, n], and the peaks.

        Those are x, y [PEAKS, 2] in metres of the likeliest objects: cells that no neighbour exceeds, likeliest first.
        """
        config, side = self._config, self._config.bev_size
        centres = self.centres(bev).T.unflatten(1, (side, side))
        occupancy = self.occupancy(bev).T.unflatten(1, (side, side))
        codes = self.boxes(bev).float()
        wanted = heatmap_target(boxes, classes=config.classes, size=side, range_metres=config.range_metres)
        losses = {
            "centres": heatmap_loss(centres, wanted, FOUND_WEIGHTS),
            "cell_boxes": self._box_loss(codes, boxes),
            "occupancy": occupancy_loss(occupancy, occupied),
        }
        return losses, self._peaks(centres.detach(), codes.detach())

    def _box_loss(self, codes: Tensor, boxes: BoxLabels) -> Tensor:
        """Of the codes [S, 10], whose centre counts from the cell's, in the nine cells around each box; per box."""
        side, cell = self._config.bev_size, self._config.cell_metres
        column, row = ((boxes.codes[:, :2] - self._lowest(codes)) / cell).floor().long().unbind(1)
        around = torch.tensor([(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1)], device=codes.device)
        columns, rows = column[:, None] + around[:, 0], row[:, None] + around[:, 1]  # [T, 9]
        box, place = ((columns >= 0) & (columns < side) & (rows >= 0) & (rows < side)).nonzero().unbind(1)
        columns, rows = columns[box, place], rows[box, place]
        labels = boxes.codes[box].clone()
        labels[:, :2] -= self._centre(columns, rows)
        loss = box_loss(codes[rows * side + columns], labels, boxes.velocity_known[box])
        return BOX_WEIGHT * loss / (len(around) * max(len(boxes), 1))

    def _peaks(self, centres: Tensor, codes: Tensor) -> Tensor:
        best = centres.float().amax(0)
        peaked = best.masked_fill(F.max_pool2d(best[None], 3, stride=1, padding=1)[0] > best, -math.inf)
        cells = peaked.flatten().topk(PEAKS).indices
        rows, columns = cells // self._config.bev_size, cells % self._config.bev_size
        return self._centre(columns, rows) + codes[cells, :2]

    def _centre(self, columns: Tensor, rows: Tensor) -> Tensor:
        """[..., 2] x, y of cells, metres."""
        cells = torch.stack([columns, rows], -1)
        return self._lowest(cells) + (cells + 0.5) * self._config.cell_metres

    def _lowest(self, like: Tensor) -> Tensor:
        return torch.tensor(self._config.range_metres[:2], device=like.device)
