"""Where the camera rig comes from: a calibration file, or camera_info and /tf_static where tf2_ros is installed."""

import time
from collections.abc import Callable
from typing import Any

from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo

from opendrivevla_ros.core.rig import CAMERA_NAMES, CameraRig
from opendrivevla_ros.ros import qos
from opendrivevla_ros.ros.conversions import camera_info, xyz
from opendrivevla_ros.ros.parameters import ConfigurationError, Parameters
from opendrivevla_ros.sensing.calibration import CalibrationError, load_rig, require_fit, rig_from_infos

TF_TIMEOUT_S = 10.0


def load_checked_rig(node: Node, parameters: Parameters, keep_alive: Callable[[], None]) -> CameraRig:
    """The rig that the parameters name, fit for the model; CalibrationError or ConfigurationError says what is wrong.

    keep_alive: called every tenth of a second while the transforms are awaited.
    """
    if parameters["extrinsics"] == "tf":
        rig = _rig_from_tf(node, parameters, keep_alive)
    else:
        rig = load_rig(parameters["rig_file"])
    require_fit(rig)
    return rig


def _rig_from_tf(node: Node, parameters: Parameters, keep_alive: Callable[[], None]) -> CameraRig:
    try:
        import tf2_ros
    except ImportError:
        raise ConfigurationError(
            "parameter extrinsics is 'tf', which needs tf2_ros, and that is not installed; "
            "install ros-$ROS_DISTRO-tf2-ros or set it to 'file'"
        ) from None
    base_frame = parameters["base_frame"]
    infos: dict[str, CameraInfo] = {}
    extrinsics: dict[str, tuple[Any, Any]] = {}
    # A node and executor of their own: the node's executor is inside configure and cannot receive.
    listener = Node(f"{node.get_name()}_rig", context=node.context, use_global_arguments=False)
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(listener)
    try:
        buffer = tf2_ros.Buffer()
        tf2_ros.TransformListener(buffer, listener)
        for camera in CAMERA_NAMES:
            topic = node.resolve_topic_name(f"~/input/{camera}/camera_info")
            listener.create_subscription(
                CameraInfo, topic, lambda message, camera=camera: infos.update({camera: message}), qos.best_effort(1)
            )
        end = time.monotonic() + TF_TIMEOUT_S
        while len(extrinsics) < len(CAMERA_NAMES) and time.monotonic() < end and node.context.ok():
            executor.spin_once(timeout_sec=0.1)
            keep_alive()
            for camera, info in infos.items():
                if camera not in extrinsics and buffer.can_transform(base_frame, info.header.frame_id, Time()):
                    found = buffer.lookup_transform(base_frame, info.header.frame_id, Time()).transform
                    q = found.rotation
                    extrinsics[camera] = (xyz(found.translation), (q.x, q.y, q.z, q.w))
    finally:
        executor.shutdown()
        listener.destroy_node()
    missing = [camera for camera in CAMERA_NAMES if camera not in extrinsics]
    if missing:
        raise CalibrationError(_what_is_missing(missing, infos, base_frame))
    plain = {camera: camera_info(info) for camera, info in infos.items()}
    return rig_from_infos(plain, extrinsics, rectified=parameters["rectified"])


def _what_is_missing(missing: list[str], infos: dict[str, CameraInfo], base_frame: str) -> str:
    lines = [f"after {TF_TIMEOUT_S:.0f} s the rig is not complete:"]
    for camera in missing:
        if camera in infos:
            lines.append(f"  {camera}: no transform from {infos[camera].header.frame_id!r} to {base_frame!r}")
        else:
            lines.append(f"  {camera}: no camera_info")
    return "\n".join(lines)
