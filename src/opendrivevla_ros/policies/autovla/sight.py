"""What the small model's pictures say of the ground ahead, and the path that is proposed from it.

The published model begins with a tower that others trained on more pictures than a small one will ever see. The small
one starts from nothing, and what it learns to see is where things are on the ground: at each cell those patches that
show it, as in Simple-BEV (arXiv 2206.07959). They are read before the tower merges four into one token of the language
model, which holds no more of where they were. A query of the ego looks there, as OpenDriveVLA's does, and proposes a
path, by which the model's actions are weighed.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from opendrivevla_ros.core.geometry import Array, apply
from opendrivevla_ros.core.observation import Observation
from opendrivevla_ros.core.rig import CameraRig
from opendrivevla_ros.perception.ego_query import EgoAnswer, EgoQuery, EgoView
from opendrivevla_ros.policies.autovla.config import AutoVlaConfig
from opendrivevla_ros.policies.opendrivevla.frames import lidar_path_to_base
from opendrivevla_ros.policies.opendrivevla.perception_input import ego_numbers

GROUND_RANGE = (-20.0, 0.0, -2.5, 20.0, 40.0, 1.5)  # x, y, z from and to, metres, lidar frame
GROUND_SIZE = 32  # cells on a side
HEIGHTS = 4  # points above each cell
QUERY_LAYERS, MIXED = 2, 2


class Sight(nn.Module):
    """Reads what the tower's blocks made of patches: [B, cameras, times, rows, columns, vision hidden]."""

    def __init__(self, config: AutoVlaConfig) -> None:
        super().__init__()
        width = config.sight_width
        times = config.frames // config.vision.temporal_patch
        self.normalise = nn.LayerNorm(config.vision.hidden_size)
        self.read = nn.Linear(config.vision.hidden_size, width)
        self.places = nn.Parameter(torch.zeros(width, GROUND_SIZE, GROUND_SIZE))
        self.cells = nn.Conv2d(times * width, width, 1)
        around = [layer for _ in range(MIXED) for layer in (nn.ReLU(), nn.Conv2d(width, width, 3, padding=1))]
        self.mix = nn.Sequential(*around)
        self.query = EgoQuery(width, QUERY_LAYERS, ahead=(GROUND_SIZE, GROUND_SIZE))

    def forward(self, patches: Tensor, places: Tensor) -> Tensor:
        """The ground ahead [B, rows, columns, C], row 0 next to the ego, column 0 left.

        places: [B, cameras, P, 2], see `places_in`.
        """
        lifted = lift(self.read(self.normalise(patches)), places)
        ground: Tensor = self.mix(self.cells(lifted) + self.places)
        return ground.permute(0, 2, 3, 1)

    def proposed(self, ground: Tensor, egos: Tensor) -> EgoAnswer:
        """What the query makes of the ground; egos: [B, EGO_NUMBERS]."""
        nothing = ground.new_zeros(0, ground.shape[-1])
        views = [EgoView(nothing, nothing, nothing, ego, cells) for ego, cells in zip(egos, ground, strict=True)]
        answer: EgoAnswer = self.query(views)
        return answer


def lift(patches: Tensor, places: Tensor) -> Tensor:
    """The mean of those patches that show points above a cell: [B, times * C, cell rows, cell columns].

    patches: [B, cameras, times, rows, columns, C]. places: [B, cameras, P, 2], see `places_in`.
    """
    shares = _shares(places, *patches.shape[3:5])  # [B, cells, K]
    maps = patches.transpose(1, 2).flatten(2, 4)  # [B, times, K, C]
    found = shares.to(maps.dtype)[:, None] @ maps
    return found.transpose(2, 3).flatten(1, 2).unflatten(2, (GROUND_SIZE, GROUND_SIZE))


def _shares(places: Tensor, rows: int, columns: int) -> Tensor:
    """Which shares the patches of all cameras' pictures, rows by columns each, have in each cell: [B, cells, K].

    places: [B, cameras, P, 2], the points of each cell together. A point is seen where it lies between the middles of
    four patches (bilinear), and nearest the edge by those at the edge; a cell by the mean of its points that are seen.
    """
    batch, cameras, count = places.shape[:3]
    seen = places.isfinite().all(-1)
    at = (places.nan_to_num(posinf=0.0) + 1) / 2 * places.new_tensor([columns, rows]) - 0.5
    last = places.new_tensor([columns - 1, rows - 1])
    at = at.clamp(min=torch.zeros_like(last), max=last)
    first = at.floor()
    beyond = at - first
    point = torch.arange(count, device=places.device) // (count // GROUND_SIZE**2)  # the cell of each
    camera = torch.arange(cameras, device=places.device)[:, None]
    shares = places.new_zeros(batch, GROUND_SIZE**2 * cameras * rows * columns)
    for right in (0, 1):
        for below in (0, 1):
            corner = torch.minimum(first + first.new_tensor([right, below]), last).long()
            patch = (camera * rows + corner[..., 1]) * columns + corner[..., 0]
            weight = (beyond[..., 0] if right else 1 - beyond[..., 0]) * (
                beyond[..., 1] if below else 1 - beyond[..., 1]
            )
            place = point * (cameras * rows * columns) + patch
            shares.scatter_add_(1, place.flatten(1), (weight * seen).flatten(1))
    found = shares.unflatten(1, (GROUND_SIZE**2, -1))
    often = seen.to(places.dtype).sum(1).unflatten(1, (GROUND_SIZE**2, -1)).sum(2).clamp(min=1)
    return found / often[..., None]


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


def base_errors(errors: Tensor) -> Array:
    """Errors [6, 2] in the lidar's frame as those in base_link, which is turned by a right angle."""
    return errors.double().cpu().numpy()[:, ::-1]


def base_path(path: Tensor, observation: Observation) -> Array:
    """A proposed path [6, 2] as positions of base_link, in base_link at t0, metres."""
    return lidar_path_to_base(path.double().cpu().numpy(), np.asarray(observation.rig.lidar_to_base))


def ego_of(observation: Observation) -> Tensor:
    """What the query is told of the ego."""
    return ego_numbers(observation.ego, observation.command.command)
