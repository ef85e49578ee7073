"""A small observation and plan with something of everything, for tests of what they are turned into."""

import numpy as np
from ros.harness import synthetic_rig

from opendrivevla_ros.core.ego import DrivingCommand, EgoState
from opendrivevla_ros.core.geometry import transform
from opendrivevla_ros.core.observation import CameraFrame, Observation
from opendrivevla_ros.core.plan import Agent, MapElement, Plan, Reasoning, ThinkingMode
from opendrivevla_ros.core.trajectory import Trajectory

STAMP_NS = 1_600_000_000_250_000_000
TIMES = np.arange(1, 7) * 0.5


def ego(yaw: float = 0.0) -> EgoState:
    """At (100, 50, 2) in the map frame of the odometry, heading along yaw, 8 m/s."""
    pose = transform([100.0, 50.0, 2.0], [0.0, 0.0, np.sin(yaw / 2), np.cos(yaw / 2)])
    return EgoState(STAMP_NS, pose, np.array([8.0, 0, 0]), np.zeros(3), np.zeros(3), np.zeros((4, 3)))


def observation(yaw: float = 0.0) -> Observation:
    rig = synthetic_rig()
    frames = tuple(
        CameraFrame(camera.name, STAMP_NS, np.full((camera.height, camera.width, 3), 60, np.uint8))
        for camera in rig.cameras
    )
    return Observation(STAMP_NS, frames, rig, ego(yaw), DrivingCommand())


def plan() -> Plan:
    """Straight ahead at 8 m/s; a car 20 m ahead, a pedestrian behind, a divider and a crossing."""
    covariance = np.stack([np.diag([0.4 * t, 0.1 * t]) for t in TIMES])
    ahead = np.column_stack([8.0 * TIMES, np.zeros(6)])
    car = Agent(
        track_id=7,
        label="car",
        score=0.6,
        position=np.array([20.0, 1.0, 0.8]),
        size=np.array([4.0, 2.0, 1.6]),
        yaw=0.0,
        velocity=np.array([5.0, 0.0]),
        predicted=np.column_stack([20.0 + 5.0 * TIMES, np.ones(6)]),
    )
    size = np.array([0.6, 0.6, 1.7])
    pedestrian = Agent(9, "pedestrian", 0.9, np.array([-8.0, -3.0, 0.9]), size, 1.0, np.zeros(2))
    crossing = np.array([[12.0, -4.0], [15.0, -4.0], [15.0, 4.0], [12.0, 4.0]])
    return Plan(
        stamp_ns=STAMP_NS,
        trajectory=Trajectory.from_waypoints(TIMES, ahead, 8.0, covariance),
        confidence=0.75,
        reasoning=Reasoning("The road ahead is free.", ThinkingMode.AUTO, ThinkingMode.FAST),
        agents=(car, pedestrian),
        map_elements=(
            MapElement("divider", 0.8, np.array([[-10.0, 1.75], [40.0, 1.75]])),
            MapElement("ped_crossing", 0.7, crossing, closed=True),
        ),
        stage_times={"network": 0.2, "language": 0.1},
    )
