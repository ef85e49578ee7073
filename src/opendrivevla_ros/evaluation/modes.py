"""How a model drives fast, slow and as it finds right, beside others such as the one that it was before reinforcement.

All rows drive the same scenarios, so a difference of driver scores is the mean of the scenarios' own differences,
which is told far more closely than either score.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from opendrivevla_ros.core.plan import ThinkingMode
from opendrivevla_ros.core.policy import DrivingPolicy
from opendrivevla_ros.evaluation.closed_loop_runs import FAMILIES_THAT_NEED_EYES
from opendrivevla_ros.evaluation.figures import markdown_table, share
from opendrivevla_ros.evaluation.scored_drive import Interval, ScoredDrive, score_drive
from opendrivevla_ros.evaluation.world_scenes import (
    EvaluationError,
    Scene,
    display_names,
    evaluation_scenes,
    load_greedy,
    spread,
    work_on_one_core,
)

MODES = (ThinkingMode.AUTO, ThinkingMode.FAST, ThinkingMode.SLOW)


@dataclass(frozen=True)
class ModeFigures:
    """One checkpoint in one mode.

    score: driver score, mean over scenarios. better: that less the score of the first row, scenario by scenario. slow:
    shares of the plans that came after a thought, in families that need eyes and in the others. plan_seconds: mean.
    """

    checkpoint: str
    mode: str
    scenarios: int
    passed: int
    collisions: int
    score: Interval
    better: Interval
    slow_hard: float
    slow_simple: float
    plan_seconds: float


@dataclass(frozen=True)
class Modes:
    """The rows, of the judged checkpoint first."""

    seeds: tuple[int, int]  # of each family, the first and the last
    rows: tuple[ModeFigures, ...]

    def markdown(self) -> str:
        """The table, and what its columns are."""
        first = self.rows[0]
        cells = [
            [
                f"{row.checkpoint}, {row.mode}",
                f"{row.score.mean:.3f} ({row.score.low:.3f} to {row.score.high:.3f})",
                "" if row is first else f"{row.better.mean:+.3f} ({row.better.low:+.3f} to {row.better.high:+.3f})",
                f"{row.passed} of {row.scenarios}",
                str(row.collisions),
                share(row.slow_simple),
                share(row.slow_hard),
                f"{1e3 * row.plan_seconds:.0f} ({row.plan_seconds / first.plan_seconds:.2f})",
            ]
            for row in self.rows
        ]
        header = ["", "driver score", "difference", "passed", "collisions", "slow, simple", "slow, hard", "ms"]
        told = (
            f"{first.scenarios} scenarios of the driving world, test seeds {self.seeds[0]} to {self.seeds[1]} of each"
            " family, the same for all rows. `driver score`: of what is planned at the wheel (95 % interval of the"
            " mean over scenarios); `difference`: from the first row's, scenario by scenario; `slow`: plans after a"
            " thought, where nobody has to be seen and where somebody has; `ms`: of a plan, mean (over the first"
            " row's)."
        )
        return f"{told}\n\n{markdown_table(header, cells)}"


def compare_modes(
    sources: Sequence[str],
    *,
    scenarios: int,
    processes: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Modes:
    """Every mode of models by name or folder, the judged one first.

    scenarios: of test seeds, families by turns. Raises CheckpointError, and EvaluationError for one that never thinks.
    """
    sources = tuple(dict.fromkeys(sources))
    thinking_models(sources)
    scenes = evaluation_scenes(scenarios)
    tasks = [_Task(source, mode, scene) for source in sources for mode in MODES for scene in scenes]
    drives = spread(_drive, tasks, processes=processes, progress=progress)
    names = display_names(sources)
    rows = []
    for index, (source, mode) in enumerate((source, mode) for source in sources for mode in MODES):
        own = drives[index * len(scenes) : (index + 1) * len(scenes)]
        rows.append(_figures(names[source], mode, scenes, own, drives[: len(scenes)]))
    seeds = [scene.seed for scene in scenes]
    return Modes((min(seeds), max(seeds)), tuple(rows))


def thinking_models(sources: Sequence[str]) -> dict[str, str]:
    """The SHA-256 of the weights of models that think. Raises CheckpointError, and EvaluationError for another one."""
    infos = {source: load_greedy(source).info for source in sources}
    for source, info in infos.items():
        if not info.thinks:
            raise EvaluationError(f"{source} writes no thoughts, so it has no modes to compare; give one that does")
    return {source: info.weights_hash for source, info in infos.items()}


def _figures(
    name: str, mode: ThinkingMode, scenes: Sequence[Scene], drives: Sequence[ScoredDrive], first: Sequence[ScoredDrive]
) -> ModeFigures:
    hard = [one.slow for one, scene in zip(drives, scenes, strict=True) if scene.family in FAMILIES_THAT_NEED_EYES]
    simple = [
        one.slow for one, scene in zip(drives, scenes, strict=True) if scene.family not in FAMILIES_THAT_NEED_EYES
    ]
    return ModeFigures(
        checkpoint=name,
        mode=mode.name,
        scenarios=len(drives),
        passed=sum(one.passed for one in drives),
        collisions=sum(one.collided for one in drives),
        score=Interval.of([one.score for one in drives]),
        better=Interval.of([one.score - other.score for one, other in zip(drives, first, strict=True)]),
        slow_hard=sum(hard) / max(len(hard), 1),
        slow_simple=sum(simple) / max(len(simple), 1),
        plan_seconds=sum(one.plan_seconds for one in drives) / len(drives),
    )


@dataclass(frozen=True)
class _Task:
    checkpoint: str
    mode: ThinkingMode
    scene: Scene

    def __str__(self) -> str:
        return f"{self.checkpoint}, {self.mode.name}, in {self.scene.family} {self.scene.seed}"


@lru_cache(maxsize=1)
def _driver(checkpoint: str) -> DrivingPolicy:
    """The policy that this process used last; tasks come checkpoint by checkpoint."""
    policy = load_greedy(checkpoint)
    work_on_one_core()
    return policy


def _drive(task: _Task) -> ScoredDrive:
    policy = _driver(task.checkpoint)
    policy.set_thinking_mode(task.mode)
    return score_drive(policy, task.scene)
