"""Many scenarios and drivers, spread over processes: the same results for any number of them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from opendrivevla_ros.core.observation import Observation
from opendrivevla_ros.core.policy import DrivingPolicy, PolicyInfo
from opendrivevla_ros.datasets.world_samples import world_observation
from opendrivevla_ros.evaluation.closed_loop import (
    Drive,
    Sight,
    drive_policy,
    drive_with,
    seen_through,
    shuffled_order,
)
from opendrivevla_ros.evaluation.world_scenes import (
    EvaluationError,
    display_names,
    load_greedy,
    loaded_renderer,
    spread,
)
from opendrivevla_ros.world.expert import expert_command
from opendrivevla_ros.world.families import FAMILIES, make_scenario
from opendrivevla_ros.world.seeds import Split, seed_of
from opendrivevla_ros.world.simulation import World

EXPERT = "expert"
FAMILIES_THAT_NEED_EYES = (
    "braking_lead",
    "stopped_lead",
    "cut_in",
    "crossing_pedestrian",
    "occluded_pedestrian",
    "stopped_queue",
)


@dataclass(frozen=True)
class Driver:
    """Who drives: a policy by name or folder, or the expert where it is None."""

    name: str
    policy: str | None
    sight: Sight = Sight.SEEING


@dataclass(frozen=True)
class ClosedLoopSettings:
    """What is driven. policy, beside: names or checkpoint folders. scenarios: of each family, from the split's first.

    device, precision: of all policies.
    """

    policy: str
    beside: tuple[str, ...] = ()
    families: tuple[str, ...] = FAMILIES
    scenarios: int = 10
    split: Split = Split.TEST
    device: str = "cpu"
    precision: str = "float32"

    def __post_init__(self) -> None:
        unknown = [family for family in self.families if family not in FAMILIES]
        if unknown:
            raise EvaluationError(f"no scenario family {unknown[0]!r}; choose from {', '.join(FAMILIES)}")
        if self.scenarios < 1 or not self.families:
            raise EvaluationError(f"{self.scenarios} scenarios of {len(self.families)} families; give 1 or more")

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of every family."""
        return tuple(seed_of(self.split, index) for index in range(self.scenarios))

    @property
    def drivers(self) -> tuple[Driver, ...]:
        """The policy first, the expert second, those beside it, and the policy without its eyes."""
        sources = tuple(dict.fromkeys([self.policy, *self.beside]))
        names = display_names(sources)
        mine = names[self.policy]
        others = (Driver(names[source], source) for source in sources[1:])
        blind = (Driver(f"{mine}, {sight.value}", self.policy, sight) for sight in (Sight.BLACK, Sight.SHUFFLED))
        return Driver(mine, self.policy), Driver(EXPERT, None), *others, *blind

    def driven_by(self, driver: Driver) -> list[tuple[str, int]]:
        """Families and seeds: all of them, or, without eyes, those of the families that need some."""
        families = [
            family for family in self.families if driver.sight is Sight.SEEING or family in FAMILIES_THAT_NEED_EYES
        ]
        return [(family, seed) for family in families for seed in self.seeds]


@dataclass(frozen=True)
class ClosedLoop:
    """What came of it. drives: in the order of drivers, families and seeds. infos: by policy name or folder."""

    settings: ClosedLoopSettings
    infos: dict[str, PolicyInfo]
    drives: tuple[Drive, ...]


def policy_infos(settings: ClosedLoopSettings) -> dict[str, PolicyInfo]:
    """What each policy is, by name or folder. Raises CheckpointError for one that cannot be loaded."""
    sources = dict.fromkeys(driver.policy for driver in settings.drivers if driver.policy is not None)
    return {
        source: load_greedy(source, device=settings.device, precision=settings.precision).info for source in sources
    }


def run_closed_loop(
    settings: ClosedLoopSettings,
    infos: dict[str, PolicyInfo],
    *,
    processes: int = 2,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ClosedLoop:
    """Drives everything; infos: of `policy_infos`; progress: is told how many of how many drives are done.

    Raises EvaluationError when a drive fails or a process dies.
    """
    tasks = [
        _Task(driver, *place, settings.device, settings.precision)
        for driver in settings.drivers
        for place in settings.driven_by(driver)
    ]
    return ClosedLoop(settings, infos, tuple(spread(_run, tasks, processes=processes, progress=progress)))


@dataclass(frozen=True)
class _Task:
    driver: Driver
    family: str
    seed: int
    device: str
    precision: str

    def __str__(self) -> str:
        return f"{self.driver.name} in {self.family} {self.seed}"


@lru_cache(maxsize=1)
def _loaded(source: str, device: str, precision: str) -> DrivingPolicy:
    """The policy that this process used last; tasks come driver by driver."""
    return load_greedy(source, device=device, precision=precision)


def _run(task: _Task) -> Drive:
    """One drive, in a process of its own or of many."""
    try:
        scenario = make_scenario(task.family, task.seed)
        if task.driver.policy is None:
            return drive_with(task.driver.name, scenario, expert_command)
        policy = _loaded(task.driver.policy, task.device, task.precision)
        renderer = loaded_renderer(*policy.info.image_size)
        order = shuffled_order(task.family, task.seed, len(renderer.rig.cameras))

        def observe(world: World) -> Observation:
            return seen_through(task.driver.sight, world_observation(world, renderer), order)

        return drive_policy(task.driver.name, policy, scenario, observe)
    except Exception as error:
        raise EvaluationError(f"{task} failed: {type(error).__name__}: {error}") from error
