"""The plan and everything seen on the way as RViz markers, in the world-fixed frame."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from builtin_interfaces.msg import Duration
from geometry_msgs.msg import Point, Vector3
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from opendrivevla_ros.core.ego import EgoState
from opendrivevla_ros.core.geometry import Array, apply
from opendrivevla_ros.core.plan import Agent, MapElement, Plan
from opendrivevla_ros.ros.conversions import (
    agent_future,
    agent_pose,
    duration_message,
    ground_points,
    header,
    point_message,
    pose_message,
    trajectory_poses,
)
from opendrivevla_ros.ros.palette import PLAN_RGB, Footprint, class_rgb

PATH_LIFT_METRES = 0.05  # above the ground, so that the line does not flicker in it


@dataclass
class _Canvas:
    """Collects markers of one header and lifetime; ids count from 0 within a namespace."""

    header: Header
    lifetime: Duration
    base_to_world: Array
    markers: list[Marker] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, namespace: str, kind: int, *, rgb: tuple[float, float, float], alpha: float = 1.0) -> Marker:
        marker = Marker(header=self.header, ns=namespace, type=kind, action=Marker.ADD, lifetime=self.lifetime)
        marker.id = self.counts[namespace]
        self.counts[namespace] += 1
        marker.color = ColorRGBA(r=rgb[0], g=rgb[1], b=rgb[2], a=alpha)
        marker.pose.orientation.w = 1.0
        self.markers.append(marker)
        return marker

    def line(
        self,
        namespace: str,
        points_base: Array,
        *,
        width: float,
        rgb: tuple[float, float, float],
        alpha: float = 1.0,
        kind: int = Marker.LINE_STRIP,
    ) -> None:
        """A line through points [N, 3] of base_link; `width` in metres."""
        marker = self.add(namespace, kind, rgb=rgb, alpha=alpha)
        marker.scale.x = width
        marker.points = self.points(points_base)

    def text(self, namespace: str, position_base: Array, text: str, *, size: float) -> None:
        """Text that faces the viewer; `size` is the height of a capital letter in metres."""
        marker = self.add(namespace, Marker.TEXT_VIEW_FACING, rgb=(1.0, 1.0, 1.0))
        marker.pose.position = self.points(np.atleast_2d(position_base))[0]
        marker.scale.z = size
        marker.text = text

    def points(self, points_base: Array) -> list[Point]:
        return [point_message(point) for point in apply(self.base_to_world, points_base)]


def plan_markers(
    plan: Plan, ego: EgoState, *, lifetime_s: float, banner: str, footprint: Footprint | None = None
) -> MarkerArray:
    """All markers of one plan, DELETEALL first.

    lifetime_s: about two planning periods, so that a silent planner's markers go away. banner: the node's status.
    """
    stamp = header(plan.stamp_ns, ego.world_frame)
    canvas = _Canvas(stamp, duration_message(lifetime_s), ego.base_to_world)
    _add_plan(canvas, plan, ego, footprint or Footprint())
    for agent in plan.agents:
        _add_agent(canvas, agent)
    for element in plan.map_elements:
        _add_map_element(canvas, element)
    if plan.reasoning.text:
        canvas.text("reasoning/text", np.array([0.0, 0.0, 3.5]), plan.reasoning.text, size=0.6)
    canvas.text("status/banner", np.array([-2.0, 0.0, 5.0]), banner, size=0.8)
    return MarkerArray(markers=[Marker(header=stamp, action=Marker.DELETEALL), *canvas.markers])


def _add_plan(canvas: _Canvas, plan: Plan, ego: EgoState, footprint: Footprint) -> None:
    xy = np.vstack([np.zeros((1, 2)), plan.trajectory.xy])
    canvas.line(
        "plan/path", ground_points(xy) + np.array([0.0, 0.0, PATH_LIFT_METRES]), width=0.35, rgb=PLAN_RGB, alpha=0.9
    )
    for pose in trajectory_poses(plan, ego):
        marker = canvas.add("plan/footprint", Marker.LINE_STRIP, rgb=PLAN_RGB, alpha=0.5)
        marker.scale.x = 0.06
        marker.points = [point_message(point) for point in apply(pose, ground_points(footprint.outline(closed=True)))]


def _add_agent(canvas: _Canvas, agent: Agent) -> None:
    rgb = class_rgb(agent.label)
    box = canvas.add("agents/box", Marker.CUBE, rgb=rgb, alpha=0.55)
    box.pose = pose_message(canvas.base_to_world @ agent_pose(agent))
    box.scale = Vector3(x=float(agent.size[0]), y=float(agent.size[1]), z=float(agent.size[2]))
    velocity = np.array([agent.velocity[0], agent.velocity[1], 0.0])
    arrow = canvas.add("agents/velocity", Marker.ARROW, rgb=rgb)
    arrow.scale = Vector3(x=0.12, y=0.3, z=0.3)
    arrow.points = canvas.points(np.stack([agent.position, agent.position + velocity]))
    future = agent_future(agent)
    if len(future):
        canvas.line("agents/future", np.vstack([agent.position, future]), width=0.15, rgb=rgb, alpha=0.7)
    above = agent.position + np.array([0.0, 0.0, agent.size[2] / 2 + 0.6])
    canvas.text("agents/label", above, f"{agent.label} {agent.track_id} ({agent.score:.2f})", size=0.5)


def _add_map_element(canvas: _Canvas, element: MapElement) -> None:
    points = ground_points(element.points)
    if element.closed:
        points = np.vstack([points, points[:1]])
    canvas.line(f"map/{element.label}", points, width=0.15, rgb=class_rgb(element.label), alpha=0.9)
