"""What perception found, as a plan tells it."""

from opendrivevla_ros.core.geometry import Array
from opendrivevla_ros.core.plan import Agent, MapElement
from opendrivevla_ros.perception.config import AGENT_CLASSES, PerceptionConfig
from opendrivevla_ros.perception.map_polylines import map_polylines
from opendrivevla_ros.perception.network import PerceptionOutput
from opendrivevla_ros.perception.tracker import TrackResult
from opendrivevla_ros.policies.opendrivevla import frames


def agents_of(tracks: TrackResult, mount: Array) -> tuple[Agent, ...]:
    """The tracks or detections of one look, in base_link; mount: [4, 4] lidar to base_link."""
    columns = (
        tracks.ids.tolist(),
        tracks.labels.tolist(),
        tracks.scores.tolist(),
        tracks.boxes.double().cpu().numpy(),
    )
    agents = []
    for track_id, label, score, box in zip(*columns, strict=True):
        position, size, yaw, velocity = frames.box_to_base(box, mount)
        agents.append(Agent(track_id, AGENT_CLASSES[label], score, position, size, yaw, velocity))
    return tuple(agents)


def map_elements_of(output: PerceptionOutput, config: PerceptionConfig, mount: Array) -> tuple[MapElement, ...]:
    """The road's lines of one look, in base_link; mount: [4, 4] lidar to base_link."""
    return tuple(
        MapElement(found.label, found.score, frames.line_to_base(found.line.points, mount), found.line.closed)
        for found in map_polylines(output.map, config)
    )
