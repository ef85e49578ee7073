"""Where the camera rig comes from: a calibration file, or camera_info with such a file or /tf_static (tf2_ros)."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo

from opendrivevla_ros.core.rig import CAMERA_NAMES, CameraRig
from opendrivevla_ros.ros import qos
from opendrivevla_ros.ros.conversions import xyz
from opendrivevla_ros.ros.parameters import ConfigurationError, Parameters
from opendrivevla_ros.sensing.calibration import (
    CalibrationError,
    load_extrinsics,
    load_rig,
    require_fit,
    rig_from_infos,
)
from opendrivevla_ros.sensing.calibration import CameraInfo as PlainCameraInfo

INFO_TIMEOUT_S = 10.0
Place = tuple[Any, Any]  # translation and quaternion xyzw of an optical frame in base_link
Locate = Callable[[str, CameraInfo], Place | None]


def load_checked_rig(node: Node, parameters: Parameters, keep_alive: Callable[[], None]) -> CameraRig:
    """The rig that the parameters name, fit for the model; CalibrationError or ConfigurationError says what is wrong.

    keep_alive: called every tenth of a second while camera_info and transforms are awaited.
    """
    if parameters["extrinsics"] == "tf":
        base_frame = parameters["base_frame"]
        rig = _from_camera_info(node, parameters, keep_alive, lambda listener: _transforms(listener, base_frame))
    elif parameters["intrinsics"] == "camera_info":
        places, lidar_to_base = load_extrinsics(parameters["rig_file"])
        rig = _from_camera_info(node, parameters, keep_alive, lambda _: lambda camera, _: places[camera])
        rig = replace(rig, lidar_to_base=lidar_to_base)
    else:
        rig = load_rig(parameters["rig_file"])
    require_fit(rig)
    return rig


def _transforms(listener: Node, base_frame: str) -> Locate:
    """Looks cameras up in /tf_static, by the frame of their camera_info."""
    try:
        import tf2_ros
    except ImportError:
        raise ConfigurationError(
            "parameter extrinsics is 'tf', which needs tf2_ros, and that is not installed; "
            "install ros-$ROS_DISTRO-tf2-ros or set it to 'file'"
        ) from None
    buffer = tf2_ros.Buffer()
    tf2_ros.TransformListener(buffer, listener)  # the listening node keeps its subscriptions

    def locate(camera: str, info: CameraInfo) -> Place | None:
        if not buffer.can_transform(base_frame, info.header.frame_id, Time()):
            return None
        found = buffer.lookup_transform(base_frame, info.header.frame_id, Time()).transform
        q = found.rotation
        return xyz(found.translation), (q.x, q.y, q.z, q.w)

    return locate


def _from_camera_info(
    node: Node, parameters: Parameters, keep_alive: Callable[[], None], locating: Callable[[Node], Locate]
) -> CameraRig:
    """Waits for every camera's camera_info and place."""
    infos: dict[str, CameraInfo] = {}
    extrinsics: dict[str, Place] = {}
    # A node and executor of their own: the node's executor is inside configure and cannot receive.
    listener = Node(f"{node.get_name()}_rig", context=node.context, use_global_arguments=False)
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(listener)
    try:
        locate = locating(listener)
        for camera in CAMERA_NAMES:
            topic = node.resolve_topic_name(f"~/input/{camera}/camera_info")
            listener.create_subscription(
                CameraInfo, topic, lambda message, camera=camera: infos.update({camera: message}), qos.best_effort(1)
            )
        end = time.monotonic() + INFO_TIMEOUT_S
        while len(extrinsics) < len(CAMERA_NAMES) and time.monotonic() < end and node.context.ok():
            executor.spin_once(timeout_sec=0.1)
            keep_alive()
            for camera, info in infos.items():
                place = None if camera in extrinsics else locate(camera, info)
                if place is not None:
                    extrinsics[camera] = place
    finally:
        executor.shutdown()
        listener.destroy_node()
    missing = [camera for camera in CAMERA_NAMES if camera not in extrinsics]
    if missing:
        raise CalibrationError(_what_is_missing(missing, infos, parameters["base_frame"]))
    plain = {camera: PlainCameraInfo.of(info) for camera, info in infos.items()}
    return rig_from_infos(plain, extrinsics, rectified=parameters["rectified"])


def _what_is_missing(missing: list[str], infos: dict[str, CameraInfo], base_frame: str) -> str:
    lines = [f"after {INFO_TIMEOUT_S:.0f} s the rig is not complete:"]
    for camera in missing:
        if camera in infos:
            lines.append(f"  {camera}: no transform from {infos[camera].header.frame_id!r} to {base_frame!r}")
        else:
            lines.append(f"  {camera}: no camera_info")
    return "\n".join(lines)
