"""The recipe of the small checkpoint: which steps follow one another, and every number that shapes them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.training.loop import LoopSettings

SPEECH = {"plan": 6.0, "caption": 1.0, "question": 2.0, "agent": 1.0}  # shares of the tasks, see `language_data`


@dataclass(frozen=True)
class PerceptionStep:
    """Perception from clips of `frames` frames. fixed_norms: the backbone's normalisation keeps its statistics."""

    name: str
    loop: LoopSettings
    frames: int
    fixed_norms: bool = False
    stage: str = "perception"


@dataclass(frozen=True)
class LanguageStep:
    """Language from features. shares: of the tasks.

    truth: the encoded truth in place of what perception sees. own: the policy's own drives are learned from too.
    """

    name: str
    stage: str
    loop: LoopSettings
    shares: Mapping[str, float] = field(default_factory=lambda: dict(SPEECH))
    truth: bool = False
    own: bool = False


@dataclass(frozen=True)
class PlanningStep:
    """The whole network from clips: the words teach the perception, which keeps learning its own tasks."""

    name: str
    loop: LoopSettings
    frames: int
    shares: Mapping[str, float] = field(default_factory=lambda: dict(SPEECH))
    stage: str = "planning"


TrainingStep = PerceptionStep | LanguageStep | PlanningStep


@dataclass(frozen=True)
class OwnDrivesStep:
    """The policy drives training scenarios `first` to `first + scenarios` itself, as it is by now; nothing learns."""

    name: str
    first: int
    scenarios: int


Step = TrainingStep | OwnDrivesStep


@dataclass(frozen=True)
class Recipe:
    """scenarios: drawn for training. validation: those of the validation split. steps: in their order."""

    scenarios: int
    validation: int
    image_size: tuple[int, int]
    steps: tuple[Step, ...]
    seed: int = 0

    @property
    def training_steps(self) -> tuple[TrainingStep, ...]:
        """The steps that train."""
        return tuple(step for step in self.steps if not isinstance(step, OwnDrivesStep))

    def without(self, names: Sequence[str]) -> "Recipe":
        """The recipe with these stages left out, to see what each is for. Raises TrainingError for an unknown one."""
        left_out = [self.step(name) for name in names]
        return replace(self, steps=tuple(step for step in self.steps if step not in left_out))

    def step(self, name: str) -> Step:
        """The step of that name. Raises TrainingError."""
        found = {step.name: step for step in self.steps}
        if name not in found:
            raise TrainingError(f"unknown stage {name!r}; the recipe's are, in their order, {', '.join(found)}")
        return found[name]


def _speaking(steps: int, learning_rate: float) -> LoopSettings:
    return LoopSettings(
        steps=steps, learning_rate=learning_rate, batch_size=16, clip_norm=1.0, precision="bf16", save_every=100
    )


SMALL = Recipe(
    scenarios=2240,
    validation=140,
    image_size=(224, 126),
    steps=(
        PerceptionStep("perception", LoopSettings(steps=1200, learning_rate=8e-4, batch_size=4, save_every=100), 2),
        PerceptionStep(
            "sequences",
            LoopSettings(steps=1800, learning_rate=5e-4, batch_size=2, warmup_steps=100, save_every=100),
            4,
            fixed_norms=True,
        ),
        LanguageStep("schooling", "schooling", _speaking(4000, 1.5e-3), truth=True),
        LanguageStep("alignment", "alignment", _speaking(200, 1.5e-3), {"caption": 3.0, "plan": 1.0}),
        LanguageStep(
            "instruction", "instruction", _speaking(200, 5e-4), {"question": 4.0, "caption": 2.0, "plan": 4.0}
        ),
        LanguageStep("interaction", "interaction", _speaking(200, 5e-4), {"agent": 4.0, "question": 1.0, "plan": 5.0}),
        LanguageStep("driving", "instruction", _speaking(1200, 8e-4), SPEECH),
        OwnDrivesStep("own_drives", first=2240, scenarios=280),
        LanguageStep("refinement", "instruction", _speaking(800, 5e-4), SPEECH, own=True),
    ),
)
