"""Sensor messages for bags, and what `sensing` takes from them."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from opendrivevla_ros.core.geometry import Array
from opendrivevla_ros.core.rig import CameraCalibration
from opendrivevla_ros.datasets.bag_messages import header, message, pose, vector
from opendrivevla_ros.sensing.images import CompressedImage, EncodedImage, RawImage


def compressed_image(data: bytes, *, stamp_ns: int, frame: str) -> Any:
    """sensor_msgs/CompressedImage of JPEG bytes."""
    stamp = header(stamp_ns, frame)
    return message("sensor_msgs/msg/CompressedImage", header=stamp, format="jpeg", data=np.frombuffer(data, np.uint8))


def camera_info(camera: CameraCalibration, stamp_ns: int) -> Any:
    """sensor_msgs/CameraInfo of a pinhole camera without distortion."""
    projection = np.column_stack([camera.intrinsics, np.zeros(3)])
    return message(
        "sensor_msgs/msg/CameraInfo",
        header=header(stamp_ns, camera.name),
        height=camera.height,
        width=camera.width,
        distortion_model="plumb_bob",
        d=np.zeros(5),
        k=camera.intrinsics.ravel(),
        r=np.eye(3).ravel(),
        p=projection.ravel(),
    )


def odometry(
    base_to_world: Array, *, linear: ArrayLike, angular: ArrayLike, stamp_ns: int, world_frame: str = "odom"
) -> Any:
    """nav_msgs/Odometry of base_link: pose [4, 4] in the world frame, twist in base_link, m/s and rad/s."""
    twist = message("geometry_msgs/msg/Twist", linear=vector(linear), angular=vector(angular))
    return message(
        "nav_msgs/msg/Odometry",
        header=header(stamp_ns, world_frame),
        child_frame_id="base_link",
        pose=message("geometry_msgs/msg/PoseWithCovariance", pose=pose(base_to_world)),
        twist=message("geometry_msgs/msg/TwistWithCovariance", twist=twist),
    )


def encoded_image(image: Any) -> EncodedImage:
    """The picture in an Image or a CompressedImage message, still encoded."""
    if image.__msgtype__ == "sensor_msgs/msg/CompressedImage":
        return CompressedImage(image.data)
    return RawImage(image.encoding, image.width, image.height, image.step, bool(image.is_bigendian), image.data)
