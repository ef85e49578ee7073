"""A folder for every time that the guard took over: what it saw, what it was offered, and why it did not send it."""

import csv
import json
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from opendrivevla_ros.core.geometry import Array
from opendrivevla_ros.safety.guard import PlacedTrajectory, Scene
from opendrivevla_ros.safety.plan_checks import Check
from opendrivevla_ros.safety.supervisor import Transition

MEGABYTE = 1_000_000
ODOMETRY_COLUMNS = ("x", "y", "z", "qx", "qy", "qz", "qw", "vx", "vy", "vz", "wx", "wy", "wz")
REPORT, SNAPSHOT = "incident.json", "snapshot"


@dataclass(frozen=True)
class Incident:
    """What is known at a change of state.

    stamp_ns: on the node's clock. candidate: the newest plan, stop: what is sent in its place, scene: what was told
    to be around; None where there is none. odometry: stamps [N] in nanoseconds and rows [N, 13] of
    ODOMETRY_COLUMNS, the last seconds. parameters: by name.
    """

    stamp_ns: int
    transition: Transition
    checks: tuple[Check, ...]
    candidate: PlacedTrajectory | None
    stop: PlacedTrajectory | None
    scene: Scene | None
    odometry: tuple[NDArray[np.int64], Array]
    parameters: Mapping[str, Any]


class Incidents:
    """Writes incidents in threads of their own, not too often, and keeps the folder from growing.

    on_error: is told in one sentence what could not be written; called in such a thread.
    """

    def __init__(self, on_error: Callable[[str], None]) -> None:
        self._on_error = on_error
        self._last_ns: int | None = None
        self._lock = threading.Lock()  # of the folder

    def report(self, incident: Incident) -> Path | None:
        """Begins to write a folder and returns its name; None where the last one is too recent.

        Limits are the parameters incidents.folder, incidents.period (s) and incidents.megabytes: of all folders, the
        oldest of which are deleted; 0 for none at all.
        """
        parameters = incident.parameters
        period_ns = parameters["incidents.period"] * 1e9
        recent = self._last_ns is not None and 0 <= incident.stamp_ns - self._last_ns < period_ns
        if recent or parameters["incidents.megabytes"] == 0:
            return None
        self._last_ns = incident.stamp_ns
        root = Path(parameters["incidents.folder"]).expanduser().resolve()
        folder = root / f"{incident.stamp_ns}_{incident.transition.after.name.lower()}"
        self._in_thread(lambda: write(incident, folder))
        return folder

    def add_snapshot(self, incident: Path, snapshot: Path, megabytes: float) -> None:
        """Moves the planner's snapshot (pictures, prompt, raw text, plan) into an incident's folder."""
        self._in_thread(lambda: self._move(incident, snapshot, megabytes))

    def _move(self, incident: Path, snapshot: Path, megabytes: float) -> None:
        shutil.move(snapshot, incident / SNAPSHOT)
        shrink(incident.parent, megabytes)

    def _in_thread(self, work: Callable[[], None]) -> None:
        def run() -> None:
            try:
                with self._lock:
                    work()
            except OSError as error:
                self._on_error(f"an incident cannot be written ({error}); see incidents.folder")

        threading.Thread(target=run, name="incident").start()


def write(incident: Incident, folder: Path) -> None:
    """Writes an incident's folder, and makes room for it. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / REPORT).write_text(json.dumps(_report(incident), indent=1) + "\n")
    (folder / "parameters.yaml").write_text(yaml.safe_dump({"/**": {"ros__parameters": dict(incident.parameters)}}))
    with (folder / "odometry.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("stamp_ns", *ODOMETRY_COLUMNS))
        stamps, values = incident.odometry
        rows.writerows([int(stamp), *row] for stamp, row in zip(stamps, values.tolist(), strict=True))
    shrink(folder.parent, incident.parameters["incidents.megabytes"])


def shrink(root: Path, megabytes: float) -> None:
    """Deletes the oldest incidents until the others fit; the newest one stays."""
    folders = sorted(path for path in root.iterdir() if (path / REPORT).is_file())
    sizes = [sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) for folder in folders]
    for index, folder in enumerate(folders[:-1]):
        if sum(sizes[index:]) <= megabytes * MEGABYTE:
            return
        shutil.rmtree(folder, ignore_errors=True)


def _report(incident: Incident) -> dict[str, Any]:
    scene, transition = incident.scene, incident.transition
    return {
        "stamp_ns": incident.stamp_ns,
        "before": transition.before.name,
        "after": transition.after.name,
        "reasons": list(transition.reasons),
        "checks": [
            {"name": check.name, "ok": bool(check.ok), "value": _number(check.value), "limit": _number(check.limit)}
            for check in incident.checks
        ],
        "plan": _placed(incident.candidate),
        "stop": _placed(incident.stop),
        "agents": []
        if scene is None
        else [
            {
                "track_id": agent.track_id,
                "label": agent.label,
                "position": agent.position.tolist(),
                "yaw": agent.yaw,
                "size": agent.size.tolist(),
                "velocity": agent.velocity.tolist(),
            }
            for agent in scene.agents
        ],
        "map_elements": []
        if scene is None
        else [{"label": element.label, "points": element.points.tolist()} for element in scene.map_elements],
        "scene_stamp_ns": None if scene is None else scene.ego.stamp_ns,
    }


def _placed(placed: PlacedTrajectory | None) -> dict[str, Any] | None:
    if placed is None:
        return None
    trajectory = placed.trajectory
    return {
        "stamp_ns": placed.ego.stamp_ns,
        "base_to_world": placed.ego.base_to_world.tolist(),
        "confidence": placed.confidence,
        **{name: np.asarray(getattr(trajectory, name)).tolist() for name in ("times", "xy", "yaw", "velocity")},
    }


def _number(value: float) -> float | str:
    """As JSON has it, which knows no infinity."""
    return float(value) if np.isfinite(value) else str(value)
