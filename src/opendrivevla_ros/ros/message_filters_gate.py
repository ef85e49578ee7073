"""message_filters' ApproximateTimeSynchronizer in place of the package's own choice of pictures, where installed."""

from collections.abc import Callable
from typing import Any

from opendrivevla_ros.core.rig import CAMERA_NAMES
from opendrivevla_ros.ros.parameters import ConfigurationError

QUEUE_SIZE = 10


class MessageFiltersGate:
    """Lets pictures through in the rounds that ApproximateTimeSynchronizer forms.

    accept: takes (camera, message) of every member of a round; odometry is looked up afterwards as ever.
    Raises ConfigurationError where message_filters is not installed.
    """

    def __init__(self, slop_s: float, accept: Callable[[str, Any], None]) -> None:
        try:
            from message_filters import ApproximateTimeSynchronizer, SimpleFilter
        except ImportError:
            raise ConfigurationError(
                "parameter sync.method is 'message_filters', which is not installed; "
                "install ros-$ROS_DISTRO-message-filters or set it to 'own'"
            ) from None
        self._accept = accept
        self._filters = {camera: SimpleFilter() for camera in CAMERA_NAMES}
        self._synchronizer = ApproximateTimeSynchronizer(list(self._filters.values()), QUEUE_SIZE, slop_s)
        self._synchronizer.registerCallback(self._on_round)

    def add(self, camera: str, message: Any) -> None:
        """Takes one picture's message; calls `accept` six times if it completes a round."""
        self._filters[camera].signalMessage(message)

    def _on_round(self, *messages: Any) -> None:
        for camera, message in zip(CAMERA_NAMES, messages, strict=True):
            self._accept(camera, message)
