"""What the small model's tokens of pictures say of the ground ahead, and the path that is proposed from it.

The published model begins with a tower that others trained on more pictures than a small one will ever see. The small
one starts from nothing, and what it learns to see is where things are on the ground: at each cell those of its tokens
that show it, as in Simple-BEV (arXiv 2206.07959). A query of the ego looks there, as OpenDriveVLA's does, and proposes
a path, by which the model's actions are weighed.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from opendrivevla_ros.core.geometry import Array, apply
from opendrivevla_ros.core.observation import Observation
from opendrivevla_ros.core.rig import CameraRig
from opendrivevla_ros.perception.ego_query import EgoQuery, EgoView
from opendrivevla_ros.policies.autovla.config import AutoVlaConfig
from opendrivevla_ros.policies.opendrivevla.frames import lidar_path_to_base
from opendrivevla_ros.policies.opendrivevla.perception_input import ego_numbers

GROUND_RANGE = (-20.0, 0.0, -2.5, 20.0, 40.0, 1.5)  # x, y, z from and to, metres, lidar frame
GROUND_SIZE = 32  # cells on a side
HEIGHTS = 4  # points above each cell
QUERY_LAYERS, MIXED = 2, 2


class Sight(nn.Module):
    """Reads the tower's tokens [B, V, hidden] of a configuration's videos."""

    def __init__(self, config: AutoVlaConfig) -> None:
        super().__init__()
        width = config.sight_width
        self._cameras, self._times = len(config.cameras), config.frames // config.vision.temporal_patch
        side = config.vision.patch * config.vision.merge
        self._rows, self._columns = config.image_size[1] // side, config.image_size[0] // side
        self.read = nn.Linear(config.language.hidden_size, width)
        self.places = nn.Parameter(torch.zeros(width, GROUND_SIZE, GROUND_SIZE))
        self.cells = nn.Conv2d(self._times * width, width, 1)
        around = [layer for _ in range(MIXED) for layer in (nn.ReLU(), nn.Conv2d(width, width, 3, padding=1))]
        self.mix = nn.Sequential(*around)
        self.query = EgoQuery(width, QUERY_LAYERS, ahead=(GROUND_SIZE, GROUND_SIZE))

    def forward(self, tokens: Tensor, places: Tensor) -> Tensor:
        """The ground ahead [B, rows, columns, C], row 0 next to the ego, column 0 left.

        places: [B, cameras, P, 2], see `places_in`.
        """
        lifted = self.lifted(self.read(tokens), places)
        ground: Tensor = self.mix(self.cells(lifted) + self.places)
        return ground.permute(0, 2, 3, 1)

    def proposed(self, ground: Tensor, egos: Tensor) -> Tensor:
        """Paths [B, 6, 2] of the lidar origin every 0.5 s, lidar frame, metres; egos: [B, EGO_NUMBERS]."""
        nothing = ground.new_zeros(0, ground.shape[-1])
        views = [EgoView(nothing, nothing, nothing, ego, cells) for ego, cells in zip(egos, ground, strict=True)]
        paths: Tensor = self.query(views).paths
        return paths

    def lifted(self, tokens: Tensor, places: Tensor) -> Tensor:
        """The mean of those tokens [B, V, C] that show points above a cell: [B, times * C, rows, columns]."""
        batch, count = len(tokens), places.shape[2]
        maps = tokens.reshape(batch * self._cameras, self._times, self._rows, self._columns, -1)
        maps = maps.permute(0, 1, 4, 2, 3).flatten(1, 2)  # [B * cameras, times * C, rows, columns]
        shown = places.isfinite().all(-1).to(tokens.dtype)  # [B, cameras, P]
        grid = places.nan_to_num(posinf=-2.0).reshape(batch * self._cameras, 1, count, 2)
        sampled = F.grid_sample(maps, grid.to(maps.dtype), padding_mode="border", align_corners=False)
        sampled = sampled.unflatten(0, (batch, self._cameras)).squeeze(3) * shown[:, :, None]
        total = sampled.sum(1).unflatten(2, (GROUND_SIZE**2, -1)).sum(3)
        often = shown.sum(1).unflatten(1, (GROUND_SIZE**2, -1)).sum(2).clamp(min=1)
        return (total / often[:, None]).unflatten(2, (GROUND_SIZE, GROUND_SIZE))


def places_in(rig: CameraRig, cameras: Sequence[str]) -> Tensor:
    """Where each camera's pictures show the points above the cells: [cameras, cells * HEIGHTS, 2].

    -1 to 1 across and down; infinite where they do not show them.
    """
    points = apply(rig.lidar_to_base, _ground_points())
    found = []
    for name in cameras:
        camera = rig[name]
        pixels, depth = camera.project(points)
        places = 2 * pixels / np.array([camera.width, camera.height]) - 1
        found.append(np.where((depth > 0)[:, None] & (np.abs(places) <= 1), places, np.inf))
    return torch.from_numpy(np.stack(found)).float()


def _ground_points() -> Array:
    """[cells * HEIGHTS, 3] by rows, columns and heights, in the middle of their shares of GROUND_RANGE."""
    low, high = np.array(GROUND_RANGE[:3]), np.array(GROUND_RANGE[3:])
    x, y, z = (
        start + (np.arange(count) + 0.5) * (stop - start) / count
        for start, stop, count in zip(low, high, (GROUND_SIZE, GROUND_SIZE, HEIGHTS), strict=True)
    )
    rows, columns, heights = np.meshgrid(y, x, z, indexing="ij")
    return np.stack([columns, rows, heights], axis=-1).reshape(-1, 3)


def base_path(path: Tensor, observation: Observation) -> Array:
    """A proposed path [6, 2] as positions of base_link, in base_link at t0, metres."""
    return lidar_path_to_base(path.double().cpu().numpy(), np.asarray(observation.rig.lidar_to_base))


def ego_of(observation: Observation) -> Tensor:
    """What the query is told of the ego."""
    return ego_numbers(observation.ego, observation.command.command)
