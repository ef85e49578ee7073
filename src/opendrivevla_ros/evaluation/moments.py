"""The moments of an evaluation that a person should look at: kept while it runs, written beside its results."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from opendrivevla_ros.core.files import write_whole
from opendrivevla_ros.core.geometry import Array
from opendrivevla_ros.core.observation import Observation
from opendrivevla_ros.core.plan import MapElement, Plan

MOMENTS_FILE = "moments.json"
WORST = 10
APART_S = 3.0  # moments of one scene that are nearer than this show the same thing
STEP_S = 0.5  # between plans, wherever they are evaluated
FRONT_CAMERA = "cam_front"
FRONT_WIDTH = 480  # pixels at most
JPEG_QUALITY = 80
DIGITS = 3  # of metres and radians in the file


class ResultsError(Exception):
    """Results that cannot be read or shown: one sentence with the remedy."""


@dataclass(frozen=True)
class ShownMoment:
    """A plan beside where the expert or the human then went; all in base_link at that time, x forward, y left.

    scene: the scene or bag; seconds: since its start. metres: the greatest distance of plan and reference. plan,
    reference: [6, 2] metres, every 0.5 s. agents: [A, 5] boxes x, y, yaw, length, width, metres and radians. lines:
    of the map, each [N, 2] metres. words: what the model said. front: JPEG of the front camera, at most 480 pixels
    wide; empty where there is none. facts: speed, command and confidence in one line.
    """

    scene: str
    seconds: float
    metres: float
    plan: Array
    reference: Array
    agents: Array
    lines: tuple[Array, ...] = ()
    words: str = ""
    front: bytes = b""
    facts: str = ""

    @property
    def title(self) -> str:
        """Where to look for it."""
        return f"{self.scene} at {self.seconds:.1f} s"


class Boxed(Protocol):
    """A road user, seen (`core.plan.Agent`) or true (`datasets.driving_samples.AgentLabel`)."""

    @property
    def position(self) -> Array: ...
    @property
    def size(self) -> Array: ...
    @property
    def yaw(self) -> float: ...


def shown_moment(
    scene: str,
    seconds: float,
    *,
    observation: Observation,
    plan: Plan,
    planned: Array,
    reference: Array,
    agents: Iterable[Boxed],
    elements: Iterable[MapElement],
) -> ShownMoment:
    """The moment of a plan. planned, reference: [6, 2 or more], of which x and y count, metres in base_link."""
    boxes = [[*agent.position[:2], agent.yaw, *agent.size[:2]] for agent in agents]
    command = observation.command.command.name.replace("_", " ").lower()
    return ShownMoment(
        scene=scene,
        seconds=seconds,
        metres=float(np.hypot(*(planned[:, :2] - reference[:, :2]).T).max()),
        plan=planned[:, :2],
        reference=reference[:, :2],
        agents=np.array(boxes, dtype=np.float64).reshape(-1, 5),
        lines=tuple(
            np.vstack([element.points, element.points[:1]]) if element.closed else element.points
            for element in elements
        ),
        words=plan.reasoning.text or plan.raw_text,
        front=front_jpeg(observation),
        facts=f"{observation.ego.speed:.1f} m/s, command {command}, confidence {plan.confidence:.2f}",
    )


def front_jpeg(observation: Observation) -> bytes:
    """The front camera's picture, scaled down to FRONT_WIDTH; empty where there is none."""
    frame = next((one for one in observation.frames if one.camera == FRONT_CAMERA and not one.blank), None)
    if frame is None:
        return b""
    height, width = frame.image.shape[:2]
    picture = frame.image
    if width > FRONT_WIDTH:
        size = (FRONT_WIDTH, round(height * FRONT_WIDTH / width))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return bytes(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1])


def keep_worst(moments: Iterable[ShownMoment], count: int = WORST) -> tuple[ShownMoment, ...]:
    """The worst first; of moments within APART_S of one another in one scene only the worst."""
    kept: list[ShownMoment] = []
    for moment in _worst_first(moments):
        if len(kept) == count:
            break
        if all(moment.scene != one.scene or abs(moment.seconds - one.seconds) > APART_S for one in kept):
            kept.append(moment)
    return tuple(kept)


def candidates(moments: Iterable[ShownMoment], count: int = WORST) -> list[ShownMoment]:
    """So many of the worst that `keep_worst` takes from them what it would from all: bounds what a long bag keeps.

    Each that is kept rules out those within APART_S before and after it.
    """
    ruled_out = 2 * round(APART_S / STEP_S)
    return _worst_first(moments)[: (count - 1) * (1 + ruled_out) + 1]


def _worst_first(moments: Iterable[ShownMoment]) -> list[ShownMoment]:
    return sorted(moments, key=lambda moment: (-moment.metres, moment.scene, moment.seconds))


def write_moments(folder: Path, moments: Sequence[ShownMoment]) -> None:
    """moments.json in a folder that is there, and pictures beside it.

    Pictures are named by what they hold and come first, so that at any time the file names whole pictures only.
    """
    rows = []
    for moment in moments:
        name = f"moment_{hashlib.sha256(moment.front).hexdigest()[:16]}.jpg" if moment.front else None
        if name:
            write_whole(folder / name, moment.front)
        rows.append(
            {
                "scene": moment.scene,
                "seconds": round(moment.seconds, DIGITS),
                "metres": round(moment.metres, DIGITS),
                "plan": _numbers(moment.plan),
                "reference": _numbers(moment.reference),
                "agents": _numbers(moment.agents),
                "lines": [_numbers(line) for line in moment.lines],
                "words": moment.words,
                "front": name,
                "facts": moment.facts,
            }
        )
    write_whole(folder / MOMENTS_FILE, (json.dumps(rows) + "\n").encode())
    named = {row["front"] for row in rows}
    for old in folder.glob("moment_*.jpg"):
        if old.name not in named:
            old.unlink()


def read_moments(folder: Path) -> tuple[ShownMoment, ...]:
    """What `write_moments` wrote. Raises ResultsError where it is not all there, or is something else."""
    path = folder / MOMENTS_FILE
    try:
        return tuple(_moment(folder, row) for row in json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ResultsError(f"cannot read {error.filename}: {error.strerror}; evaluate again") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        problem = f"{type(error).__name__}: {error}"
        raise ResultsError(f"{path} holds no moments of an evaluation ({problem}); evaluate again") from None


def _moment(folder: Path, row: dict[str, Any]) -> ShownMoment:
    name = row["front"]
    if name is not None and Path(name).name != name:
        raise ValueError(f"the picture {name!r} is not a file of this folder")
    return ShownMoment(
        scene=str(row["scene"]),
        seconds=float(row["seconds"]),
        metres=float(row["metres"]),
        plan=_points(row["plan"], 2, rows=6),
        reference=_points(row["reference"], 2, rows=6),
        agents=_points(row["agents"], 5),
        lines=tuple(_points(line, 2) for line in row["lines"]),
        words=str(row["words"]),
        front=(folder / name).read_bytes() if name else b"",
        facts=str(row["facts"]),
    )


def _points(values: Any, columns: int, rows: int | None = None) -> Array:
    points = np.array(values, dtype=np.float64).reshape(-1, columns)
    if not np.isfinite(points).all() or (rows is not None and len(points) != rows):
        raise ValueError(f"{len(points)} points where {rows or 'some'} finite ones belong")
    return points


def _numbers(values: Array) -> list[list[float]]:
    return np.round(np.asarray(values, dtype=np.float64), DIGITS).tolist()
