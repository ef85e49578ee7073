"""The driver score of plans in the driving world, where the truth is known; the reference is the expert's way."""

import numpy as np
from numpy.typing import NDArray

from opendrivevla_ros.core.geometry import Array, apply, invert, wrap_angle
from opendrivevla_ros.evaluation.driver_score import Scene
from opendrivevla_ros.evaluation.plan_tracker import STEP_S
from opendrivevla_ros.world.expert import Future
from opendrivevla_ros.world.simulation import World

ROUTE_BEHIND, ROUTE_AHEAD = 10.0, 90.0  # metres of the route that progress is measured on


def world_scene(world: World, future: Future) -> Scene:
    """The world as it is now and goes on while the expert drives, every STEP_S to the future's end.

    Between the instants of the future, everyone goes straight.
    """
    ego, to_base = world.ego, invert(world.ego.base_to_world)
    times = STEP_S * np.arange(round(future.times[-1] / STEP_S) + 1)
    boxes = world.traffic.boxes()
    states = np.concatenate([boxes[None, :, :3], future.actors]).transpose(1, 2, 0)  # [A, 3, 1 + 6]
    states[:, 2] = np.unwrap(states[:, 2], axis=-1)
    known = np.concatenate([[0.0], future.times])
    moved = np.array([[np.interp(times, known, row) for row in actor] for actor in states])
    moved = moved.reshape(len(boxes), 3, len(times))
    following = np.minimum(np.searchsorted(future.times, times), len(future.times) - 1)
    path, first = world.scenario.route.path, world.progress - ROUTE_BEHIND
    route = path.points[int(max(first, 0.0) / path.spacing) : int((first + ROUTE_AHEAD) / path.spacing) + 2]
    stations, _ = path.project(np.stack([[ego.x, ego.y], future.ego[-1, :2]]))

    def on_road(points: Array) -> NDArray[np.bool_]:
        return world.scenario.queries.on_road(_seen_from(ego.base_to_world, points))

    return Scene(
        others=np.concatenate(
            [
                _seen_from(to_base, moved[:, :2].transpose(0, 2, 1)),
                wrap_angle(moved[:, 2] - ego.yaw)[..., None],
                np.broadcast_to(boxes[:, None, 3:], (len(boxes), len(times), 2)),
            ],
            axis=-1,
        ),
        present=future.present[following].T,
        is_object=np.zeros(len(boxes), dtype=bool),
        on_road=on_road,
        route=_seen_from(to_base, route),
        reference_progress=float(stations[1] - stations[0]),
        speed=ego.speed,
        acceleration=ego.acceleration,
        steering=ego.steering,
    )


def _seen_from(matrix: Array, places: Array) -> Array:
    """[..., 2] places on the ground in another frame."""
    return apply(matrix, np.concatenate([places, np.zeros((*places.shape[:-1], 1))], axis=-1))[..., :2]
