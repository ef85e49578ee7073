"""Message packages for a Python without ROS, so that the conversions written for ROS messages serve bags as well."""

import importlib.util
import sys
from types import ModuleType
from typing import Any

from opendrivevla_ros.datasets.bag_messages import deserialize, message, serialize, typestore


def provide_messages() -> None:
    """Makes `import geometry_msgs.msg` and the like work where ROS is not, or this package is not built for it."""
    if "opendrivevla_ros.msg" in sys.modules:
        return
    if any(importlib.util.find_spec(name) is None for name in ("rclpy", "opendrivevla_ros.msg")):
        install_stand_ins()


def install_stand_ins() -> None:
    """Puts modules with all messages of the bags' type store in place of the message packages."""
    modules: dict[str, ModuleType] = {}
    for type_name, base in typestore().types.items():
        package, kind, name = type_name.split("/")
        module = modules.setdefault(f"{package}.{kind}", ModuleType(f"{package}.{kind}"))
        setattr(module, name, _with_defaults(type_name, base))
    for path, module in modules.items():
        package = path.split(".")[0]
        if package not in sys.modules:
            sys.modules[package] = ModuleType(package)
        sys.modules[path] = module


def message_bytes(instance: Any) -> bytes:
    """The CDR bytes of a ROS message or of a stand-in; equal messages have equal bytes."""
    if hasattr(instance, "__msgtype__"):
        return serialize(instance)
    from opendrivevla_ros.ros.serialization import message_cdr

    # ROS leaves the bytes between aligned fields as they come; rosbags sets them to zero.
    return serialize(deserialize(message_cdr(instance), message_type(instance)))


def message_type(instance: Any) -> str:
    """The type name of a ROS message or of a stand-in, "nav_msgs/msg/Path"."""
    if hasattr(instance, "__msgtype__"):
        return instance.__msgtype__
    package, kind, *_ = type(instance).__module__.split(".")
    return f"{package}/{kind}/{type(instance).__name__}"


def _with_defaults(type_name: str, base: type) -> type:
    """A type of the store whose constructor takes any of its fields, as those of ROS do."""

    def construct(self: Any, **fields: Any) -> None:
        self.__dict__.update(message(type_name, **fields).__dict__)

    return type(base.__name__, (base,), {"__init__": construct})
