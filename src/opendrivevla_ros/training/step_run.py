"""What every run of a recipe has in its folder: drives, and for each step that is done the weights that it left."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Generic

from torch import Tensor, nn

from opendrivevla_ros.datasets.drive_store import DriveStore
from opendrivevla_ros.datasets.instruction_data import Instruction
from opendrivevla_ros.datasets.nuscenes_scenes import NuScenesScenes
from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.training.recipe import TRAIN, OwnDrivesStep, RecipeT
from opendrivevla_ros.training.scene_drives import store_scenes
from opendrivevla_ros.training.whole_files import load_tensors, save_tensors
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

    def not_driven(self, step: Any) -> list[OwnDrivesStep]:
        """The steps whose drives a step reads and that are not done."""
        others = [self.recipe.step(kind) for kind in getattr(step, "reads", ()) if kind != TRAIN]
        return [other for other in others if not self.is_done(other)]

    def is_done(self, step: Any) -> bool:
        """Whether a step of the recipe has left its weights, or its drives."""
        if isinstance(step, OwnDrivesStep):
            return len(self.drives(step.name).names) >= len(step.numbers)
        return (self.folder / step.name / WEIGHTS).is_file()

    def weights_after(self, step: Any) -> dict[str, Tensor]:
        """What a step that trains has left. Raises TrainingError where it is not done, and for a broken file."""
        if not self.is_done(step):
            raise TrainingError(f"the stage {step.name} is not done in {self.folder}; run it first")
        return load_weights(self.folder / step.name / WEIGHTS)

    def _leave_weights(self, step: Any, module: nn.Module) -> None:
        """Writes them, which ends the step. Raises TrainingError where they cannot be written."""
        save_tensors(module.state_dict(), self.folder / step.name / WEIGHTS, f"what {step.name} learned")


def load_weights(path: Path) -> dict[str, Tensor]:
    """What a step has left in a file, on the CPU. Raises TrainingError for a broken file."""
    weights: dict[str, Tensor] = load_tensors(path, "file of weights", "delete it to train that stage anew")
    return weights


def take_weights(module: nn.Module, weights: dict[str, Tensor], source: Path) -> None:
    """Gives a module all its weights; source: where they are from. Raises TrainingError for those of another model."""
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        difference = str(error).splitlines()[1].strip()
        raise TrainingError(
            f"{source} holds weights of another model ({difference}); choose another folder, or delete it to train"
            " anew"
        ) from error
