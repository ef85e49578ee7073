"""ROS messages without ROS: the type store of bags, with this package's own messages, and short ways to build one."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from opendrivevla_ros.core.geometry import Array, quaternion

PACKAGE = "opendrivevla_ros"


def interface_folder() -> Path:
    """The folder of this package's `.msg` files: in the source tree, or below an install prefix.

    Raises FileNotFoundError when neither is there.
    """
    for folder in Path(__file__).absolute().parents:
        for candidate in (folder / "msg", folder / "share" / PACKAGE / "msg"):
            if (candidate / "PlannedTrajectory.msg").is_file():
                return candidate
    message = f"the .msg files of {PACKAGE} are not beside {__file__} nor in a share/{PACKAGE}/msg above it; reinstall"
    raise FileNotFoundError(message)


@functools.cache
def typestore() -> Typestore:
    """ROS 2 Jazzy's message types and this package's own."""
    store = get_typestore(Stores.ROS2_JAZZY)
    types: dict[str, Any] = {}
    for path in sorted(interface_folder().glob("*.msg")):
        types.update(get_types_from_msg(path.read_text(), f"{PACKAGE}/msg/{path.stem}"))
    store.register(types)
    return store


def message(type_name: str, **fields: Any) -> Any:
    """A message of `type_name` ("std_msgs/msg/Header"); fields that are not given are zero or empty, as in ROS.

    Raises TypeError for a field that the type does not have.
    """
    store = typestore()
    definitions = store.fielddefs[type_name][1]
    unknown = fields.keys() - {name for name, _ in definitions}
    if unknown:
        raise TypeError(f"{type_name} has no field {sorted(unknown)}")
    if type_name == "geometry_msgs/msg/Quaternion":
        fields = {"w": 1.0, **fields}  # the one default of ROS that is not zero
    values = {name: _value(fields[name], kind) if name in fields else _default(kind) for name, kind in definitions}
    return store.types[type_name](**values)


def _value(value: Any, kind: Any) -> Any:
    """A field's value as the type store takes it: numbers in a sequence come as an array of the right type."""
    dtype = _dtype(kind)
    return value if dtype is None else np.asarray(value, dtype=dtype)


def _default(kind: Any) -> Any:
    node, detail = kind
    if node == Nodetype.NAME:
        return message(detail)
    if node == Nodetype.BASE:
        return {"string": "", "bool": False}.get(detail[0], 0.0 if detail[0].startswith("float") else 0)
    element, limit = detail
    count = limit if node == Nodetype.ARRAY else 0
    dtype = _dtype(kind)
    return [_default(element) for _ in range(count)] if dtype is None else np.zeros(count, dtype=dtype)


def _dtype(kind: Any) -> Any:
    """The numpy type of an array or a sequence of numbers; None for every other kind of field."""
    node, detail = kind
    if node not in (Nodetype.ARRAY, Nodetype.SEQUENCE):
        return None
    (element, name), _ = detail
    if element == Nodetype.NAME or name[0] == "string":
        return None
    return {"bool": np.bool_, "byte": np.uint8, "char": np.uint8}.get(name[0], name[0])


def serialize(instance: Any) -> bytes:
    """The CDR bytes of a message."""
    return bytes(typestore().serialize_cdr(instance, instance.__msgtype__))


def deserialize(data: bytes, type_name: str) -> Any:
    """The message in CDR bytes. Raises rosbags' SerdeError for bytes that are not a message of this type."""
    return typestore().deserialize_cdr(data, type_name)


def time(stamp_ns: int) -> Any:
    """builtin_interfaces/Time of nanoseconds."""
    return message("builtin_interfaces/msg/Time", sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)


def duration(duration_ns: int) -> Any:
    """builtin_interfaces/Duration of nanoseconds."""
    return message("builtin_interfaces/msg/Duration", sec=duration_ns // 10**9, nanosec=duration_ns % 10**9)


def nanoseconds(stamp: Any) -> int:
    """Nanoseconds of a Time or Duration."""
    return int(stamp.sec) * 10**9 + int(stamp.nanosec)


def header(stamp_ns: int, frame: str) -> Any:
    """std_msgs/Header."""
    return message("std_msgs/msg/Header", stamp=time(stamp_ns), frame_id=frame)


def point(xyz: ArrayLike) -> Any:
    """geometry_msgs/Point of (x, y, z), metres."""
    x, y, z = np.asarray(xyz, dtype=float).tolist()
    return message("geometry_msgs/msg/Point", x=x, y=y, z=z)


def vector(xyz: ArrayLike) -> Any:
    """geometry_msgs/Vector3 of (x, y, z)."""
    x, y, z = np.asarray(xyz, dtype=float).tolist()
    return message("geometry_msgs/msg/Vector3", x=x, y=y, z=z)


def pose(matrix: Array) -> Any:
    """geometry_msgs/Pose of a 4x4 transform."""
    turn = dict(zip("xyzw", map(float, quaternion(matrix)), strict=True))
    return message(
        "geometry_msgs/msg/Pose",
        position=point(matrix[:3, 3]),
        orientation=message("geometry_msgs/msg/Quaternion", **turn),
    )
