"""The recipe of the small checkpoint: which steps follow one another, and every number that shapes them."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.training.loop import LoopSettings
from opendrivevla_ros.world.families import FAMILIES

SPEECH = {"plan": 7.0, "caption": 0.5, "question": 1.5, "agent": 1.0}  # shares of the tasks, see `language_data`
TRAIN = "train"  # the expert's drives, most of them disturbed
EXPERT = "expert"  # who drives undisturbed, from the start on
HELD_OUT = "held_out_drives"  # that nothing learns from


@dataclass(frozen=True)
class PerceptionStep:
    """Perception from clips of `frames` frames.

    reads: as of a `LanguageStep`. fixed_norms: the backbone's normalisation keeps its statistics.
    """

    name: str
    loop: LoopSettings
    frames: int
    reads: tuple[str, ...] = (TRAIN,)
    fixed_norms: bool = False
    stage: str = "perception"


@dataclass(frozen=True)
class EgoStep:
    """The ego's query from tokens. reads: as of a `LanguageStep`. caution: see `proposal_losses`."""

    name: str
    loop: LoopSettings
    reads: tuple[str, ...] = (TRAIN,)
    caution: float = 0.0
    truth: ClassVar[bool] = False
    stage: str = "ego"


@dataclass(frozen=True)
class LanguageStep:
    """Language from features. shares: of the tasks. moments: that are only thought about beside each turn.

    reads: TRAIN, and names of steps that drive: the drives to learn from. truth: it reads their truth in place of
    what perception sees there.
    """

    name: str
    stage: str
    loop: LoopSettings
    shares: Mapping[str, float] = field(default_factory=lambda: dict(SPEECH))
    reads: tuple[str, ...] = (TRAIN,)
    truth: bool = False
    moments: int = 4


@dataclass(frozen=True)
class PlanningStep:
    """The whole network from clips: the words teach the perception, which keeps learning its own tasks."""

    name: str
    loop: LoopSettings
    frames: int
    shares: Mapping[str, float] = field(default_factory=lambda: dict(SPEECH))
    stage: str = "planning"


TrainingStep = PerceptionStep | EgoStep | LanguageStep | PlanningStep


@dataclass(frozen=True)
class OwnDrivesStep:
    """Somebody drives those training scenarios `first` to `first + scenarios` that are of `families`.

    driver: name of the step in which it learned to propose paths, by which alone it drives (perception learns that
    too); EXPERT for the expert, whom nobody disturbs, as in the drives in which open loop is measured; None for the
    policy as it is by now. Nothing learns.
    """

    name: str
    first: int
    scenarios: int
    driver: str | None = None
    families: tuple[str, ...] = FAMILIES

    @property
    def numbers(self) -> list[int]:
        """The training scenarios, see `world_drives.scenario_of`."""
        numbered = range(self.first, self.first + self.scenarios)
        return [number for number in numbered if FAMILIES[number % len(FAMILIES)] in self.families]


Step = TrainingStep | OwnDrivesStep


class Trains(Protocol):
    """Of every step that trains."""

    @property
    def name(self) -> str: ...


TrainsT = TypeVar("TrainsT", bound=Trains)
ProposesT = TypeVar("ProposesT", bound=Trains)
RecipeT = TypeVar("RecipeT", bound="StepRecipe[Any]")


@dataclass(frozen=True)
class StepRecipe(Generic[TrainsT]):
    """scenarios: drawn for training; 0 where drives are recorded. steps: in their order.

    The batch_size of a step's loop is that of all its processes together, whatever their number; normalisation alone
    still sees each process' share by itself.
    """

    scenarios: int
    image_size: tuple[int, int]
    steps: tuple[TrainsT | OwnDrivesStep, ...]
    seed: int = 0

    @property
    def training_steps(self) -> tuple[TrainsT, ...]:
        """The steps that train."""
        return tuple(step for step in self.steps if not isinstance(step, OwnDrivesStep))

    def training_before(self, step: TrainsT | OwnDrivesStep) -> tuple[TrainsT, ...]:
        """The steps that train before this one."""
        before = self.steps[: self.steps.index(step)]
        return tuple(other for other in before if not isinstance(other, OwnDrivesStep))

    def without(self: RecipeT, names: Sequence[str]) -> RecipeT:
        """The recipe with these stages left out, and with them the drives that they would draw, or be sent to draw.

        Raises TrainingError for an unknown one.
        """
        left_out = {self.step(name).name for name in names}
        left_out |= {step.name for step in self.steps if isinstance(step, OwnDrivesStep) and step.driver in left_out}
        kept = [step for step in self.steps if step.name not in left_out]
        return replace(self, steps=tuple(_unread(step, left_out) for step in kept))

    def of_recorded_drives(self: RecipeT) -> RecipeT:
        """The recipe for drives that somebody recorded: there, nobody can be sent to drive.

        Who would have been sent, and then learns again, learns but once.
        """
        driven = [step for step in self.steps if isinstance(step, OwnDrivesStep)]
        sent = {step.driver for step in driven}
        last = {type(step): step.name for step in self.steps}  # of each kind
        again = [step.name for step in self.steps if step.name in sent and step.name != last[type(step)]]
        return replace(self.without([*(step.name for step in driven), *again]), scenarios=0)

    def training_until(self, step: TrainsT | OwnDrivesStep) -> tuple[TrainsT, ...]:
        """The steps that train before this one, and this one if it does."""
        before = self.training_before(step)
        return before if isinstance(step, OwnDrivesStep) else (*before, step)

    def training_step(self, name: str) -> TrainsT:
        """The step of that name, which trains. Raises TrainingError."""
        step = self.step(name)
        if isinstance(step, OwnDrivesStep):
            raise TrainingError(f"{name} drives and trains nothing")
        return step

    def step(self, name: str) -> TrainsT | OwnDrivesStep:
        """The step of that name. Raises TrainingError."""
        found = {step.name: step for step in self.steps}
        if name not in found:
            raise TrainingError(f"unknown stage {name!r}; the recipe's are, in their order, {', '.join(found)}")
        return found[name]


@dataclass(frozen=True)
class Recipe(StepRecipe[TrainingStep]):
    """Of an OpenDriveVLA. With a step HELD_OUT, it is measured on its drives how much further off proposals are than
    expected. thinks: it learns to think before it plans, where somebody matters; see `text_tasks.planning_tasks`.
    """

    thinks: bool = False

    def __post_init__(self) -> None:
        """Raises TrainingError where somebody is to learn from what nobody sees."""
        sees = False
        for step in self.steps:
            sees = sees or isinstance(step, PerceptionStep)
            if not sees and (isinstance(step, EgoStep) or (isinstance(step, LanguageStep) and not step.truth)):
                raise TrainingError(f"{step.name} learns from what perception sees; keep a stage of perception before")


def _unread(step: Any, drives: Collection[str]) -> Any:
    """The step without these drives among what it reads, if it reads any."""
    if not hasattr(step, "reads"):
        return step
    return replace(step, reads=tuple(kind for kind in step.reads if kind not in drives))


def _speaking(steps: int, learning_rate: float) -> LoopSettings:
    return LoopSettings(
        steps=steps, learning_rate=learning_rate, batch_size=16, clip_norm=1.0, precision="bf16", save_every=100
    )


EXPERT_DRIVES = OwnDrivesStep("expert_drives", first=41160, scenarios=1680, driver=EXPERT)
SEEN = (TRAIN, EXPERT_DRIVES.name)
HARD = (  # families where most failed with the first drives
    "bend",
    "junction_left",
    "junction_right",
    "junction_straight",
    "free_road",
    "crossing_pedestrian",
    "occluded_pedestrian",
)
LATE = (  # and with those after them
    "bend",
    "junction_left",
    "junction_right",
    "junction_straight",
    "braking_lead",
    "stopped_queue",
)
JUNCTIONS = ("junction_left", "junction_right", "junction_straight")  # and in the end
WALKING = ("crossing_pedestrian", "occluded_pedestrian")
HELD_OUT_DRIVES = OwnDrivesStep(HELD_OUT, first=70000, scenarios=70, driver=EXPERT)
OWN = (  # who drives them: see `rounds`
    OwnDrivesStep("drives_1", first=2520, scenarios=280),
    OwnDrivesStep("drives_2", first=20020, scenarios=280),
    OwnDrivesStep("drives_3", first=30030, scenarios=1120, families=HARD),
    OwnDrivesStep("drives_4", first=60060, scenarios=420),
    OwnDrivesStep("drives_5", first=65030, scenarios=840, families=LATE),
    OwnDrivesStep("drives_6", first=75040, scenarios=1400, families=JUNCTIONS),
)
CAUTIOUS = OwnDrivesStep("drives_7", first=80080, scenarios=1120, families=JUNCTIONS)
DRIVEN = (*SEEN, *(driven.name for driven in OWN))
ALL_SEEN = (*DRIVEN, CAUTIOUS.name)
LATER = OwnDrivesStep("drives_8", first=90090, scenarios=840, driver="longer", families=(*JUNCTIONS, *WALKING))
TURNING = OwnDrivesStep("drives_9", first=100100, scenarios=3920, driver="caution_2", families=("junction_right",))
SEEN_LATER = (*SEEN, LATER.name)
PROPOSING = LoopSettings(steps=12000, learning_rate=2e-3, batch_size=128, clip_norm=1.0)
# Enough to drive with: those drives are what is wanted of it. In the last round there are twice as many to learn from.
SETTING_OUT = (*(replace(PROPOSING, steps=2000) for _ in OWN[1:]), replace(PROPOSING, steps=4000))
# After all else: who is sent out should meet what a cautious driver would not. That one waits too long, and learns so.
GROWING_CAUTIOUS = replace(PROPOSING, steps=3000)
CAUTION = 1.0


def rounds(step: Callable[..., ProposesT], name: str) -> Iterator[ProposesT | OwnDrivesStep]:
    """What is proposed is learned from the drives so far, is driven, and is learned again; at last, caution.

    step: that learns it. name: of the longest of them; those before it are numbered.
    """
    for count, (driven, loop) in enumerate(zip(OWN, SETTING_OUT, strict=True)):
        yield step(sent := f"{name}_{count + 1}", loop, reads=DRIVEN[: len(SEEN) + count])
        yield replace(driven, driver=sent)
    yield step(name, PROPOSING, reads=DRIVEN)
    yield step("caution_1", GROWING_CAUTIOUS, reads=DRIVEN, caution=CAUTION)
    yield replace(CAUTIOUS, driver="caution_1")
    yield step("caution", GROWING_CAUTIOUS, reads=ALL_SEEN, caution=CAUTION)


# Perception's losses still fell at its end. It learns on while it proposes paths, so that it can be sent out at once;
# who reads it learns again from what it sees by then. Captions were no better than those of a model that sees nothing:
# they get a larger share.
LONGER = (
    PerceptionStep(
        "longer",
        LoopSettings(steps=1800, learning_rate=3e-4, batch_size=2, warmup_steps=100, save_every=100),
        4,
        fixed_norms=True,
    ),
    LATER,
    # Without the expert's undisturbed drives, it was further off on drives held out.
    EgoStep("caution_2", replace(PROPOSING, steps=1200, learning_rate=1e-3), reads=SEEN_LATER, caution=CAUTION),
    # Where the lane ends at a kerb on the inside of a turn, there is the least room to be wrong.
    TURNING,
    EgoStep(
        "caution_3",
        replace(PROPOSING, steps=2400, learning_rate=1.5e-3),
        reads=(*SEEN_LATER, TURNING.name),
        caution=CAUTION,
    ),
    LanguageStep(
        "speaking",
        "instruction",
        _speaking(400, 1e-3),
        {"plan": 4.0, "caption": 2.5, "question": 2.5, "agent": 1.0},
        reads=(*SEEN_LATER, TURNING.name),
    ),
)


SMALL = Recipe(
    scenarios=2240,
    image_size=(224, 126),
    steps=(
        EXPERT_DRIVES,
        HELD_OUT_DRIVES,
        PerceptionStep(
            "perception", LoopSettings(steps=3000, learning_rate=6e-4, batch_size=4, save_every=100), 2, reads=SEEN
        ),
        PerceptionStep(
            "sequences",
            LoopSettings(steps=4800, learning_rate=4e-4, batch_size=2, warmup_steps=50, save_every=100),
            4,
            reads=SEEN,
            fixed_norms=True,
        ),
        *rounds(EgoStep, "ego"),
        LanguageStep("schooling", "schooling", _speaking(1200, 1.5e-3), reads=SEEN, truth=True),
        LanguageStep("alignment", "alignment", _speaking(100, 1.5e-3), {"caption": 3.0, "plan": 1.0}),
        LanguageStep(
            "instruction", "instruction", _speaking(200, 5e-4), {"question": 4.0, "caption": 2.0, "plan": 4.0}
        ),
        LanguageStep("interaction", "interaction", _speaking(200, 5e-4), {"agent": 4.0, "question": 1.0, "plan": 5.0}),
        LanguageStep("driving", "instruction", _speaking(1200, 1.5e-3), reads=ALL_SEEN),
        *LONGER,
    ),
)
# Stage 3 as published comes after all others here, at a tenth of their rates: what perception has learned must last.
END_TO_END = PlanningStep(
    "planning", LoopSettings(steps=600, learning_rate=1e-4, batch_size=2, clip_norm=1.0, save_every=50), frames=3
)
RECIPES = {
    "small": SMALL,
    "small-thinking": replace(SMALL, thinks=True),
    "small-end-to-end": replace(SMALL, steps=(*SMALL.steps, END_TO_END)),
}
