"""Training samples from a bag that a driver recorded: observations, and the driver's own motion after each.

Bags have no labels, so they serve end-to-end training alone. Observations come as `BagObservations` has them live.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from opendrivevla_ros.core.ego import DrivingCommand
from opendrivevla_ros.core.geometry import Array
from opendrivevla_ros.core.observation import Observation
from opendrivevla_ros.core.rig import CameraRig
from opendrivevla_ros.datasets.bag_observations import BagObservations
from opendrivevla_ros.datasets.bag_topics import InputTopics
from opendrivevla_ros.datasets.bag_tracks import BagTracks
from opendrivevla_ros.datasets.bags import BagError, BagReader
from opendrivevla_ros.datasets.driving_samples import DrivingSample
from opendrivevla_ros.datasets.nuscenes_motion import published_command
from opendrivevla_ros.sensing.refusals import Refused

RATE = 2.0  # samples per second, as nuScenes has keyframes


def bag_samples(
    bag: BagReader, inputs: InputTopics, rig: CameraRig, *, image_size: tuple[int, int]
) -> Iterator[DrivingSample]:
    """The samples of a bag in the order of time, two a second; those that end without any future are left out.

    Where no command was recorded, it is the one that the driver carried out, by the published rule. A scene ends
    where the node's memory would be reset. Refused sets of pictures give no sample.
    Raises BagError for a bag that cannot be read, and for one that gives no sample at all.
    """
    tracks = BagTracks(bag, inputs.by_input["odometry"].name)
    scene, index, total = 0, 0, 0
    refusals: list[Refused] = []
    for outcome in BagObservations(bag, inputs, rig, image_size=image_size, rate=RATE):
        if isinstance(outcome, Refused):
            refusals.append(outcome)
            if outcome.reason.clears_state and index:
                scene, index = scene + 1, 0
            continue
        future, mask = tracks.future(outcome)
        if not mask.any():
            continue
        name = f"{bag.path.stem}-{scene}"
        yield DrivingSample(
            scene=name,
            token=f"{name}-{outcome.stamp_ns}",
            index=index,
            observation=_with_command(outcome, future, mask),
            future=future,
            future_mask=mask,
        )
        index, total = index + 1, total + 1
    if total == 0:
        reason = f"{len(refusals)} refusals, first: {refusals[0].message}" if refusals else "no set of six pictures"
        raise BagError(f"{bag.path} gives no training sample ({reason}); check it with `odv replay`")


def _with_command(observation: Observation, future: Array, mask: NDArray[np.bool_]) -> Observation:
    if not observation.command.is_default:
        return observation
    command = published_command(future, mask, observation.rig.lidar_to_base)
    return replace(observation, command=DrivingCommand(command, is_default=False))
