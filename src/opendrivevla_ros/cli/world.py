"""`odv world`: the driving world as a data set on disk, and as a picture of one moment."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from opendrivevla_ros.cli.console import (
    CommandError,
    console,
    one_sentence_errors,
    packages_of_the_world,
    progress_bar,
)

if TYPE_CHECKING:
    from opendrivevla_ros.core.observation import Observation
    from opendrivevla_ros.core.plan import Plan
    from opendrivevla_ros.datasets.nuscenes_export import ExportedScene, ExportFrame, ExportScene

app = typer.Typer(help="The driving world: export it as a data set, draw it.", no_args_is_help=True)

DRAWN_WIDTH = 960
MEGABYTE = 1e6
LONGEST_S = 600.0
VERSION = "v1.0-world"


class SplitName(str, Enum):
    """The splits of the world's seeds."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


@app.callback()
def world() -> None:
    """The driving world: export it as a data set, draw it."""


@app.command()
def export(
    root: Annotated[Path, typer.Option(help="Folder to write; it must not be there yet.")],
    scenes: Annotated[int, typer.Option(min=1, help="Scenes of each split, all families in turn.")] = 14,
    split: Annotated[
        list[SplitName] | None, typer.Option(help="Which seeds; may be repeated. Default: train.")
    ] = None,
    family: Annotated[list[str] | None, typer.Option(help="Only this family; may be repeated.")] = None,
    seconds: Annotated[float, typer.Option(min=1.0, help="Longest duration of a scene.")] = 20.0,
    width: Annotated[int, typer.Option(min=64, max=1600, help="Width of the pictures, which are 16:9.")] = 1600,
) -> None:
    """Write the driving world as a nuScenes-format data set, which nuscenes-devkit loads."""
    with one_sentence_errors(), _world_errors():
        from opendrivevla_ros.world.families import FAMILIES
        from opendrivevla_ros.world.seeds import Split, seed_of

        families = _known(family, FAMILIES)
        _require_short("--seconds", seconds)
        chosen = [
            (families[index % len(families)], seed_of(Split[name.name], index // len(families)))
            for name in dict.fromkeys(split or [SplitName.TRAIN])
            for index in range(scenes)
        ]
        written = _export(root, chosen, seconds=seconds, width=width)
    _print_written(root, [name for name, _ in chosen], written)


@app.command()
def draw(
    family: Annotated[str, typer.Argument(help="The scenario's family.")],
    seed: Annotated[int, typer.Argument(min=0, help="Its seed.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="PNG to write.")] = Path("world.png"),
    at: Annotated[float, typer.Option(min=0.0, help="Seconds that the expert drives before the moment drawn.")] = 3.0,
) -> None:
    """Draw one moment: six cameras and a bird's-eye view with what is true and what the expert does next."""
    with one_sentence_errors(), _world_errors():
        import cv2

        from opendrivevla_ros.ros.overview import render_overview
        from opendrivevla_ros.world.families import FAMILIES

        if output.suffix.lower() != ".png":
            raise CommandError(f"{output} is no name of a PNG; give one that ends in .png")
        _known([family], FAMILIES)
        _require_short("--at", at)
        observation, truth = _moment(family, seed, at)
        picture = render_overview(observation, truth, status=f"{family} {seed}, {at:.1f} s after the start")
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_bytes(cv2.imencode(".png", picture)[1].tobytes())
    console.print(f"{output}: {len(truth.agents)} road users in sight. {truth.reasoning.text}", soft_wrap=True)


def _export(root: Path, chosen: list[tuple[str, int]], *, seconds: float, width: int) -> "list[ExportedScene]":
    from opendrivevla_ros.datasets.nuscenes_export import export_nuscenes
    from opendrivevla_ros.datasets.world_scenes import StaggeredCameras, world_scene
    from opendrivevla_ros.world.rig import nuscenes_rig

    cameras = StaggeredCameras(nuscenes_rig(width, round(width * 9 / 16)))
    most_frames = int(2 * seconds) + 1
    with progress_bar() as bar:
        task = bar.add_task("", total=len(chosen))

        def drawn() -> "Iterator[ExportScene]":
            for number, (family, seed) in enumerate(chosen):
                bar.update(task, description=f"{family} {seed}", completed=number)
                scene = world_scene(family, seed, cameras, duration_s=seconds)
                yield replace(scene, frames=_told(scene.frames, lambda: bar.advance(task, 1 / most_frames)))

        try:
            return export_nuscenes(root, drawn(), version=VERSION)
        finally:
            cameras.close()


def _told(frames: "Iterable[ExportFrame]", tell: Callable[[], None]) -> "Iterator[ExportFrame]":
    """The frames; `tell` is called after each."""
    for frame in frames:
        yield frame
        tell()


def _print_written(root: Path, families: list[str], written: "list[ExportedScene]") -> None:
    table = Table("family", "scenes", "samples")
    for column in table.columns[1:]:
        column.justify = "right"
    for family in dict.fromkeys(families):
        counts = [scene.samples for scene, name in zip(written, families, strict=True) if name == family]
        table.add_row(family, str(len(counts)), str(sum(counts)))
    console.print(table)
    size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    samples = sum(scene.samples for scene in written)
    console.print(f"{root}: {len(written)} scenes, {samples} samples, {size / MEGABYTE:.0f} MB", soft_wrap=True)
    console.print(f"nuscenes.NuScenes({VERSION!r}, {str(root)!r}) loads it", soft_wrap=True)


def _moment(family: str, seed: int, at: float) -> "tuple[Observation, Plan]":
    """What is seen `at` seconds after the start; and in the form of a plan what is true, and what the expert does."""
    from opendrivevla_ros.core.plan import Agent, Plan, Reasoning
    from opendrivevla_ros.core.trajectory import FUTURE_TIMES_S, Trajectory
    from opendrivevla_ros.datasets.world_samples import WorldSampler
    from opendrivevla_ros.world.expert import STEP_S, expert_command
    from opendrivevla_ros.world.families import make_scenario
    from opendrivevla_ros.world.narration import narrate
    from opendrivevla_ros.world.renderer import Renderer
    from opendrivevla_ros.world.rig import nuscenes_rig
    from opendrivevla_ros.world.simulation import World

    world = World(make_scenario(family, seed))
    for _ in range(round(at / STEP_S)):
        if world.finished:
            end = world.time_ns / 1e9
            raise CommandError(
                f"{family} {seed} ends {end:.1f} s after its start, before {at:.1f} s; give a lower --at"
            )
        world.step(STEP_S, expert_command(world))
    renderer = Renderer(nuscenes_rig(DRAWN_WIDTH, DRAWN_WIDTH * 9 // 16))
    sample = WorldSampler(world.scenario, renderer).sample(world, 0)
    renderer.close()
    speed = sample.observation.ego.speed
    return sample.observation, Plan(
        stamp_ns=sample.observation.stamp_ns,
        trajectory=Trajectory.from_waypoints(FUTURE_TIMES_S, sample.future[:, :2], speed),
        confidence=1.0,
        reasoning=Reasoning(" ".join(narrate(world.state, sample.future, seed=seed).captions.values())),
        agents=tuple(
            Agent(
                track_id=agent.track_id,
                label=agent.label,
                score=1.0,
                position=agent.position,
                size=agent.size,
                yaw=agent.yaw,
                velocity=agent.velocity,
                predicted=agent.future[agent.future_mask],
            )
            for agent in sample.agents or ()
            if agent.points > 0
        ),
        map_elements=sample.map_elements or (),
    )


def _require_short(option: str, seconds: float) -> None:
    """Raises CommandError for more seconds than any drive lasts."""
    if seconds > LONGEST_S:
        raise CommandError(f"{option} {seconds} is longer than any drive; give at most {LONGEST_S:.0f} seconds")


def _known(asked: list[str] | None, families: tuple[str, ...]) -> tuple[str, ...]:
    """The families asked for, all without any. Raises CommandError for one that does not exist."""
    chosen = tuple(dict.fromkeys(asked or families))
    for name in chosen:
        if name not in families:
            raise CommandError(f"no scenario family {name!r}; choose one of {', '.join(families)}")
    return chosen


@contextmanager
def _world_errors() -> Iterator[None]:
    """What stops the world from being drawn or written, as a CommandError."""
    from opendrivevla_ros.datasets.nuscenes_tables import DatasetError

    try:
        with packages_of_the_world():
            yield
    except DatasetError as error:
        raise CommandError(str(error)) from None
