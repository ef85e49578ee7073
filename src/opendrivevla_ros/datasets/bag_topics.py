"""Which topic of a bag, or of a running system, is which input of the inference node."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from opendrivevla_ros.core.rig import CAMERA_NAMES
from opendrivevla_ros.datasets.bag_storage import BagTopic
from opendrivevla_ros.datasets.bags import BagError, BagReader

IMAGE_TYPES = ("sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/Image")  # the better first
CAMERA_INFO_TYPE = "sensor_msgs/msg/CameraInfo"
INPUT_TYPES = {
    **{f"{camera}/image": IMAGE_TYPES for camera in CAMERA_NAMES},
    **{f"{camera}/camera_info": (CAMERA_INFO_TYPE,) for camera in CAMERA_NAMES},
    "odometry": ("nav_msgs/msg/Odometry",),
    "command": ("opendrivevla_ros/msg/DrivingCommand",),
    "imu": ("sensor_msgs/msg/Imu",),
}
OPTIONAL_INPUTS = ("command", "imu")
REMEDY = "name the right ones in a topic map (--topics FILE, see config/topics/)"


@dataclass(frozen=True)
class InputTopics:
    """The bag's topic of each input, by the input's name below `~/input/`: cam_front/image, odometry, command, ..."""

    by_input: dict[str, BagTopic]

    def input_of(self, topic: str) -> str | None:
        """The input that a topic of the bag feeds; None when it feeds none."""
        return next((name for name, found in self.by_input.items() if found.name == topic), None)

    def node_topics(self, node: str) -> dict[str, str]:
        """For each topic of the bag, the topic on which `node` ("/vla_node") takes it."""
        renamed = {}
        for name, topic in self.by_input.items():
            suffix = "/compressed" if topic.type == IMAGE_TYPES[0] else ""
            renamed[topic.name] = f"{node}/input/{name}{suffix}"
        return renamed


def read_topic_map(path: str | Path) -> dict[str, str]:
    """A topic map: YAML of input name to topic name. Raises BagError for a file that is none."""
    try:
        content = yaml.safe_load(Path(path).read_text())
    except (OSError, yaml.YAMLError) as error:
        raise BagError(f"topic map {path} cannot be read ({error}); see config/topics/ for an example") from None
    if not isinstance(content, dict) or not all(isinstance(topic, str) for topic in content.values()):
        raise BagError(f"topic map {path} is not a mapping of input to topic; see config/topics/ for an example")
    unknown = sorted(set(content) - set(INPUT_TYPES))
    if unknown:
        raise BagError(f"topic map {path} names unknown inputs {unknown}; the inputs are {sorted(INPUT_TYPES)}")
    return content


def find_input_topics(bag: BagReader, topic_map: Mapping[str, str] | None = None) -> InputTopics:
    """The inputs in a bag; see `match_inputs`. Raises BagError when a needed input is missing, too."""
    inputs, missing = match_inputs(bag.topics, str(bag.path), topic_map)
    if missing:
        raise BagError(f"{bag.path} lacks {', '.join(missing)} (it has {', '.join(sorted(bag.topics))}); {REMEDY}")
    return inputs


def match_inputs(
    topics: Mapping[str, BagTopic], source: str, topic_map: Mapping[str, str] | None = None
) -> tuple[InputTopics, list[str]]:
    """The inputs among `topics` as `topic_map` says, else by type and by a camera's name in the topic; those missing.

    Compressed images come before raw ones of the same camera. source: where the topics are, for errors.
    Raises BagError when two topics could be the same input, and when the map does not fit.
    """
    found: dict[str, BagTopic] = {}
    missing: list[str] = []
    for name, types in INPUT_TYPES.items():
        chosen = topic_map.get(name) if topic_map else None
        topic = _named(topics, source, name, chosen) if chosen else _detected(topics, source, name, types)
        if topic is not None:
            found[name] = topic
        elif name not in OPTIONAL_INPUTS:
            missing.append(name)
    return InputTopics(found), missing


def _named(topics: Mapping[str, BagTopic], source: str, name: str, chosen: str) -> BagTopic:
    topic = topics.get(chosen)
    if topic is None:
        have = ", ".join(sorted(topics))
        raise BagError(f"{source} lacks topic {chosen}, which the topic map names for {name} (it has {have})")
    if topic.type not in INPUT_TYPES[name]:
        raise BagError(f"{chosen} in {source} is a {topic.type}, but {name} takes {' or '.join(INPUT_TYPES[name])}")
    return topic


def _detected(topics: Mapping[str, BagTopic], source: str, name: str, types: tuple[str, ...]) -> BagTopic | None:
    camera = name.split("/")[0] if "/" in name else None
    for type_name in types:
        fitting = [topic for topic in topics.values() if topic.type == type_name]
        if camera is not None:
            fitting = [topic for topic in fitting if _camera_of(topic.name) == camera]
        exact = [topic for topic in fitting if topic.name.removesuffix("/compressed").endswith(f"/input/{name}")]
        fitting = exact or fitting
        if len(fitting) > 1:
            names = " and ".join(topic.name for topic in fitting)
            raise BagError(f"{names} in {source} could each be {name}; {REMEDY}")
        if fitting:
            return fitting[0]
    return None


def _camera_of(topic: str) -> str | None:
    """The camera with the longest name in a topic's name: cam_front_left rather than cam_front."""
    named = [camera for camera in CAMERA_NAMES if camera in topic.lower()]
    return max(named, key=len, default=None)
