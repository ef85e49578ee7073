"""From core's words to messages and back. Pure functions: no node, no clock.

A plan is in base_link at t0; every message is in the odometry's world-fixed frame, stamped t0.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from builtin_interfaces.msg import Duration, Time
from geometry_msgs.msg import Point, Pose, PoseStamped, Quaternion, Vector3
from nav_msgs.msg import Path
from sensor_msgs.msg import Image as ImageMessage
from std_msgs.msg import Header

from opendrivevla_ros.core.ego import EgoState
from opendrivevla_ros.core.geometry import Array, apply, planar_transform, quaternion
from opendrivevla_ros.core.plan import Agent, MapElement, Plan, Reasoning
from opendrivevla_ros.msg import (
    DetectedAgent,
    DetectedAgentArray,
    MapElementArray,
    PlannedTrajectory,
    PlanStatus,
    TrajectoryPoint,
)
from opendrivevla_ros.msg import MapElement as MapElementMessage
from opendrivevla_ros.msg import Reasoning as ReasoningMessage
from opendrivevla_ros.sensing.images import RawImage

SECOND_NS = 1_000_000_000


def nanoseconds(stamp: Time) -> int:
    """A stamp as integer nanoseconds."""
    return stamp.sec * SECOND_NS + stamp.nanosec


def time_message(stamp_ns: int) -> Time:
    """Integer nanoseconds as a stamp."""
    seconds, rest = divmod(int(stamp_ns), SECOND_NS)
    return Time(sec=seconds, nanosec=rest)


def duration_message(seconds: float) -> Duration:
    """Seconds as a duration, rounded to the nanosecond."""
    whole, rest = divmod(round(seconds * SECOND_NS), SECOND_NS)
    return Duration(sec=whole, nanosec=rest)


def header(stamp_ns: int, frame_id: str) -> Header:
    return Header(stamp=time_message(stamp_ns), frame_id=frame_id)


def point_message(xyz: Array) -> Point:
    return Point(x=float(xyz[0]), y=float(xyz[1]), z=float(xyz[2]))


def pose_message(matrix: Array) -> Pose:
    """A 4x4 transform as a pose."""
    x, y, z, w = (float(value) for value in quaternion(matrix))
    return Pose(position=point_message(matrix[:3, 3]), orientation=Quaternion(x=x, y=y, z=z, w=w))


def trajectory_poses(plan: Plan, ego: EgoState) -> list[Array]:
    """The planned poses of base_link, 4x4, in the world-fixed frame."""
    trajectory = plan.trajectory
    return [
        ego.base_to_world @ planar_transform(float(x), float(y), float(yaw))
        for (x, y), yaw in zip(trajectory.xy, trajectory.yaw, strict=True)
    ]


def trajectory_message(plan: Plan, ego: EgoState) -> PlannedTrajectory:
    """The plan as a candidate of the model; covariances turn with the poses."""
    trajectory = plan.trajectory
    turn = ego.base_to_world[:2, :2]
    covariance = turn @ trajectory.covariance @ turn.T
    points = [
        TrajectoryPoint(
            time_from_start=duration_message(float(trajectory.times[k])),
            pose=pose_message(pose),
            longitudinal_velocity=float(trajectory.velocity[k]),
            acceleration=float(trajectory.acceleration[k]),
            curvature=float(trajectory.curvature[k]),
            position_covariance=covariance[k].ravel(),
        )
        for k, pose in enumerate(trajectory_poses(plan, ego))
    ]
    return PlannedTrajectory(
        header=header(plan.stamp_ns, ego.world_frame),
        source=PlannedTrajectory.MODEL,
        confidence=float(plan.confidence),
        points=points,
    )


def path_message(plan: Plan, ego: EgoState) -> Path:
    """The plan as a path: each pose carries the time at which it is to be reached, t0 + (k + 1) dt."""
    poses = [
        PoseStamped(
            header=header(plan.stamp_ns + round(float(seconds) * SECOND_NS), ego.world_frame),
            pose=pose_message(pose),
        )
        for seconds, pose in zip(plan.trajectory.times, trajectory_poses(plan, ego), strict=True)
    ]
    return Path(header=header(plan.stamp_ns, ego.world_frame), poses=poses)


def reasoning_message(
    reasoning: Reasoning, stamp_ns: int, frame_id: str, *, is_final: bool = True
) -> ReasoningMessage:
    """The words that came with a plan; is_final: False for a thought that is still being written."""
    probability = reasoning.slow_probability
    return ReasoningMessage(
        header=header(stamp_ns, frame_id),
        requested_mode=reasoning.requested_mode.value,
        actual_mode=reasoning.actual_mode.value,
        slow_probability=float("nan") if probability is None else probability,
        is_final=is_final,
        text=reasoning.text,
    )


def agents_message(plan: Plan, ego: EgoState) -> DetectedAgentArray:
    agents = sorted(plan.agents, key=lambda agent: -agent.score)
    return DetectedAgentArray(
        header=header(plan.stamp_ns, ego.world_frame),
        agents=[_agent_message(agent, ego.base_to_world) for agent in agents],
    )


def agent_pose(agent: Agent) -> Array:
    """The 4x4 pose of an agent's box in base_link."""
    pose = planar_transform(0.0, 0.0, agent.yaw)
    pose[:3, 3] = agent.position
    return pose


def agent_future(agent: Agent) -> Array:
    """The predicted box centres [K, 3] in base_link, at the box's present height."""
    predicted = np.asarray(agent.predicted, dtype=np.float64).reshape(-1, 2)
    return np.column_stack([predicted, np.full(len(predicted), agent.position[2])])


def _agent_message(agent: Agent, base_to_world: Array) -> DetectedAgent:
    length, width, height = (float(value) for value in agent.size)
    vx, vy, vz = (float(value) for value in base_to_world[:3, :2] @ np.asarray(agent.velocity))
    return DetectedAgent(
        track_id=int(agent.track_id),
        label=agent.label,
        score=float(agent.score),
        pose=pose_message(base_to_world @ agent_pose(agent)),
        size=Vector3(x=length, y=width, z=height),
        velocity=Vector3(x=vx, y=vy, z=vz),
        predicted_path=[point_message(point) for point in apply(base_to_world, agent_future(agent))],
    )


def ground_points(xy: Array) -> Array:
    """Points [N, 2] of base_link's ground plane as [N, 3]."""
    return np.column_stack([xy, np.zeros(len(xy))])


def map_elements_message(plan: Plan, ego: EgoState) -> MapElementArray:
    return MapElementArray(
        header=header(plan.stamp_ns, ego.world_frame),
        elements=[_map_element_message(element, ego.base_to_world) for element in plan.map_elements],
    )


def _map_element_message(element: MapElement, base_to_world: Array) -> MapElementMessage:
    points = apply(base_to_world, ground_points(element.points))
    return MapElementMessage(
        label=element.label,
        score=float(element.score),
        closed=bool(element.closed),
        points=[point_message(point) for point in points],
    )


def plan_status_message(
    *,
    stamp_ns: int,
    frame_id: str = "",
    result: int = PlanStatus.OK,
    reason: str = "",
    failed_checks: Sequence[str] = (),
    degraded: Sequence[str] = (),
    age_s: float = 0.0,
    skew_s: float = 0.0,
    stage_times: Mapping[str, float] | None = None,
    token_counts: Mapping[str, int] | None = None,
) -> PlanStatus:
    """The outcome of one attempt. stage_times: seconds by stage. token_counts: by kind."""
    stages, tokens = dict(stage_times or {}), dict(token_counts or {})
    return PlanStatus(
        header=header(stamp_ns, frame_id),
        result=result,
        reason=reason,
        failed_checks=list(failed_checks),
        degraded=list(degraded),
        age=float(age_s),
        camera_skew=float(skew_s),
        stages=list(stages),
        stage_times=[float(seconds) for seconds in stages.values()],
        token_kinds=list(tokens),
        token_counts=[int(count) for count in tokens.values()],
    )


def raw_image(message: ImageMessage) -> RawImage:
    """A picture as sensing takes it; its bytes are not copied."""
    return RawImage(
        encoding=message.encoding,
        width=message.width,
        height=message.height,
        step=message.step,
        is_bigendian=bool(message.is_bigendian),
        data=message.data,
    )


def xyz(vector: Vector3 | Point) -> tuple[float, float, float]:
    return vector.x, vector.y, vector.z
