"""The vision tower learns to see before the language model learns to drive: its tokens must tell what is where.

The published model begins with a tower that others trained on more pictures than a small one will ever see. The small
one starts from nothing, and the few bits of an action a moment do not teach it what a car is. So its tokens are first
read back into a bird's-eye view of the ground ahead (at each cell those of them that show it, as in Simple-BEV, arXiv
2206.07959), which must hold the road, everybody on it and how they move (see `DenseHead`), and into a plan.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from opendrivevla_ros.core.geometry import apply
from opendrivevla_ros.core.rig import CameraRig
from opendrivevla_ros.perception.bev_geometry import pillar_points
from opendrivevla_ros.perception.ego_query import EgoQuery, EgoView
from opendrivevla_ros.policies.autovla.model import AutoVlaModel
from opendrivevla_ros.policies.opendrivevla.config import small_perception
from opendrivevla_ros.training.autovla.examples import PlanExamples
from opendrivevla_ros.training.dense_head import DenseHead
from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.training.frame_labels import plan_label
from opendrivevla_ros.training.labels import BoxLabels, MapLabels, PlanLabel
from opendrivevla_ros.training.perception_step import PLAN_WEIGHT, occupied
from opendrivevla_ros.training.sample_labels import box_labels, map_labels
from opendrivevla_ros.training.token_reader import plan_loss

GROUND = replace(small_perception(), range_metres=(-20.0, 0.0, -2.5, 20.0, 40.0, 1.5), bev_size=32)  # that is read
LAYERS = 2


@dataclass(frozen=True)
class SeenMoment:
    """What the tower is given at a moment, and what was there.

    videos: patches, as `PromptReader.videos` gives them. places: [cameras, S * Z, 2] where each camera's pictures show
    the points above GROUND's cells, -1 to 1 across and down; beyond that where they do not.
    """

    videos: Tensor
    places: Tensor
    boxes: BoxLabels
    map_elements: MapLabels
    plan: PlanLabel

    def to(self, device: torch.device | str) -> "SeenMoment":
        """The same on a device."""
        return SeenMoment(*(part.to(device) for part in vars(self).values()))


class SeenMoments(Dataset[SeenMoment]):
    """The moments of examples with what was there. Raises TrainingError at one of a recording without labels."""

    def __init__(self, examples: PlanExamples, cameras: Sequence[str]) -> None:
        self._examples, self._cameras = examples, tuple(cameras)

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> SeenMoment:
        example = self._examples[index]
        sample = example.sample.sample
        if sample.agents is None or sample.map_elements is None:
            raise TrainingError(f"{sample.token} has no agents or no map to learn sight from; leave that stage out")
        rig = sample.observation.rig
        return SeenMoment(
            videos=example.videos,
            places=places_in(rig, self._cameras),
            boxes=box_labels(sample.agents, rig.lidar_to_base, GROUND),
            map_elements=map_labels(sample.map_elements, rig.lidar_to_base, GROUND),
            plan=plan_label(sample),
        )


def places_in(rig: CameraRig, cameras: Sequence[str]) -> Tensor:
    """See `SeenMoment.places`."""
    points = apply(rig.lidar_to_base, pillar_points(GROUND).flatten(0, 1).double().numpy())
    found = []
    for name in cameras:
        camera = rig[name]
        pixels, depth = camera.project(points)
        places = 2 * pixels / np.array([camera.width, camera.height]) - 1
        found.append(np.where((depth > 0)[:, None] & (np.abs(places) <= 1), places, np.inf))
    return torch.from_numpy(np.stack(found)).float()


class SightTraining(nn.Module):
    """What the loop trains: moments to the losses of what the tower's tokens tell of them."""

    def __init__(self, model: AutoVlaModel) -> None:
        super().__init__()
        config, width = model.autovla_config, GROUND.embed_dim
        self.model = model
        self._cameras, self._times = len(config.cameras), config.frames // config.vision.temporal_patch
        side = config.vision.patch * config.vision.merge
        self._rows, self._columns = config.image_size[1] // side, config.image_size[0] // side
        self.read = nn.Linear(config.language.hidden_size, width)
        self.token_places = nn.Parameter(torch.zeros(self._cameras * config.video_tokens, width))
        self.cell_places = nn.Parameter(torch.zeros(width, GROUND.bev_size, GROUND.bev_size))
        self.cells = nn.Conv2d(self._times * width, width, 1)
        around = [layer for _ in range(LAYERS) for layer in (nn.ReLU(), nn.Conv2d(width, width, 3, padding=1))]
        self.mix = nn.Sequential(*around)
        self.dense = DenseHead(GROUND)
        self.ego = EgoQuery(width, LAYERS)

    def forward(self, moments: Sequence[SeenMoment]) -> dict[str, Tensor]:
        """{"centres", "cell_boxes", "occupancy": see `DenseHead`, "plan": see `plan_loss`}, means."""
        tokens = self.read(self.model.seen([moment.videos for moment in moments]))  # [B, V, C]
        lifted = self.lifted(tokens, torch.stack([moment.places for moment in moments]))
        ground = self.mix(self.cells(lifted) + self.cell_places)
        found = []
        for cells, moment in zip(ground, moments, strict=True):
            bev = cells.flatten(1).T
            found.append(self.dense(bev, moment.boxes, occupied(moment.map_elements))[0])
        nothing = tokens.new_zeros(0, tokens.shape[2])
        proposed = self.ego(
            [
                EgoView(some + self.token_places, nothing, nothing, moment.plan.ego)
                for some, moment in zip(tokens, moments, strict=True)
            ]
        )
        return {
            **{name: torch.stack([losses[name] for losses in found]).mean() for name in found[0]},
            "plan": PLAN_WEIGHT * plan_loss(proposed.paths, [moment.plan for moment in moments]),
        }

    def lifted(self, tokens: Tensor, places: Tensor) -> Tensor:
        """For each cell of GROUND the mean of those tokens [B, V, C] that show points above it: [B, times * C, n, n].

        places: [B, cameras, S * Z, 2], see `SeenMoment`.
        """
        batch, count, size = len(tokens), places.shape[2], GROUND.bev_size
        maps = tokens.reshape(batch * self._cameras, self._times, self._rows, self._columns, -1)
        maps = maps.permute(0, 1, 4, 2, 3).flatten(1, 2)  # [B * cameras, times * C, rows, columns]
        shown = places.isfinite().all(-1).to(tokens.dtype)  # [B, cameras, S * Z]
        grid = places.nan_to_num(posinf=-2.0).reshape(batch * self._cameras, 1, count, 2)
        sampled = F.grid_sample(maps, grid.to(maps.dtype), padding_mode="border", align_corners=False)
        sampled = sampled.unflatten(0, (batch, self._cameras)).squeeze(3) * shown[:, :, None]
        total = sampled.sum(1).unflatten(2, (size * size, -1)).sum(3)
        often = shown.sum(1).unflatten(1, (size * size, -1)).sum(2).clamp(min=1)
        return (total / often[:, None]).unflatten(2, (size, size))
