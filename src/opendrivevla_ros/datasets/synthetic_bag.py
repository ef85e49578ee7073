"""A six-camera bag of a street that exists only in numbers: for the demo and for tests, since no data set may ship."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from opendrivevla_ros.core.geometry import invert, yaw_of
from opendrivevla_ros.core.rig import CameraRig
from opendrivevla_ros.datasets.bag_messages import header, message
from opendrivevla_ros.datasets.bags import RIG_FILE, BagWriter
from opendrivevla_ros.datasets.sensor_messages import camera_info, compressed_image, odometry
from opendrivevla_ros.datasets.synthetic_street import Street, StreetCamera, street_rig
from opendrivevla_ros.sensing.calibration import save_rig

START_NS = 1_700_000_000_000_000_000
CAMERA_PERIOD_NS = 83_333_333  # 12 Hz
ODOMETRY_PERIOD_NS = 10_000_000
COMMAND_PERIOD_NS = 1_000_000_000
IMAGE_LATENCY_NS = 12_000_000
ODOMETRY_LATENCY_NS = 1_000_000
JPEG_QUALITY = 88
# nuScenes triggers each camera as the lidar sweeps past it; stamps against cam_front, nanoseconds.
STAMP_OFFSETS_NS = {
    "cam_front_left": -7_600_000,
    "cam_front": 0,
    "cam_front_right": 7_900_000,
    "cam_back_right": 15_700_000,
    "cam_back": 25_100_000,
    "cam_back_left": 34_900_000,
}


class _Entry(NamedTuple):
    """A message on its way into the bag. make: builds it; slow for images, so it runs on a pool."""

    received_ns: int
    topic: str
    make: Callable[[], Any]


def write_synthetic_bag(
    path: str | Path,
    *,
    duration_s: float = 7.0,
    image_size: tuple[int, int] = (800, 450),
    seed: int = 0,
    storage: str = "mcap",
    node: str = "/vla_node",
    progress: Callable[[float], None] = lambda fraction: None,
) -> CameraRig:
    """Writes a bag with everything the inference node takes, on the topics of `node`, with its rig in RIG_FILE.

    Six JPEG cameras at 12 Hz with stamps that differ as in nuScenes, camera_info with each, odometry at 100 Hz, and
    the command KEEP_FORWARD once a second. The same arguments give the same messages.
    progress: called with the fraction done.
    """
    rig = street_rig(*image_size)
    street = Street(Street.ego_speed * duration_s + 20.0, seed)
    inputs = f"{node}/input"
    entries = [*_images(rig, street, inputs, duration_s), *_odometry(street, inputs, duration_s)]
    entries.extend(_commands(inputs, duration_s))
    entries.sort(key=lambda entry: (entry.received_ns, entry.topic))
    with BagWriter(path, storage) as bag, ThreadPoolExecutor(2) as pool:
        bag.add_topic(f"{inputs}/command", "opendrivevla_ros/msg/DrivingCommand", latched=True)
        made = pool.map(lambda entry: entry.make(), entries)
        for index, (entry, instance) in enumerate(zip(entries, made, strict=True)):
            bag.write(entry.topic, instance, entry.received_ns)
            progress((index + 1) / len(entries))
    save_rig(rig, Path(path) / RIG_FILE, comment="The cameras of a street that exists only in numbers.")
    return rig


def _images(rig: CameraRig, street: Street, inputs: str, duration_s: float) -> Iterator[_Entry]:
    for calibration in rig.cameras:
        camera, name = StreetCamera(calibration), calibration.name
        for frame in range(int(duration_s * 1e9 / CAMERA_PERIOD_NS)):
            since_ns = 50_000_000 + frame * CAMERA_PERIOD_NS + STAMP_OFFSETS_NS[name]
            stamp_ns = START_NS + since_ns

            def picture(camera: StreetCamera = camera, since_ns: int = since_ns, name: str = name) -> Any:
                image = street.draw(camera, since_ns / 1e9)
                data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
                return compressed_image(data, stamp_ns=START_NS + since_ns, frame=name)

            def info(calibration: Any = calibration, stamp_ns: int = stamp_ns) -> Any:
                return camera_info(calibration, stamp_ns)

            yield _Entry(stamp_ns + IMAGE_LATENCY_NS - 1, f"{inputs}/{name}/camera_info", info)
            yield _Entry(stamp_ns + IMAGE_LATENCY_NS, f"{inputs}/{name}/image/compressed", picture)


def _odometry(street: Street, inputs: str, duration_s: float) -> Iterator[_Entry]:
    for step in range(int(duration_s * 1e9 / ODOMETRY_PERIOD_NS) + 1):
        since_ns = step * ODOMETRY_PERIOD_NS

        def motion(since_ns: int = since_ns) -> Any:
            time_s, ahead_s = since_ns / 1e9, 1e-3
            pose = street.ego_pose(time_s)
            moved = invert(pose) @ street.ego_pose(time_s + ahead_s)
            speed = float(np.hypot(moved[0, 3], moved[1, 3])) / ahead_s
            turn = yaw_of(moved) / ahead_s
            return odometry(pose, linear=(speed, 0, 0), angular=(0, 0, turn), stamp_ns=START_NS + since_ns)

        yield _Entry(START_NS + since_ns + ODOMETRY_LATENCY_NS, f"{inputs}/odometry", motion)


def _commands(inputs: str, duration_s: float) -> Iterator[_Entry]:
    for since_ns in range(0, int(duration_s * 1e9), COMMAND_PERIOD_NS):

        def command(stamp_ns: int = START_NS + since_ns) -> Any:
            return message("opendrivevla_ros/msg/DrivingCommand", header=header(stamp_ns, "base_link"))

        yield _Entry(START_NS + since_ns, f"{inputs}/command", command)
