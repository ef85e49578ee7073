"""What a policy sees: six pictures and the ego motion, all of one instant."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from opendrivevla_ros.core.ego import DrivingCommand, EgoState
from opendrivevla_ros.core.rig import CameraRig


@dataclass(frozen=True)
class CameraFrame:
    """One decoded picture.

    image: uint8 [height, width, 3], BGR; may be smaller than the calibration by one factor on both axes.
    stamp_ns: the picture's own stamp. held: an older picture repeated; blank: a black one in place of none.
    """

    camera: str
    stamp_ns: int
    image: NDArray[np.uint8]
    held: bool = False
    blank: bool = False


@dataclass(frozen=True)
class Observation:
    """Everything a policy may use. `stamp_ns` is the anchor camera's stamp (t0); `frames` are in rig order.

    degraded: why this is less than a full observation (empty when it is full), for example
    "cam_back held" or "cam_back blank".
    """

    stamp_ns: int
    frames: tuple[CameraFrame, ...]
    rig: CameraRig
    ego: EgoState
    command: DrivingCommand
    degraded: tuple[str, ...] = ()

    @property
    def skew_ns(self) -> int:
        """Largest distance of a live picture's stamp from the anchor's, nanoseconds."""
        return max((abs(frame.stamp_ns - self.stamp_ns) for frame in self.frames if not frame.blank), default=0)
