"""The training stages of OpenDriveVLA (arXiv 2503.23463, section 3.4): which parts each trains, and which it freezes.

The four stages of the paper follow a perception that was trained before, as UniAD's first stage trains it, and a
language model that others trained. The small one has no such model: schooling is in its place.
"""

from dataclasses import dataclass
from typing import Any

from torch import nn

from opendrivevla_ros.policies.opendrivevla.model import OpenDriveVlaModel
from opendrivevla_ros.training.errors import TrainingError

PROJECTORS = tuple(f"language.model.mm_projector_{name}." for name in ("scene", "track", "map"))
BACKBONE = "perception.img_backbone."
CONSTANTS = ("perception.pts_bbox_head.code_weights",)  # published as a parameter, never trained


@dataclass(frozen=True)
class Stage:
    """One stage.

    trained: beginnings of the names of the parameters that learn; frozen: exceptions from them. learns: the task.
    """

    name: str
    learns: str
    trained: tuple[str, ...]
    frozen: tuple[str, ...] = ()

    def trains(self, parameter: str) -> bool:
        """Whether the parameter of this name (of an `OpenDriveVlaModel`) learns."""
        return parameter.startswith(self.trained) and not parameter.startswith((*self.frozen, *CONSTANTS))


_TABLE = (
    Stage("perception", "detection, tracking and map", trained=("perception.",)),
    Stage("ego", "the plan, from what perception sees", trained=("perception.ego_query.",)),
    Stage("schooling", "words, numbers and driving from the truth", trained=("language.",)),
    Stage("alignment", "stage 1: captions", trained=PROJECTORS),
    Stage("instruction", "stage 2: driving questions and answers", trained=("language.",)),
    Stage("interaction", "stage 2.5: the future of each agent, given the scene", trained=("language.",)),
    Stage("planning", "stage 3: the plan, end to end", trained=("perception.", "language."), frozen=(BACKBONE,)),
)
STAGES = {stage.name: stage for stage in _TABLE}


def stage(name: str) -> Stage:
    """The stage of that name. Raises TrainingError."""
    if name not in STAGES:
        raise TrainingError(f"unknown stage {name!r}; the stages are, in their order, {', '.join(STAGES)}")
    return STAGES[name]


def prepare(model: OpenDriveVlaModel, chosen: Stage, *, weight_decay: float) -> list[dict[str, Any]]:
    """Freezes all that the stage does not train, and returns the rest as AdamW's parameter groups.

    Frozen modules are in evaluation mode, so that normalisation keeps its statistics, all others in training mode.
    Vectors (biases, norms) do not decay. Raises TrainingError for a model without the part that the stage trains.
    """
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(chosen.trains(name))
        if parameter.requires_grad:
            groups[parameter.dim() > 1].append(parameter)
    if model.language is None and any(name.startswith("language.") for name in chosen.trained):
        raise TrainingError(f"the stage {chosen.name} trains language, which this model's configuration leaves out")
    model.train()
    for module in model.modules():
        own = list(module.parameters())
        if own and not any(parameter.requires_grad for parameter in own):
            module.eval()
    return [
        {"params": groups[True], "weight_decay": weight_decay},
        {"params": groups[False], "weight_decay": 0.0},
    ]
