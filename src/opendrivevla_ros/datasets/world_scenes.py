"""The driving world as scenes to export: the expert drives, six cameras look, each at its own moment."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from opendrivevla_ros.core.ego import DrivingCommand
from opendrivevla_ros.core.observation import CameraFrame, Observation
from opendrivevla_ros.core.rig import CameraRig
from opendrivevla_ros.datasets.nuscenes_export import ExportBox, ExportFrame, ExportScene
from opendrivevla_ros.datasets.world_labels import SeenActor, Sight, moved, road_layers
from opendrivevla_ros.datasets.world_samples import SAMPLE_STEPS, START_NS
from opendrivevla_ros.world.expert import STEP_S, expert_command
from opendrivevla_ros.world.families import make_scenario
from opendrivevla_ros.world.renderer import Renderer
from opendrivevla_ros.world.rig import STAMP_OFFSETS_NS
from opendrivevla_ros.world.seeds import split_of
from opendrivevla_ros.world.simulation import World

LIDAR_AFTER_FRONT_NS = 35_500_000  # nuScenes' keyframes have the stamp of the lidar, so much after cam_front's


class StaggeredCameras:
    """Six cameras that are triggered one after another, as those of nuScenes; make one and draw many scenes."""

    def __init__(self, rig: CameraRig) -> None:
        self.rig = rig
        self._renderer = Renderer(rig)

    def frame(self, world: World, sight: Sight) -> ExportFrame:
        """What is seen and true now."""
        state, stamp_ns = world.state, START_NS + world.time_ns
        pictures, poses = [], []
        for camera in self.rig.cameras:
            offset_ns = STAMP_OFFSETS_NS[camera.name] - LIDAR_AFTER_FRONT_NS
            then = moved(state, offset_ns / 1e9)
            pictures.append(
                CameraFrame(camera.name, stamp_ns + offset_ns, self._renderer.render_one(camera.name, then))
            )
            poses.append(then.ego.base_to_world)
        observation = Observation(
            stamp_ns=stamp_ns,
            frames=tuple(pictures),
            rig=self.rig,
            ego=replace(world.ego_state(), stamp_ns=stamp_ns),
            command=DrivingCommand(world.command, is_default=False),
        )
        return ExportFrame(observation, np.stack(poses), world_boxes(sight.seen(state)))

    def close(self) -> None:
        """Gives the picture memory back."""
        self._renderer.close()


def world_scene(family: str, seed: int, cameras: StaggeredCameras, *, duration_s: float = 20.0) -> ExportScene:
    """A scenario driven by the expert to its end, or for so long; its split is the seed's ("world_train", ...)."""
    scenario = make_scenario(family, seed)
    frames = _drive(World(scenario), cameras, duration_s)
    split = f"world_{split_of(seed).name.lower()}"
    return ExportScene(f"{family} {seed}", split, road_layers(scenario.road), frames)


def world_boxes(actors: Iterable[SeenActor]) -> tuple[ExportBox, ...]:
    """Actors as boxes to export, those that are hidden too (with 0 points)."""
    return tuple(
        ExportBox(
            instance=f"actor {seen.actor.id}",
            category=seen.actor.category.value,
            position=np.array([seen.actor.x, seen.actor.y, seen.actor.size[2] / 2]),
            size=np.array(seen.actor.size),
            yaw=seen.actor.yaw,
            attribute=seen.actor.attribute.value,
            points=seen.points,
            visibility=seen.visibility,
        )
        for seen in actors
    )


def _drive(world: World, cameras: StaggeredCameras, duration_s: float) -> Iterator[ExportFrame]:
    sight = Sight(world.scenario.road, world.scenario.appearance)
    for step in range(round(duration_s / STEP_S) + 1):
        if step % SAMPLE_STEPS == 0:
            yield cameras.frame(world, sight)
        if world.finished:
            return
        world.step(STEP_S, expert_command(world))
