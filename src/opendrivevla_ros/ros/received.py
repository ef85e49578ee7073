"""From messages back to core's words: the inverse of `conversions`. Pure functions: no node, no clock."""

import numpy as np
from geometry_msgs.msg import Point, Pose
from nav_msgs.msg import Odometry

from opendrivevla_ros.core.geometry import Array, apply, invert, transform, yaw_of
from opendrivevla_ros.core.plan import Agent, MapElement
from opendrivevla_ros.core.trajectory import Trajectory
from opendrivevla_ros.msg import DetectedAgentArray, MapElementArray, PlannedTrajectory
from opendrivevla_ros.ros.conversions import nanoseconds, xyz
from opendrivevla_ros.sensing.odometry import OdometryBuffer
from opendrivevla_ros.sensing.refusals import Refused


def pose_matrix(pose: Pose) -> Array:
    """A pose as a 4x4 transform. Raises ValueError for a quaternion of no length."""
    q = pose.orientation
    return transform(xyz(pose.position), (q.x, q.y, q.z, q.w))


def add_odometry(buffer: OdometryBuffer, message: Odometry) -> Refused | None:
    """Takes odometry into a buffer; see `OdometryBuffer.add` for what it returns."""
    pose, twist = message.pose.pose, message.twist.twist
    q = pose.orientation
    return buffer.add(
        nanoseconds(message.header.stamp),
        position=xyz(pose.position),
        quaternion_xyzw=(q.x, q.y, q.z, q.w),
        linear=xyz(twist.linear),
        angular=xyz(twist.angular),
        frame_id=message.header.frame_id,
        child_frame_id=message.child_frame_id,
    )


def trajectory_of(message: PlannedTrajectory, base_to_world: Array, speed: float) -> Trajectory:
    """The planned points in base_link at the stamp, whose pose then was `base_to_world`, and speed `speed` (m/s).

    Headings and speeds follow from the points and their times. Raises ValueError for points that are no plan.
    """
    times = [point.time_from_start.sec + point.time_from_start.nanosec * 1e-9 for point in message.points]
    world = np.array([xyz(point.pose.position) for point in message.points]).reshape(-1, 3)
    covariance = np.array([point.position_covariance for point in message.points]).reshape(-1, 2, 2)
    turn = base_to_world[:2, :2]
    base = apply(invert(base_to_world), world)
    return Trajectory.from_waypoints(times, base[:, :2], speed, turn.T @ covariance @ turn)


def agents_of(message: DetectedAgentArray, base_to_world: Array) -> tuple[Agent, ...]:
    """The road users in base_link, whose pose is `base_to_world`."""
    to_base = invert(base_to_world)
    agents = []
    for agent in message.agents:
        pose = to_base @ pose_matrix(agent.pose)
        predicted = np.array([xyz(point) for point in agent.predicted_path]).reshape(-1, 3)
        agents.append(
            Agent(
                track_id=agent.track_id,
                label=agent.label,
                score=agent.score,
                position=pose[:3, 3],
                size=np.array(xyz(agent.size)),
                yaw=yaw_of(pose),
                velocity=(to_base[:3, :3] @ xyz(agent.velocity))[:2],
                predicted=apply(to_base, predicted)[:, :2],
            )
        )
    return tuple(agents)


def map_elements_of(message: MapElementArray, base_to_world: Array) -> tuple[MapElement, ...]:
    """The polylines in base_link, whose pose is `base_to_world`."""
    to_base = invert(base_to_world)
    return tuple(
        MapElement(element.label, element.score, apply(to_base, _points(element.points))[:, :2], element.closed)
        for element in message.elements
    )


def _points(points: list[Point]) -> Array:
    return np.array([xyz(point) for point in points]).reshape(-1, 3)
