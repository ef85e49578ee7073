"""The pictures of a drive: overviews as the node drew them, a GIF of them, and bird's-eye views of what was true."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from opendrivevla_ros.core.plan import MapElement, Plan
from opendrivevla_ros.datasets.bag_messages import deserialize, nanoseconds
from opendrivevla_ros.datasets.bag_storage import BagMessage
from opendrivevla_ros.ros.birds_eye import BirdsEyeView
from opendrivevla_ros.ros.palette import Footprint

PICTURES = 3
GIF_WIDTH = 996
GIF_FRAME_MS = 500
BIRDS_EYE = (720, 720)
ODOMETRY, TRAJECTORY = "/vla_node/input/odometry", "/vla_node/output/trajectory"


def write_overviews(output: Path, overviews: Sequence[bytes]) -> list[str]:
    """Some of the overviews, from the later part of the drive, where the node has seen something; their names."""
    _clear(output, "overview_*.png")
    chosen = np.linspace(len(overviews) // 4, len(overviews) - 1, PICTURES).round().astype(int)
    names = []
    for number, index in enumerate(sorted(set(chosen)) if overviews else [], start=1):
        names.append(f"overview_{number}.png")
        cv2.imwrite(str(output / names[-1]), _decoded(overviews[index]))
    return names


def write_gif(output: Path, overviews: Sequence[bytes]) -> list[str]:
    """All overviews, one after another, in drive.gif; its name."""
    from PIL import Image

    _clear(output, "drive.gif")
    frames = []
    for overview in overviews:
        picture = _decoded(overview)
        size = (GIF_WIDTH, round(picture.shape[0] * GIF_WIDTH / picture.shape[1]))
        small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        rgb = Image.fromarray(cv2.cvtColor(small, cv2.COLOR_BGR2RGB))
        frames.append(rgb.quantize(128, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE))
    if not frames:
        return []
    frames[0].save(output / "drive.gif", save_all=True, append_images=frames[1:], duration=GIF_FRAME_MS, loop=0)
    return ["drive.gif"]


def write_birds_eyes(output: Path, messages: Sequence[BagMessage], *, agents: str, roads: str) -> list[str]:
    """Road users and road as they truly were, the plan, and the way that was driven; names of the pictures.

    agents, roads: the topics of the truth, in the odometry's frame.
    """
    from opendrivevla_ros.ros.received import agents_of, map_elements_of, pose_matrix, trajectory_of

    _clear(output, "birds_eye_*.png")
    truth, plans, poses = _by_stamp(messages, agents), _by_stamp(messages, TRAJECTORY), _by_stamp(messages, ODOMETRY)
    road = next((deserialize(m.data, m.type) for m in messages if m.topic == roads), None)
    stamps = [stamp for stamp in plans if stamp in truth and stamp in poses]
    if road is None or not stamps:
        return []
    way = np.array([[m.pose.pose.position.x, m.pose.pose.position.y] for m in poses.values()])
    names = []
    for number, index in enumerate(np.linspace(len(stamps) // 4, len(stamps) - 1, PICTURES).astype(int), start=1):
        stamp = stamps[index]
        pose = pose_matrix(poses[stamp].pose.pose)
        driven = (np.column_stack([way, np.zeros(len(way)), np.ones(len(way))]) @ np.linalg.inv(pose).T)[:, :2]
        plan = Plan(
            stamp_ns=stamp,
            trajectory=trajectory_of(plans[stamp], pose, poses[stamp].twist.twist.linear.x),
            confidence=1.0,
            agents=agents_of(truth[stamp], pose),
            map_elements=(*map_elements_of(road, pose), MapElement("driven", 1.0, driven)),
        )
        names.append(f"birds_eye_{number}.png")
        cv2.imwrite(str(output / names[-1]), BirdsEyeView(BIRDS_EYE).draw(plan, Footprint()))
    return names


def _by_stamp(messages: Sequence[BagMessage], topic: str) -> dict[int, Any]:
    """The messages of a topic by the stamp in their header, nanoseconds."""
    found = [deserialize(message.data, message.type) for message in messages if message.topic == topic]
    return {nanoseconds(message.header.stamp): message for message in found}


def _decoded(picture: bytes) -> Any:
    return cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)


def _clear(output: Path, pattern: str) -> None:
    for old in output.glob(pattern):
        old.unlink()
