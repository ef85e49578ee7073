"""Every fault in every scenario, and what the guard made of it: figures for JSON, and a table."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from opendrivevla_ros.evaluation.faults import FAULTS, Fault, fault_named
from opendrivevla_ros.evaluation.figures import markdown_table
from opendrivevla_ros.evaluation.guarded_drive import GuardedDrive, drive_guarded
from opendrivevla_ros.evaluation.world_scenes import EvaluationError, Scene, evaluation_scenes, spread
from opendrivevla_ros.world.families import make_scenario
from opendrivevla_ros.world.seeds import Split

FIRST_FAULT_S, FAULT_STEP_S, FAULT_STEPS = 4.0, 0.5, 5  # when a fault comes: 4.0 to 6.0 s after the start
NO_FAULT = "none"


@dataclass(frozen=True)
class FaultSettings:
    """scenarios: that each fault comes in, families by turns. faults: by name."""

    scenarios: int = 40
    faults: tuple[str, ...] = tuple(fault.name for fault in FAULTS)
    split: Split = Split.TEST


@dataclass(frozen=True)
class _Task:
    scene: Scene
    fault: Fault | None
    fault_s: float

    def __str__(self) -> str:
        return f"{self.scene.family} {self.scene.seed} with {self.fault.name if self.fault else 'no fault'}"


def run_faults(
    settings: FaultSettings, *, processes: int = 2, progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Any]:
    """Drives everything, clean and with every fault; results ready for JSON.

    Raises EvaluationError for an unknown fault, and when a drive fails.
    """
    try:
        faults = [None, *(fault_named(name) for name in settings.faults)]
    except ValueError as error:
        raise EvaluationError(str(error)) from error
    scenes = evaluation_scenes(settings.scenarios, settings.split)
    tasks = [
        _Task(scene, fault, FIRST_FAULT_S + FAULT_STEP_S * (index % FAULT_STEPS))
        for fault in faults
        for index, scene in enumerate(scenes)
    ]
    drives = spread(_run, tasks, processes=processes, progress=progress)
    clean, faulty = drives[: len(scenes)], drives[len(scenes) :]
    return {
        "split": settings.split.name.lower(),
        "scenarios": len(scenes),
        NO_FAULT: _clean(clean),
        "faults": {
            fault.name: _figures(fault, [drive for drive in faulty if drive.fault == fault.name], clean)
            for fault in faults
            if fault is not None
        },
        "drives": [asdict(drive) for drive in drives],
    }


def markdown(results: dict[str, Any]) -> str:
    """The table of `run_faults`."""
    clean = results[NO_FAULT]
    columns = (
        "fault",
        "drives",
        "answered",
        "until answered, median / longest (s)",
        "stated (s)",
        "collisions (at fault), same drives without",
        "spoiled plans sent",
        "unsafe plans sent",
        "ended standing",
    )
    rows = [
        (
            name,
            str(row["drives"]),
            f"{row['answered']} of {row['nominal']}",
            "-" if row["median_s"] is None else f"{row['median_s']:.2f} / {row['longest_s']:.2f}",
            "-" if row["within_s"] is None else f"{row['within_s']:.2f}",
            f"{row['collisions']} ({row['at_fault']}), {row['collisions_without']}",
            str(row["spoiled"]),
            str(row["unsafe"]),
            str(row["standing"]),
        )
        for name, row in results["faults"].items()
    ]
    alarms = (
        f"Without a fault: {clean['drives']} drives, {clean['collisions']} collisions, {clean['cycles']} cycles, of"
        f" which {100 * clean['alarm_share']:.2f} % not NOMINAL; {clean['sent']} plans sent on, {clean['unsafe']} of"
        " them unsafe. Answered counts the drives in which all was well until the fault."
    )
    return f"### Faults ({results['split']} seeds)\n\n{markdown_table(columns, rows)}\n{alarms}\n"


def _run(task: _Task) -> GuardedDrive:
    try:
        return drive_guarded(make_scenario(task.scene.family, task.scene.seed), task.fault, task.fault_s)
    except Exception as error:
        raise EvaluationError(f"{task} failed: {type(error).__name__}: {error}") from error


def _clean(drives: Sequence[GuardedDrive]) -> dict[str, Any]:
    cycles = sum(drive.cycles for drive in drives)
    alarms = sum(drive.alarms for drive in drives)
    return {
        "drives": len(drives),
        "collisions": sum(drive.collided for drive in drives),
        "cycles": cycles,
        "alarm_share": alarms / max(cycles, 1),
        "sent": sum(drive.sent for drive in drives),
        "unsafe": sum(drive.unsafe for drive in drives),
    }


def _figures(fault: Fault, drives: Sequence[GuardedDrive], clean: Sequence[GuardedDrive]) -> dict[str, Any]:
    there = [(drive, without) for drive, without in zip(drives, clean, strict=True) if drive.fault_s is not None]
    nominal = [drive for drive, _ in there if drive.nominal]
    times = [drive.reaction_s for drive in nominal if drive.reaction_s is not None]
    count = partial(_count, [drive for drive, _ in there])
    return {
        "drives": len(there),
        "nominal": len(nominal),
        "answered": len(times),
        "median_s": float(np.median(times)) if times else None,
        "longest_s": max(times) if times else None,
        "within_s": fault.within_s,
        "collisions": count("collided"),
        "at_fault": count("at_fault"),
        "collisions_without": sum(without.collided for _, without in there),
        "spoiled": count("spoiled"),
        "unsafe": count("unsafe"),
        "standing": count("standing"),
    }


def _count(drives: Sequence[GuardedDrive], name: str) -> int:
    return sum(int(getattr(drive, name)) for drive in drives)
