"""The vision tower learns to see before the language model learns to drive: it must tell what is where.

The few bits of an action a moment do not teach a tower that starts from nothing what a car is. So the ground ahead
that the model's `Sight` reads from its patches must hold the road, everybody on it and how they move (see
`DenseHead`), and a path is proposed from it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from opendrivevla_ros.policies.autovla.model import AutoVlaModel
from opendrivevla_ros.policies.autovla.sight import GROUND_RANGE, GROUND_SIZE, Sight, places_in
from opendrivevla_ros.policies.opendrivevla.config import small_perception
from opendrivevla_ros.training.attention import attend_in_float32
from opendrivevla_ros.training.autovla.examples import PlanExamples
from opendrivevla_ros.training.dense_head import DenseHead
from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.training.frame_labels import plan_label
from opendrivevla_ros.training.labels import BoxLabels, MapLabels, PlanLabel
from opendrivevla_ros.training.perception_step import PLAN_WEIGHT, occupied
from opendrivevla_ros.training.sample_labels import box_labels, map_labels
from opendrivevla_ros.training.token_reader import proposal_losses

GROUND = replace(small_perception(), range_metres=GROUND_RANGE, bev_size=GROUND_SIZE)  # as labels are told of it


@dataclass(frozen=True)
class SeenMoment:
    """What the tower is given at a moment, and what was there.

    videos: patches, as `PromptReader.videos` gives them. places: [cameras, P, 2], see `places_in`.
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


class SightTraining(nn.Module):
    """What the loop trains: moments to the losses of what is read from the tower's patches.

    The tower is in bfloat16, and what reads it in float32, as metres ask for. Raises TrainingError for a model without
    `Sight`.
    """

    def __init__(self, model: AutoVlaModel) -> None:
        super().__init__()
        attend_in_float32(model.model.visual)
        self.model = model
        self.dense = DenseHead(replace(GROUND, embed_dim=sight_of(model).read.out_features))

    def forward(self, moments: Sequence[SeenMoment]) -> dict[str, Tensor]:
        """{"centres", "cell_boxes", "occupancy": see `DenseHead`, and those of `proposal_losses`}, means."""
        sight = sight_of(self.model)
        videos = [moment.videos for moment in moments]
        with torch.autocast(videos[0].device.type, torch.bfloat16):
            patches = self.model.seen(videos).patches
        assert patches is not None
        ground = sight(patches.float(), torch.stack([moment.places for moment in moments]))
        found = []
        for cells, moment in zip(ground, moments, strict=True):
            found.append(self.dense(cells.flatten(0, 1), moment.boxes, occupied(moment.map_elements))[0])
        answer = sight.proposed(ground, torch.stack([moment.plan.ego for moment in moments]))
        proposing = proposal_losses(answer, [moment.plan for moment in moments])
        return {
            **{name: torch.stack([losses[name] for losses in found]).mean() for name in found[0]},
            **proposing,
            "plan": PLAN_WEIGHT * proposing["plan"],
        }


def sight_of(model: AutoVlaModel) -> Sight:
    """The part that learns to see. Raises TrainingError for a model without one."""
    if model.sight is None:
        raise TrainingError("this model has no part that reads the ground; set sight_width in its configuration")
    return model.sight
