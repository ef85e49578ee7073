"""The driving world as training samples without a detour over the disk: drawn when they are asked for."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from opendrivevla_ros.core.ego import DrivingCommand
from opendrivevla_ros.core.geometry import apply, invert, planar_transform, wrap_angle, yaw_of
from opendrivevla_ros.core.observation import CameraFrame, Observation
from opendrivevla_ros.core.rig import CameraRig
from opendrivevla_ros.datasets.driving_samples import AgentLabel, DrivingSample
from opendrivevla_ros.datasets.map_elements import MapGeometry
from opendrivevla_ros.datasets.world_labels import SeenActor, Sight, road_layers
from opendrivevla_ros.world.expert import STEP_S, Future, expert_command, roll_out
from opendrivevla_ros.world.image_effects import ImageEffects
from opendrivevla_ros.world.renderer import NO_EFFECTS, Renderer
from opendrivevla_ros.world.scenario import Scenario
from opendrivevla_ros.world.simulation import StartError, World
from opendrivevla_ros.world.state import WorldState
from opendrivevla_ros.world.vehicle import EgoCommand

START_NS = 1_700_000_000_000_000_000  # of every scene
SAMPLE_STEPS = 5  # two samples a second


@dataclass(frozen=True)
class NoPictures:
    """Stands in a renderer's place where no picture is needed, as for who reads the truth: it draws none."""

    rig: CameraRig


class WorldSampler:
    """Samples of one scenario that the expert drives; make one for each scenario, the renderer once.

    renderer: with the rig to draw; all pictures have the stamp of t0. map_reach: (forward and back, left and right),
    metres, of the map labels.
    """

    def __init__(
        self,
        scenario: Scenario,
        renderer: Renderer | NoPictures,
        *,
        map_reach: tuple[float, float] = (51.2, 51.2),
        effects: ImageEffects = NO_EFFECTS,
    ) -> None:
        self.scenario = scenario
        self._renderer, self._effects = renderer, effects
        self._road = MapGeometry.of_layers(road_layers(scenario.road), reach=map_reach)
        self._sight = Sight(scenario.road, scenario.appearance)

    def drive(
        self,
        samples: int,
        *,
        start_error: StartError | None = None,
        warm_up_s: float = 0.0,
        driver: Callable[[World], EgoCommand] = expert_command,
    ) -> Iterator[DrivingSample]:
        """Up to so many samples, two a second, from `warm_up_s` after the start on; fewer where the route ends.

        start_error: a perturbed start. Wherever that or another `driver` leads, the expert's way on is the future.
        """
        world = World(self.scenario, start_error)
        for _ in range(round(warm_up_s / STEP_S)):
            world.step(STEP_S, driver(world))
        yield from self.follow(world, samples, driver)

    def follow(
        self, world: World, samples: int, driver: Callable[[World], EgoCommand] = expert_command
    ) -> Iterator[DrivingSample]:
        """Samples from a world of this scenario as it is now, which `driver` drives on; see `drive`."""
        for index in range(samples):
            if world.finished:
                return
            yield self.sample(world, index)
            for _ in range(SAMPLE_STEPS):
                world.step(STEP_S, driver(world))

    def sample(self, world: World, index: int) -> DrivingSample:
        """What is seen and true in a world of this scenario now, and what the expert would do; it stays as it is."""
        state, future = world.state, roll_out(world)
        name = f"{self.scenario.family} {self.scenario.seed}"
        return DrivingSample(
            scene=name,
            token=f"{name} {world.time_ns}",
            index=index,
            observation=world_observation(world, self._renderer, self._effects),
            future=future.ego_in_base,
            future_mask=np.ones(len(future.times), dtype=bool),
            agents=tuple(_label(seen, state, future) for seen in self._sight.seen(state)),
            map_elements=self._road.elements(state.ego.base_to_world),
        )


def world_observation(
    world: World, renderer: Renderer | NoPictures, effects: ImageEffects = NO_EFFECTS
) -> Observation:
    """What a policy sees of the world now, all six pictures at once, or none."""
    stamp_ns = START_NS + world.time_ns
    frames: tuple[CameraFrame, ...] = ()
    if not isinstance(renderer, NoPictures):
        pictures = zip(renderer.rig.cameras, renderer.render(world.state, effects), strict=True)
        frames = tuple(CameraFrame(camera.name, stamp_ns, picture) for camera, picture in pictures)
    return Observation(
        stamp_ns=stamp_ns,
        frames=frames,
        rig=renderer.rig,
        ego=replace(world.ego_state(), stamp_ns=stamp_ns),
        command=DrivingCommand(world.command, is_default=False),
    )


def _label(seen: SeenActor, state: WorldState, future: Future) -> AgentLabel:
    actor = seen.actor
    to_base = invert(state.ego.base_to_world)
    length, width, height = actor.size
    mask = np.asarray(future.present[:, actor.id], dtype=np.bool_)
    centres = np.column_stack([future.actors[:, actor.id, :2], np.zeros(len(mask))])
    return AgentLabel(
        track_id=actor.id,
        label=actor.category.detection_name,
        position=apply(to_base, [actor.x, actor.y, height / 2]),
        size=np.array([length, width, height]),
        yaw=float(wrap_angle(yaw_of(to_base @ planar_transform(0.0, 0.0, actor.yaw)))),
        velocity=(to_base[:3, :3] @ [*actor.velocity, 0.0])[:2],
        velocity_known=True,
        future=np.where(mask[:, None], apply(to_base, centres)[:, :2], 0.0),
        future_mask=mask,
        points=seen.points,
        visibility=seen.visibility,
        attribute=actor.attribute.value,
    )
