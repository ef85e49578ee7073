"""Everything a plan is published as, and the pictures of it that are built only for those who look."""

from collections.abc import Callable
from functools import partial

import cv2
from nav_msgs.msg import Path
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import String
from visualization_msgs.msg import MarkerArray

from opendrivevla_ros.core.observation import Observation
from opendrivevla_ros.core.plan import Plan
from opendrivevla_ros.core.plan import Reasoning as PlanReasoning
from opendrivevla_ros.msg import DetectedAgentArray, MapElementArray, PlannedTrajectory, Reasoning
from opendrivevla_ros.ros import conversions, qos
from opendrivevla_ros.ros.markers import plan_markers
from opendrivevla_ros.ros.overview import render_overview
from opendrivevla_ros.ros.palette import Footprint
from opendrivevla_ros.ros.worker import NewestWinsWorker

Drawing = tuple[Observation, Plan | None, str, int]  # observation, plan, status, JPEG quality
LONGEST_LIFETIME_S = 5.0


class Outputs:
    """The publishers of plans. post: runs a function in the executor's thread."""

    def __init__(
        self, endpoints: qos.Endpoints, footprint: Footprint, post: Callable[[Callable[[], None]], None]
    ) -> None:
        self._footprint, self._post = footprint, post
        publisher, reliable = endpoints.publisher, qos.reliable
        self._trajectory = publisher(PlannedTrajectory, "~/output/trajectory", reliable(1))
        self._path = publisher(Path, "~/output/path", reliable(1))
        self._reasoning = publisher(Reasoning, "~/output/reasoning", reliable(10))
        self._agents = publisher(DetectedAgentArray, "~/output/agents", reliable(1))
        self._map_elements = publisher(MapElementArray, "~/output/map_elements", reliable(1))
        self._markers = publisher(MarkerArray, "~/debug/markers", reliable(1))
        self._overview = publisher(CompressedImage, "~/debug/overview/compressed", reliable(1))
        self._prompt = publisher(String, "~/debug/prompt", reliable(1))
        self._artist = NewestWinsWorker[Drawing]("overview", self._draw)
        self._closed = False

    def publish(self, observation: Observation, plan: Plan, *, banner: str, period_s: float, prompt: bool) -> None:
        """One plan with all that belongs to it. banner: the node's status. period_s: between plans, lately."""
        ego = observation.ego
        self._trajectory.publish(conversions.trajectory_message(plan, ego))
        self._path.publish(conversions.path_message(plan, ego))
        self._reasoning.publish(conversions.reasoning_message(plan.reasoning, plan.stamp_ns, ego.world_frame))
        self._agents.publish(conversions.agents_message(plan, ego))
        self._map_elements.publish(conversions.map_elements_message(plan, ego))
        if prompt:
            self._prompt.publish(String(data=plan.prompt))
        if self._markers.get_subscription_count():
            lifetime = min(2 * period_s, LONGEST_LIFETIME_S)
            self._markers.publish(
                plan_markers(plan, ego, lifetime_s=lifetime, banner=banner, footprint=self._footprint)
            )

    def publish_thought(self, observation: Observation, reasoning: PlanReasoning) -> None:
        """A thought so far, before its plan is there."""
        stamp_ns, frame_id = observation.stamp_ns, observation.ego.world_frame
        self._reasoning.publish(conversions.reasoning_message(reasoning, stamp_ns, frame_id, is_final=False))

    def draw(self, observation: Observation, plan: Plan | None, *, status: str, jpeg_quality: int) -> None:
        """Draws the overview in a thread of its own if somebody looks."""
        if self._overview.get_subscription_count():
            self._artist.submit((observation, plan, status, jpeg_quality))

    def close(self) -> None:
        """Ends drawing; the publishers belong to the endpoints."""
        self._closed = True
        self._artist.stop(timeout_s=1.0)

    def _draw(self, drawing: Drawing) -> None:
        observation, plan, status, quality = drawing
        picture = render_overview(observation, plan, status=status, footprint=self._footprint)
        _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
        stamp = conversions.header(observation.stamp_ns, observation.ego.world_frame)
        message = CompressedImage(header=stamp, format="bgr8; jpeg compressed bgr8", data=data.tobytes())
        self._post(partial(self._publish_overview, message))

    def _publish_overview(self, message: CompressedImage) -> None:
        if not self._closed:
            self._overview.publish(message)
