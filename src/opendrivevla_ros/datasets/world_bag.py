"""A bag of the world's expert driving a scenario, as it would be recorded on a vehicle: no data set may ship."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2

from opendrivevla_ros.core.rig import CameraRig
from opendrivevla_ros.datasets.bag_messages import header, message
from opendrivevla_ros.datasets.bags import RIG_FILE, BagWriter
from opendrivevla_ros.datasets.sensor_messages import camera_info, compressed_image, odometry
from opendrivevla_ros.datasets.world_labels import moved
from opendrivevla_ros.datasets.world_samples import START_NS
from opendrivevla_ros.sensing.calibration import save_rig
from opendrivevla_ros.world.expert import expert_command
from opendrivevla_ros.world.families import make_scenario
from opendrivevla_ros.world.outcome import STEP_S
from opendrivevla_ros.world.renderer import Renderer
from opendrivevla_ros.world.rig import STAMP_OFFSETS_NS, nuscenes_rig
from opendrivevla_ros.world.simulation import World
from opendrivevla_ros.world.state import Ego
from opendrivevla_ros.world.vehicle import EgoCommand, step_ego

STEP_NS = round(STEP_S * 1e9)  # between the pictures of one camera
ODOMETRY_NS = STEP_NS // 10
COMMAND_PERIOD_NS = 1_000_000_000
IMAGE_LATENCY_NS = 12_000_000
ODOMETRY_LATENCY_NS = 1_000_000
JPEG_QUALITY = 92


class _Entry(NamedTuple):
    """A message on its way into the bag."""

    received_ns: int
    topic: str
    message: Any


def write_world_bag(
    path: str | Path,
    *,
    family: str = "bend",
    seed: int = 0,
    duration_s: float = 7.0,
    image_size: tuple[int, int] = (448, 252),
    storage: str = "mcap",
    node: str = "/vla_node",
    progress: Callable[[float], None] = lambda fraction: None,
) -> CameraRig:
    """Writes a bag with everything that vla_node takes, on the topics of `node`, with its rig in RIG_FILE.

    Six JPEG cameras at 10 Hz with stamps that differ as in nuScenes, camera_info with each, odometry at 100 Hz, and
    the route's command once a second. It ends after `duration_s` or at the route's end. The same arguments give the
    same messages. progress: called with the fraction done. Raises ValueError for a scenario that does not exist.
    """
    world, rig = World(make_scenario(family, seed)), nuscenes_rig(*image_size)
    renderer, inputs = Renderer(rig), f"{node}/input"
    steps = round(duration_s / STEP_S)
    entries: list[_Entry] = []
    for step in range(steps + 1):
        entries += _pictures(world, renderer, inputs)
        if world.time_ns % COMMAND_PERIOD_NS == 0:
            entries.append(_command(world, inputs))
        before, command = world.ego, expert_command(world)
        entries += _odometry(before, command, world.time_ns, inputs, last=step == steps)
        progress(step / max(1, steps))
        if world.finished:
            break
        world.step(STEP_S, command)
    renderer.close()
    entries.sort(key=lambda entry: (entry.received_ns, entry.topic))
    with BagWriter(path, storage) as bag:
        bag.add_topic(f"{inputs}/command", "opendrivevla_ros/msg/DrivingCommand", latched=True)
        for entry in entries:
            bag.write(entry.topic, entry.message, entry.received_ns)
    save_rig(rig, Path(path) / RIG_FILE, comment="The cameras of the synthetic world.")
    return rig


def _pictures(world: World, renderer: Renderer, inputs: str) -> Iterator[_Entry]:
    """What each camera sees at its own moment of this step, and its camera_info."""
    for camera in renderer.rig.cameras:
        offset_ns = STAMP_OFFSETS_NS[camera.name]
        stamp_ns = START_NS + world.time_ns + offset_ns
        image = renderer.render_one(camera.name, moved(world.state, offset_ns * 1e-9))
        data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
        received_ns, topic = stamp_ns + IMAGE_LATENCY_NS, f"{inputs}/{camera.name}"
        yield _Entry(received_ns - 1, f"{topic}/camera_info", camera_info(camera, stamp_ns))
        picture = compressed_image(data, stamp_ns=stamp_ns, frame=camera.name)
        yield _Entry(received_ns, f"{topic}/image/compressed", picture)


def _odometry(start: Ego, command: EgoCommand, start_ns: int, inputs: str, *, last: bool) -> Iterator[_Entry]:
    """The vehicle's motion from the start of a step to before the next; of the last one, its start alone."""
    for since_ns in range(0, 1 if last else STEP_NS, ODOMETRY_NS):
        ego = step_ego(start, command, since_ns * 1e-9) if since_ns else start
        stamp_ns = START_NS + start_ns + since_ns
        motion = odometry(
            ego.base_to_world, linear=(ego.speed, 0.0, 0.0), angular=(0.0, 0.0, ego.yaw_rate), stamp_ns=stamp_ns
        )
        yield _Entry(stamp_ns + ODOMETRY_LATENCY_NS, f"{inputs}/odometry", motion)


def _command(world: World, inputs: str) -> _Entry:
    stamp_ns = START_NS + world.time_ns
    stamp, value = header(stamp_ns, "base_link"), world.command.value
    command = message("opendrivevla_ros/msg/DrivingCommand", header=stamp, command=value)
    return _Entry(stamp_ns, f"{inputs}/command", command)
