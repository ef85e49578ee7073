"""The truth of the world as RViz markers, in the odometry's frame."""

from collections import Counter
from dataclasses import dataclass, field

from geometry_msgs.msg import Point, Vector3
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from opendrivevla_ros.core.geometry import Array
from opendrivevla_ros.msg import DetectedAgentArray, MapElementArray
from opendrivevla_ros.ros.conversions import pose_message
from opendrivevla_ros.ros.palette import Rgb, class_rgb
from opendrivevla_ros.world.state import EGO_HEIGHT, EGO_LENGTH, EGO_WIDTH, Ego

EGO_RGB: Rgb = (0.95, 0.95, 0.95)
ROUTE_RGB: Rgb = (0.16, 0.85, 0.52)


@dataclass
class _Canvas:
    """Collects markers of one header; ids count from 0 within a namespace."""

    header: Header
    markers: list[Marker] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, namespace: str, kind: int, rgb: Rgb) -> Marker:
        marker = Marker(header=self.header, ns=namespace, id=self.counts[namespace], type=kind, action=Marker.ADD)
        self.counts[namespace] += 1
        marker.color = ColorRGBA(r=rgb[0], g=rgb[1], b=rgb[2], a=0.9)
        marker.pose.orientation.w = 1.0
        self.markers.append(marker)
        return marker

    def line(self, namespace: str, points: list[Point], rgb: Rgb, width: float) -> None:
        marker = self.add(namespace, Marker.LINE_STRIP, rgb)
        marker.scale.x, marker.points = width, points


def truth_markers(agents: DetectedAgentArray, ego: Ego, roads: MapElementArray, route: Array) -> MarkerArray:
    """Everybody as boxes with their class, the vehicle, its route [N, 2], and the road; DELETEALL first."""
    canvas = _Canvas(agents.header)
    for element in roads.elements:
        points = [*element.points, element.points[0]] if element.closed else list(element.points)
        canvas.line(f"map/{element.label}", points, class_rgb(element.label), 0.15)
    canvas.line("route", [Point(x=float(x), y=float(y), z=0.02) for x, y in route], ROUTE_RGB, 0.1)
    for agent in agents.agents:
        box = canvas.add("agents/box", Marker.CUBE, class_rgb(agent.label))
        box.pose, box.scale = agent.pose, agent.size
        label = canvas.add("agents/label", Marker.TEXT_VIEW_FACING, (1.0, 1.0, 1.0))
        label.pose.position = Point(x=agent.pose.position.x, y=agent.pose.position.y, z=agent.size.z + 0.6)
        label.scale.z, label.text = 0.5, f"{agent.label} {agent.track_id}"
    body = canvas.add("ego/box", Marker.CUBE, EGO_RGB)
    body.pose = pose_message(ego.base_to_world)
    body.pose.position.x, body.pose.position.y = (float(value) for value in ego.centre)
    body.pose.position.z = EGO_HEIGHT / 2
    body.scale = Vector3(x=EGO_LENGTH, y=EGO_WIDTH, z=EGO_HEIGHT)
    return MarkerArray(markers=[Marker(header=agents.header, action=Marker.DELETEALL), *canvas.markers])
