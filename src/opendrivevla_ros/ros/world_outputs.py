"""What world_node publishes: the vehicle's sensors, the route's command, the clock, and the truth."""

import cv2
import numpy as np
from geometry_msgs.msg import Vector3
from nav_msgs.msg import Odometry
from rclpy.duration import Duration
from rclpy.node import Node
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage
from std_msgs.msg import Header
from visualization_msgs.msg import MarkerArray

from opendrivevla_ros.core.geometry import Array
from opendrivevla_ros.core.rig import CameraCalibration, CameraRig
from opendrivevla_ros.msg import DetectedAgent, DetectedAgentArray, DrivingCommand, MapElementArray, WorldStatus
from opendrivevla_ros.msg import MapElement as MapElementMessage
from opendrivevla_ros.ros import qos
from opendrivevla_ros.ros.conversions import header, point_message, pose_message, time_message
from opendrivevla_ros.ros.world_drive import WORLD_FRAME, WorldDrive
from opendrivevla_ros.ros.world_markers import truth_markers
from opendrivevla_ros.world.image_effects import ImageEffects
from opendrivevla_ros.world.renderer import Renderer
from opendrivevla_ros.world.state import Actor, Ego, RoadMap

SENSOR = ImageEffects(noise=1.0)  # who stands still would send the same bytes again, as only a frozen camera does
JPEG_QUALITY = 92
BASE_FRAME = "base_link"
FLUSH_S = 2.0


class WorldOutputs:
    """The publishers of world_node. epoch_ns: the stamp at which the world's time is 0."""

    def __init__(self, node: Node, drive: WorldDrive, rig: CameraRig, *, epoch_ns: int) -> None:
        self._drive, self._rig, self._epoch_ns = drive, rig, epoch_ns
        scenario = drive.world.scenario
        self._renderer = Renderer(rig)
        self._renderer.render(drive.world.state)  # builds the place before time begins
        self._roads = _map_message(scenario.road, header(epoch_ns, WORLD_FRAME))
        publisher = qos.Endpoints(node).publisher
        self._clock = publisher(Clock, "/clock", qos.reliable(10))
        names = [camera.name for camera in rig.cameras]
        self._images = {
            name: publisher(CompressedImage, f"~/output/{name}/image/compressed", qos.reliable(5)) for name in names
        }
        self._infos = {name: publisher(CameraInfo, f"~/output/{name}/camera_info", qos.reliable(5)) for name in names}
        self._odometry = publisher(Odometry, "~/output/odometry", qos.reliable(100))
        self._command = publisher(DrivingCommand, "~/output/command", qos.latched())
        self._status = publisher(WorldStatus, "~/truth/status", qos.latched())
        self._agents = publisher(DetectedAgentArray, "~/truth/agents", qos.reliable(10))
        self._map = publisher(MapElementArray, "~/truth/map_elements", qos.latched())
        self._markers = publisher(MarkerArray, "~/truth/markers", qos.reliable(1))
        self._map.publish(self._roads)

    def lacking(self, readers: int) -> list[str]:
        """The topics of the clock and the sensors that have fewer readers than that."""
        needed = [self._clock, *self._images.values(), *self._infos.values(), self._odometry]
        return [p.topic_name for p in needed if p.get_subscription_count() < readers]

    def publish_clock(self) -> None:
        self._clock.publish(Clock(clock=time_message(self._stamp_ns)))

    def publish_odometry(self) -> None:
        self._odometry.publish(odometry_message(self._drive.ego, self._header()))

    def publish_command(self) -> None:
        self._command.publish(DrivingCommand(header=self._header(), command=self._drive.world.command.value))

    def publish_pictures(self) -> None:
        """Draws what the cameras see; only at a step, where the world's state is true now."""
        pictures = self._renderer.render(self._drive.world.state, SENSOR)
        for camera, picture in zip(self._rig.cameras, pictures, strict=True):
            stamp = header(self._stamp_ns, camera.name)
            _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
            self._infos[camera.name].publish(camera_info_message(camera, stamp))
            self._images[camera.name].publish(CompressedImage(header=stamp, format="jpeg", data=data.tobytes()))

    def publish_truth(self) -> None:
        """The road users, and markers if somebody looks; only at a step."""
        world = self._drive.world
        agents = DetectedAgentArray(header=self._header(), agents=[_agent(actor) for actor in world.traffic.actors()])
        self._agents.publish(agents)
        if self._markers.get_subscription_count():
            route = world.scenario.route.path.points
            self._markers.publish(truth_markers(agents, self._drive.ego, self._roads, route))

    def publish_status(self, *, waiting_for: str = "") -> None:
        """waiting_for: why time stands still; empty when it runs."""
        drive, scenario = self._drive, self._drive.world.scenario
        self._status.publish(
            WorldStatus(
                header=self._header(),
                state=WorldStatus.WAITING if waiting_for else drive.state.value,
                reason=waiting_for or drive.complaint,
                family=scenario.family,
                seed=scenario.seed,
                elapsed=drive.time_ns * 1e-9,
                time_limit=float(drive.time_limit_s),
                completion=drive.completion,
                collision=drive.collision,
                off_road=drive.off_road,
                lateral=drive.world.lateral,
                plans=drive.plans,
                refusals=drive.refusals,
                refusal=drive.refusal,
            )
        )

    def close(self) -> None:
        """Waits until the readers have the last word, and gives the picture memory back."""
        self._status.wait_for_all_acked(Duration(seconds=FLUSH_S))
        self._renderer.close()

    @property
    def _stamp_ns(self) -> int:
        return self._epoch_ns + self._drive.time_ns

    def _header(self) -> Header:
        return header(self._stamp_ns, WORLD_FRAME)


def odometry_message(ego: Ego, stamp: Header) -> Odometry:
    """Pose of base_link in the world, twist in base_link."""
    message = Odometry(header=stamp, child_frame_id=BASE_FRAME)
    message.pose.pose = pose_message(ego.base_to_world)
    message.twist.twist.linear.x = float(ego.speed)
    message.twist.twist.angular.z = float(ego.yaw_rate)
    return message


def camera_info_message(camera: CameraCalibration, stamp: Header) -> CameraInfo:
    """A pinhole without distortion."""
    projection = np.column_stack([camera.intrinsics, np.zeros(3)])
    return CameraInfo(
        header=stamp,
        width=camera.width,
        height=camera.height,
        distortion_model="plumb_bob",
        d=[0.0] * 5,
        k=camera.intrinsics.ravel(),
        r=np.eye(3).ravel(),
        p=projection.ravel(),
    )


def _agent(actor: Actor) -> DetectedAgent:
    length, width, height = (float(value) for value in actor.size)
    pose = actor.pose
    pose[2, 3] = height / 2
    vx, vy = (float(value) for value in actor.velocity)
    return DetectedAgent(
        track_id=actor.id,
        label=actor.category.detection_name,
        score=1.0,
        pose=pose_message(pose),
        size=Vector3(x=length, y=width, z=height),
        velocity=Vector3(x=vx, y=vy),
    )


def _map_message(road: RoadMap, stamp: Header) -> MapElementArray:
    def element(label: str, points: Array, closed: bool) -> MapElementMessage:
        ground = np.column_stack([points, np.zeros(len(points))])
        return MapElementMessage(label=label, score=1.0, closed=closed, points=[point_message(p) for p in ground])

    elements = [element("drivable_area", polygon, closed=True) for polygon in road.drivable]
    elements += [element("boundary", line, closed=False) for line in road.boundaries]
    elements += [element("divider", divider.points, closed=False) for divider in road.dividers]
    elements += [element("ped_crossing", polygon, closed=True) for polygon in road.crosswalks]
    return MapElementArray(header=stamp, elements=elements)
