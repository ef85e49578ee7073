"""Who takes part in a scenario: each actor's part before the curtain rises, as plain data."""

from dataclasses import dataclass

from opendrivevla_ros.world.state import Category


@dataclass(frozen=True)
class Cue:
    """What an actor does once the ego comes near.

    ego_s: the cue is given when the ego's middle has come this far along its route, metres, or will have, at its
    present speed, `arrival_s` seconds later: so whoever is to meet the ego there meets a slow one too. For `duration`
    seconds after `delay` seconds the actor drives at most `speed`, reached with `deceleration` m/s^2. change_to: a
    path that it changes to at the cue. waits: it stands until the cue has been played to its end. A pedestrian starts
    to walk after `delay`, and may be in the way for `duration`.
    """

    ego_s: float
    arrival_s: float = 0.0
    delay: float = 0.0
    duration: float = 0.0
    speed: float = float("inf")
    deceleration: float = 3.0
    change_to: int | None = None
    waits: bool = False


@dataclass(frozen=True)
class Part:
    """One actor. size: length, width, height.

    path: index into the scenario's paths, or None for what never moves, which stands at `pose` (x, y, yaw).
    s, lateral: place on its path, metres. cruise: the speed it likes, m/s. changes_lane: it looks for gaps beside it.
    parked: a vehicle without a driver.
    """

    category: Category
    size: tuple[float, float, float]
    path: int | None = None
    s: float = 0.0
    lateral: float = 0.0
    speed: float = 0.0
    cruise: float = 10.0
    cue: Cue | None = None
    changes_lane: bool = False
    pose: tuple[float, float, float] | None = None
    parked: bool = False
    appearance: int = 0


@dataclass(frozen=True)
class Neighbours:
    """Indices of the paths beside a path in its direction; None where there is none."""

    left: int | None = None
    right: int | None = None
