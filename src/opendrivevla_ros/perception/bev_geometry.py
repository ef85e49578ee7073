"""Where the cells of the bird's-eye view lie: in the grid, in the cameras, and after the vehicle has moved.

The grid's rows go from rear to front (lidar y), its columns from left to right (lidar x); cell (row, column) has the
flat index row * size + column.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from opendrivevla_ros.perception.config import PerceptionConfig

MIN_DEPTH_M = 1e-5


@dataclass(frozen=True)
class PillarProjection:
    """The pillars' points in all cameras. Pairs are the (camera, cell) with at least one visible point.

    points: [cameras, S, Z, 2], (u, v) in [0, 1] across the padded picture, anything where the point is behind.
    visible: bool [cameras, S, Z].
    pair_camera, pair_cell: int64 [N], by camera; pair_points: [N, Z, 2].
    cell_share: [S, 1], one over the number of cameras that see the cell (1 where none does).
    """

    points: Tensor
    visible: Tensor
    pair_camera: Tensor
    pair_cell: Tensor
    pair_points: Tensor
    cell_share: Tensor


def cell_centres(size: int, device: torch.device | str = "cpu") -> Tensor:
    """Centres (x, y) of the cells in [0, 1]: [S, 2]."""
    steps = torch.linspace(0.5, size - 0.5, size, device=device) / size
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], -1)


def pillar_points(config: PerceptionConfig, device: torch.device | str = "cpu") -> Tensor:
    """Points above each cell, evenly spaced in height: [S, Z, 3], metres in the lidar frame."""
    x_min, y_min, z_min, x_max, y_max, z_max = config.range_metres
    height, number = z_max - z_min, config.pillar_points
    fractions = torch.linspace(0.5, height - 0.5, number, device=device) / height
    centres = cell_centres(config.bev_size, device)
    x = centres[:, :1] * (x_max - x_min) + x_min
    y = centres[:, 1:] * (y_max - y_min) + y_min
    z = fractions * (z_max - z_min) + z_min
    shape = (centres.shape[0], number)
    return torch.stack([x.expand(shape), y.expand(shape), z.expand(shape)], -1)


def project_pillars(points: Tensor, lidar_to_image: Tensor, padded_size: tuple[int, int]) -> PillarProjection:
    """Projects points [S, Z, 3] (metres, lidar frame) into every camera (BEVFormer, arXiv 2203.17270, section 3.3).

    lidar_to_image: [cameras, 4, 4], lidar point to (u * depth, v * depth, depth) in pixels of the model's picture.
    padded_size: (width, height) of the padded picture. A point is visible if its depth is positive and it falls
    strictly inside the padded picture.
    """
    homogeneous = torch.cat([points, torch.ones_like(points[..., :1])], -1)
    # float32, as the published model projects
    projected = torch.matmul(lidar_to_image.to(points)[:, None, None], homogeneous.unsqueeze(-1)).squeeze(-1)
    depth = projected[..., 2:3]
    inside_picture = projected[..., :2] / depth.clamp(min=MIN_DEPTH_M) / projected.new_tensor(padded_size)
    visible = (depth > MIN_DEPTH_M).squeeze(-1) & ((inside_picture > 0) & (inside_picture < 1)).all(-1)
    seen = visible.any(-1)
    pair_camera, pair_cell = seen.nonzero(as_tuple=True)
    return PillarProjection(
        points=inside_picture,
        visible=visible,
        pair_camera=pair_camera,
        pair_cell=pair_cell,
        pair_points=inside_picture[pair_camera, pair_cell],
        cell_share=1 / seen.sum(0).clamp(min=1).to(points.dtype).unsqueeze(-1),
    )


def ego_motion_shift(can_bus: Tensor, config: PerceptionConfig) -> Tensor:
    """How far the vehicle moved since the last frame, in shares of the grid: [2], (x, y).

    can_bus: float64 [18]; entries 0 and 1 hold the motion in global metres, entry 16 the heading in radians.
    """
    east, north, heading = (float(can_bus[index]) for index in (0, 1, 16))
    length = math.hypot(east, north)
    bearing = math.degrees(heading) - math.degrees(math.atan2(north, east))
    metres = (length * math.sin(math.radians(bearing)), length * math.cos(math.radians(bearing)))
    return torch.tensor([part / config.cell_metres / config.bev_size for part in metres], dtype=torch.float32)
