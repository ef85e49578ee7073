"""The way of the next five seconds, put together from samples whose own futures are shorter."""

from collections.abc import Sequence

import numpy as np

from opendrivevla_ros.core.geometry import Array, invert, yaw_of
from opendrivevla_ros.core.trajectory import FUTURE_TIMES_S
from opendrivevla_ros.datasets.driving_samples import COVER_TOLERANCE_S, DrivingSample, values_at
from opendrivevla_ros.policies.autovla.config import ACTIONS_PER_PLAN
from opendrivevla_ros.policies.autovla.policy import TIMES

SAME_METRES, SAME_RADIANS = 0.1, 0.03  # so near, a drive went where the future before it said


def known_way(samples: Sequence[DrivingSample]) -> Array:
    """Poses [N, 3] (x, y, yaw) of base_link every 0.5 s after the first of samples, as far as they are known.

    samples: of one scene in the order of time. A later sample's future goes on from the first one's as long as the
    drive between them went where the first one's future says: always in a log, in the world where the expert drove
    without a disturbance. N is 0 to ACTIONS_PER_PLAN.
    """
    first = samples[0]
    to_first = invert(first.observation.ego.base_to_world)
    times, poses = np.zeros(1), np.zeros((1, 3))
    times, poses = _continued(times, poses, 0.0, np.zeros(3), first)
    for later in samples[1:]:
        seconds = (later.observation.stamp_ns - first.observation.stamp_ns) / 1e9
        if seconds > min(times[-1], TIMES[-1]) + COVER_TOLERANCE_S:
            break
        pose = to_first @ later.observation.ego.base_to_world
        driven = np.array([pose[0, 3], pose[1, 3], yaw_of(pose)])
        expected = values_at(times, poses, [seconds])[0][0]
        turned = (driven[2] - expected[2] + np.pi) % (2 * np.pi) - np.pi
        if np.hypot(*(driven - expected)[:2]) > SAME_METRES or abs(turned) > SAME_RADIANS:
            break
        driven[2] = expected[2] + turned
        times, poses = _continued(times, poses, seconds, driven, later)
    way, known = values_at(times, poses, TIMES)
    count = int(known.argmin()) if not known.all() else ACTIONS_PER_PLAN
    return way[:count]


def _continued(times: Array, poses: Array, seconds: float, start: Array, sample: DrivingSample) -> tuple[Array, Array]:
    """Times [K] and poses [K, 3], from `seconds` on those of a sample that stands at `start` [3] then.

    They stay as they are where they reach further than the sample's own future does.
    """
    count = int(sample.future_mask.argmin()) if not sample.future_mask.all() else len(sample.future_mask)
    ends = seconds + FUTURE_TIMES_S[:count]
    if count == 0 or ends[-1] <= times[-1]:
        return times, poses
    cosine, sine = np.cos(start[2]), np.sin(start[2])
    x, y, yaw = sample.future[:count].T
    placed = np.column_stack([start[0] + cosine * x - sine * y, start[1] + sine * x + cosine * y, start[2] + yaw])
    placed[:, 2] = np.unwrap(np.concatenate([[start[2]], placed[:, 2]]))[1:]
    before = times < seconds - COVER_TOLERANCE_S
    return (
        np.concatenate([times[before], [seconds], ends]),
        np.concatenate([poses[before], start[None], placed]),
    )
