"""Draws road users and the rows of parked cars and walkers that fill a street."""

import numpy as np

from opendrivevla_ros.core.geometry import Array
from opendrivevla_ros.world.casting import Cue, Part
from opendrivevla_ros.world.path import Path
from opendrivevla_ros.world.state import Category

_SIZES = {  # length, width, height: means in metres, and their spread as a share
    Category.CAR: ((4.5, 1.85, 1.55), 0.07),
    Category.TRUCK: ((7.2, 2.4, 3.0), 0.08),
    Category.BUS: ((11.0, 2.6, 3.2), 0.04),
    Category.BICYCLE: ((1.75, 0.62, 1.70), 0.04),
    Category.PEDESTRIAN: ((0.55, 0.60, 1.72), 0.06),
}
_WIDEST_PARKED, _PARKED_OFF = 2.1, 0.1  # metres: what fits a parking lane, and how far off its middle it may be
FOOTPATH, KEEP_APART = 1.45, 0.38  # metres outside the kerb where people walk, and to either side of that line
KERB = 0.45  # metres outside the kerb where people wait to cross


def size_of(random: np.random.Generator, category: Category) -> tuple[float, float, float]:
    """A size drawn for a category."""
    mean, spread = _SIZES[category]
    length, width, height = (m * (1.0 + spread * float(np.clip(random.standard_normal(), -1.8, 1.8))) for m in mean)
    return length, min(width, 2.6), height


def appearance_of(random: np.random.Generator) -> int:
    """A seed for colour and shape."""
    return int(random.integers(2**31))


def vehicle(
    random: np.random.Generator,
    *,
    path: int,
    s: float,
    speed: float,
    cruise: float | None = None,
    category: Category | None = None,
    cue: Cue | None = None,
    changes_lane: bool = False,
) -> Part:
    """A driven vehicle on a path; a car nine times in ten."""
    kind = category or (Category.TRUCK if random.random() < 0.1 else Category.CAR)
    return Part(
        kind,
        size_of(random, kind),
        path,
        s,
        float(random.uniform(-0.15, 0.15)) if kind is Category.CAR else 0.0,
        speed,
        speed if cruise is None else cruise,
        cue,
        changes_lane,
        appearance=appearance_of(random),
    )


def stream(
    random: np.random.Generator, *, path: int, first: float, last: float, speed: float, headway: tuple[float, float]
) -> list[Part]:
    """Vehicles one after another from `first` to `last` metres, `headway` seconds apart, not all equally fast."""
    parts, s = [], first + float(random.uniform(0.0, headway[0])) * speed
    while s < last:
        cruise = speed * float(random.uniform(0.85, 1.05))
        now = 0.95 * min(cruise, speed)
        kind = Category.BUS if random.random() < 0.05 else None
        parts.append(
            vehicle(random, path=path, s=s, speed=now, cruise=cruise, category=kind, changes_lane=kind is None)
        )
        s += (8.0 if kind is None else 15.0) + float(random.uniform(*headway)) * speed
    return parts


def parked_row(
    random: np.random.Generator,
    reference: Path,
    *,
    lateral: float,
    first: float,
    last: float,
    filled: float,
    against: bool = False,
) -> list[Part]:
    """Parked vehicles along a reference line at a lateral place, from `first` to `last` metres; `filled`: 0 to 1."""
    parts, s = [], first
    while s < last:
        kind = Category.TRUCK if random.random() < 0.06 else Category.CAR
        size = size_of(random, kind)
        if random.random() < filled and s + size[0] < last:
            size = (size[0], min(size[1], _WIDEST_PARKED), size[2])
            x, y, yaw = reference.pose(s + size[0] / 2, lateral + float(random.uniform(-_PARKED_OFF, _PARKED_OFF)))
            yaw += (np.pi if against else 0.0) + float(random.normal(0.0, 0.015))
            parts.append(Part(kind, size, pose=(x, y, yaw), parked=True, appearance=appearance_of(random)))
        s += size[0] + float(random.uniform(0.9, 2.0))
    return parts


def footpath(reference: Path, kerb: float, *, against: bool) -> Path:
    """The line that people walk along outside the kerb at lateral offset `kerb` of a reference line."""
    points = reference.offset(kerb + (FOOTPATH if kerb > 0 else -FOOTPATH))
    return Path.through(points[::-1] if against else points)


def crossing_walk(reference: Path, s: float, start: float, end: float) -> Path:
    """A straight walk over the road at `s`, from lateral `start` to lateral `end` metres."""
    first, last = reference.pose(s, start), reference.pose(s, end)
    steps = np.linspace(0.0, 1.0, max(3, round(abs(end - start))))[:, None]
    ends: Array = np.array([first[:2], last[:2]])
    return Path.through(ends[0] + steps * (ends[1] - ends[0]))


def pedestrian(
    random: np.random.Generator,
    *,
    path: int,
    s: float = 0.0,
    lateral: float = 0.0,
    cue: Cue | None = None,
    speed: float | None = None,
) -> Part:
    """A pedestrian on a walk, who stands there until the cue if there is one."""
    pace = float(random.uniform(1.1, 1.7)) if speed is None else speed
    size = size_of(random, Category.PEDESTRIAN)
    return Part(
        Category.PEDESTRIAN,
        size,
        path,
        s,
        lateral,
        speed=0.0 if cue is not None else pace,
        cruise=pace,
        cue=cue,
        appearance=appearance_of(random),
    )
