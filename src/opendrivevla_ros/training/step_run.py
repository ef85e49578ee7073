"""What every run of a recipe has in its folder: drives, and for each step that is done the weights that it left."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Generic

import torch
from torch import Tensor, nn

from opendrivevla_ros.datasets.drive_store import DriveStore
from opendrivevla_ros.datasets.instruction_data import Instruction
from opendrivevla_ros.datasets.nuscenes_scenes import NuScenesScenes
from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.training.recipe import TRAIN, OwnDrivesStep, RecipeT
from opendrivevla_ros.training.scene_drives import store_scenes
from opendrivevla_ros.training.world_drives import draw_drives
from opendrivevla_ros.world.seeds import Split

WEIGHTS = "weights.pt"


class StepRun(Generic[RecipeT]):
    """A recipe in a folder: `drives/KIND`, and a folder of its own for each step."""

    def __init__(self, recipe: RecipeT, folder: Path) -> None:
        self.recipe, self.folder = recipe, folder

    def drives(self, kind: str = TRAIN) -> DriveStore:
        """The drives of training scenarios, or those of the step of that name."""
        return DriveStore(self.folder / "drives" / kind)

    def take(self, scenes: NuScenesScenes, instructions: Iterable[Instruction]) -> Iterator[float]:
        """Takes scenes of a nuScenes-format data set in place of drives of the world; yields the share that is in."""
        return store_scenes(scenes, self.drives(), instructions)

    def draw(self, processes: int) -> Iterator[float]:
        """Draws the drives that are not there; yields the share that is."""
        count = self.recipe.scenarios
        drawn = draw_drives(
            self.drives().folder,
            scenarios=count,
            split=Split.TRAIN,
            image_size=self.recipe.image_size,
            processes=processes,
        )
        return (done / count for done in drawn)

    def is_done(self, step: Any) -> bool:
        """Whether a step of the recipe has left its weights, or its drives."""
        if isinstance(step, OwnDrivesStep):
            return len(self.drives(step.name).names) >= len(step.numbers)
        return (self.folder / step.name / WEIGHTS).is_file()

    def weights_after(self, step: Any) -> dict[str, Tensor]:
        """What a step that trains has left. Raises TrainingError where it is not done."""
        if not self.is_done(step):
            raise TrainingError(f"the stage {step.name} is not done in {self.folder}; run it first")
        weights: dict[str, Tensor] = torch.load(self.folder / step.name / WEIGHTS, weights_only=True)
        return weights

    def _leave_weights(self, step: Any, module: nn.Module) -> None:
        """Writes them whole or not at all, which ends the step."""
        temporary = self.folder / step.name / f"{WEIGHTS}.tmp"
        torch.save(module.state_dict(), temporary)
        temporary.replace(self.folder / step.name / WEIGHTS)
