"""The expert driver: it knows the true state, follows the route and its commands, and never collides.

Speed: the least of the free road, the leader, the junction, and pedestrians who will be in the way. Steering: back to
the route, moved aside inside the lane for whatever stands or rides at its edge.
"""

from dataclasses import dataclass

import numpy as np

from opendrivevla_ros.core.geometry import Array, wrap_angle
from opendrivevla_ros.core.trajectory import Trajectory
from opendrivevla_ros.world.car_following import follow, free_road, stop_at
from opendrivevla_ros.world.outcome import STEP_S
from opendrivevla_ros.world.simulation import World
from opendrivevla_ros.world.state import EGO_CENTRE_AHEAD, EGO_LENGTH, EGO_WIDTH
from opendrivevla_ros.world.traffic import SIGHT_METRES, View
from opendrivevla_ros.world.vehicle import MAX_BRAKING, PASSING_CLEARANCE, EgoCommand, steering_along

HORIZON_STEPS, POINT_STEPS = 30, 5  # a future of 3 s, a point every 0.5 s
COMFORTABLE_BRAKING = 3.5  # m/s^2, exceeded only where a collision would follow
LEAST_CLEARANCE = 0.45  # metres beside which nothing has to be waited for
TIGHT_CLEARANCE = 0.2  # the same for what is already beside or close ahead: braking there helps no more than steering
MOST_ASIDE = 0.95  # metres off the lane's middle
ASIDE_AHEAD, ASIDE_AFTER = 20.0, 18.0  # metres over which the ego moves aside and back
PASSING_SPEED = 8.0  # m/s past parked cars that stand in the lane
OVERTAKING_SPEED = 4.0  # m/s faster than a cyclist who is passed
PEDESTRIAN_HORIZON_S = 4.5
PEDESTRIAN_GAP = 3.0  # metres before a crossing pedestrian


@dataclass(frozen=True)
class Future:
    """The next 3 s with the expert at the wheel.

    times: [6] seconds. ego: [6, 3] x, y, yaw of base_link, world frame. ego_in_base: [6, 3], the same in base_link
    now. speed: [6] m/s; start_speed: now. actors: [6, A, 3] x, y, yaw by actor id, world frame; present: [6, A] bool.
    """

    times: Array
    ego: Array
    ego_in_base: Array
    speed: Array
    start_speed: float
    actors: Array
    present: Array

    @property
    def trajectory(self) -> Trajectory:
        """The future as a plan."""
        return Trajectory.from_waypoints(self.times, self.ego_in_base[:, :2], self.start_speed)


def expert_command(world: World) -> EgoCommand:
    """What the expert does now."""
    ego, route, view = world.ego, world.scenario.route, world.traffic.view
    spacing, samples = route.path.spacing, len(route.speed)
    s = float(view.s[0, -1])
    rear = s - EGO_CENTRE_AHEAD
    aside, slope, beside_speed = _aside(world, view)
    sample = int(min(max(round((rear + 0.5 * ego.speed) / spacing), 0), samples - 1))
    desired = min(float(route.speed[sample]), beside_speed)
    acceleration = min(
        float(free_road(ego.speed, desired)), _behind_leaders(world, view), _for_pedestrians(world, view)
    )
    stop = world.traffic.stop_gaps.get(len(world.scenario.parts))
    if stop is not None:
        acceleration = min(acceleration, float(stop_at(ego.speed, stop)))
    along, lateral, heading = route.path.locate(ego.x, ego.y, rear)
    at = min(max(round(along / spacing), 0), samples - 1)
    ahead = at + 2 + round(0.3 * ego.speed / spacing)
    steering = steering_along(
        lateral=lateral - aside,
        heading_error=float(wrap_angle(ego.yaw - heading - np.arctan(slope))),
        curvature=float(route.path.curvature[at:ahead].mean()),
        speed=ego.speed,
    )
    return EgoCommand(max(acceleration, -MAX_BRAKING), steering)


def roll_out(world: World) -> Future:
    """The next 3 s with the expert at the wheel; `world` stays as it is."""
    twin = world.copy()
    points = HORIZON_STEPS // POINT_STEPS
    actors = len(world.scenario.stage.parts)
    ego, speed = np.zeros((points, 3)), np.zeros(points)
    others, present = np.zeros((points, actors, 3)), np.zeros((points, actors), dtype=bool)
    for step in range(HORIZON_STEPS):
        twin.step(STEP_S, expert_command(twin))
        point, rest = divmod(step + 1, POINT_STEPS)
        if rest == 0:
            ego[point - 1] = twin.ego.x, twin.ego.y, twin.ego.yaw
            speed[point - 1] = twin.ego.speed
            traffic = twin.traffic
            others[point - 1] = np.column_stack([traffic.x, traffic.y, traffic.yaw])[:-1]
            present[point - 1] = traffic.present[:-1]
    now = world.ego
    cosine, sine = np.cos(now.yaw), np.sin(now.yaw)
    dx, dy = ego[:, 0] - now.x, ego[:, 1] - now.y
    in_base = np.column_stack([dx * cosine + dy * sine, dy * cosine - dx * sine, wrap_angle(ego[:, 2] - now.yaw)])
    times = STEP_S * POINT_STEPS * np.arange(1, points + 1)
    return Future(times, ego, in_base, speed, now.speed, others, present)


def _aside(world: World, view: View) -> tuple[float, float, float]:
    """How far left of the route's middle to be now, its slope (metres a metre), and the greatest speed beside."""
    traffic, scenario = world.traffic, world.scenario
    s, own_speed = float(view.s[0, -1]), world.ego.speed
    aside, slope, speed = 0.0, 0.0, np.inf
    for i in scenario.edge_users:
        gap = float(view.s[0, i]) - s
        if not -40.0 < gap < SIGHT_METRES or not traffic.present[i]:
            continue
        need = _needed_aside(view, i)
        if need == 0.0 or abs(need) > MOST_ASIDE:
            continue
        reach = float(view.half_length[0, i]) + EGO_LENGTH / 2
        closing = max(own_speed - float(view.speed_along[0, i]), 1.0)
        stretch = max(own_speed, 1.0) / closing if view.speed_along[0, i] > 0.5 else 1.0
        share, change = _ramp(gap, reach, stretch)
        if abs(need * share) > abs(aside):
            aside, slope = need * share, need * change
        if share > 0.0:
            parked = scenario.stage.parts[i].parked
            most = PASSING_SPEED if parked else float(view.speed_along[0, i]) + OVERTAKING_SPEED
            speed = min(speed, most)
    return aside, slope, speed


def _ramp(gap: float, reach: float, stretch: float) -> tuple[float, float]:
    """The share of the way aside, and its slope a metre driven, for an obstacle `gap` metres ahead (middle to middle).

    reach: half the lengths of both; stretch: metres driven while the gap closes by one.
    """
    ahead, after = (gap - reach - 3.0) * stretch, (-gap - reach) * stretch
    if ahead > 0.0:
        t, span, sign = 1.0 - ahead / ASIDE_AHEAD, ASIDE_AHEAD, 1.0
    elif after > 0.0:
        t, span, sign = 1.0 - after / ASIDE_AFTER, ASIDE_AFTER, -1.0
    else:
        return 1.0, 0.0
    if t <= 0.0:
        return 0.0, 0.0
    return t * t * (3.0 - 2.0 * t), sign * 6.0 * t * (1.0 - t) / span


def _needed_aside(view: View, i: int) -> float:
    """Where the ego's middle must be (left positive) to pass `i` with clearance; 0 where the lane's middle does."""
    lateral, half = float(view.lateral[0, i]), float(view.half_width[0, i])
    free = EGO_WIDTH / 2 + PASSING_CLEARANCE
    if lateral < 0.0:
        return max(0.0, lateral + half + free)
    return min(0.0, lateral - half - free)


def _behind_leaders(world: World, view: View) -> float:
    """The least acceleration that car following asks for, over everyone in the way."""
    stage, s = world.scenario.stage, float(view.s[0, -1])
    gaps = view.s[0] - s - view.half_length[0] - EGO_LENGTH / 2
    now = float(view.lateral[0, -1])
    lateral = np.full(len(gaps), now)
    far = gaps > 8.0
    reach = EGO_WIDTH / 2 + np.where(far, LEAST_CLEARANCE, TIGHT_CLEARANCE)
    lateral[far] = min(max(now, -0.2), 0.2)
    for i in world.scenario.edge_users:
        need = _needed_aside(view, i)
        if far[i] and abs(need) <= MOST_ASIDE:
            lateral[i] = need
    ahead = (view.s[0] > s) & (gaps < SIGHT_METRES) & ~stage.pedestrian
    blocking = ahead & (view.rightmost[0] < lateral + reach) & (view.leftmost[0] > lateral - reach)
    blocking[-1] = False
    which = np.flatnonzero(blocking)
    if not len(which):
        return float(np.inf)
    return float(follow(world.ego.speed, gaps[which], np.maximum(view.speed_along[0, which], 0.0)).min())


def _for_pedestrians(world: World, view: View) -> float:
    """Stops before pedestrians who are in the way or will be by the time the ego comes."""
    speed, acceleration = world.ego.speed, float(np.inf)
    s = float(view.s[0, -1])
    half = EGO_WIDTH / 2 + 0.7
    for i in world.scenario.stage.walkers:
        gap = float(view.s[0, i] - view.half_length[0, i]) - s - EGO_LENGTH / 2
        if not -EGO_LENGTH < gap < SIGHT_METRES:
            continue
        lateral, across = float(view.lateral[0, i]), float(view.speed_across[0, i])
        inside = abs(lateral) < half + float(view.half_width[0, i])
        edge = max(abs(lateral) - half - float(view.half_width[0, i]), 0.0)
        towards = -np.sign(lateral) * across
        if not inside and (towards < 0.1 or edge / towards > PEDESTRIAN_HORIZON_S):
            continue
        if gap < 0.3:
            # Beside the ego's body, where pedestrians wait: only who is about to touch it is let by.
            if abs(lateral) < half - 0.3 and gap > -1.0:
                acceleration = -MAX_BRAKING
            continue
        if not inside and (gap + EGO_LENGTH + 1.0) / max(speed, 0.1) < edge / towards - 1.0:
            continue  # the ego is through long before
        room = max(gap - PEDESTRIAN_GAP, 0.05)
        needed = speed * speed / (2.0 * room)
        wanted = float(stop_at(speed, room))
        if needed > COMFORTABLE_BRAKING:
            wanted = min(wanted, -speed * speed / (2.0 * max(gap - 1.0, 0.05)))
        acceleration = min(acceleration, wanted)
    return acceleration
