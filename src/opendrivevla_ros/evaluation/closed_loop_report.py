"""What closed-loop drives come to: figures for JSON, and tables for the terminal, the card and the README."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from platform import python_version
from typing import Any

import numpy as np

from opendrivevla_ros.evaluation.closed_loop import AgainstExpert, Drive, Sight
from opendrivevla_ros.evaluation.closed_loop_runs import EXPERT, FAMILIES_THAT_NEED_EYES, ClosedLoop, Driver
from opendrivevla_ros.evaluation.figures import markdown_table
from opendrivevla_ros.world.outcome import CommandResult, Outcome

NORMAL_QUANTILE = 1.959964  # of 97.5 %
PACKAGES = ("opendrivevla_ros", "numpy", "torch", "panda3d")
DIGITS = 4


def wilson(count: int, of: int) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson, 1927); (0, 1) of nothing."""
    if of == 0:
        return 0.0, 1.0
    share, spread = count / of, NORMAL_QUANTILE**2 / of
    middle = (share + spread / 2) / (1 + spread)
    half = NORMAL_QUANTILE * math.sqrt(share * (1 - share) / of + spread / (4 * of)) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


def results_of(ran: ClosedLoop) -> dict[str, Any]:
    """Everything, ready for JSON: settings, versions, policies, figures by driver and family, and every drive.

    The same for any number of processes, except plan_ms, which are times.
    """
    settings = ran.settings
    experts = {(drive.family, drive.seed): drive for drive in ran.drives if drive.driver == EXPERT}
    against = [AgainstExpert.of(drive, experts[drive.family, drive.seed]) for drive in ran.drives]
    pairs = list(zip(ran.drives, against, strict=True))
    by_driver = {driver.name: [pair for pair in pairs if pair[0].driver == driver.name] for driver in settings.drivers}
    return {
        "versions": _versions(),
        "families": list(settings.families),
        "split": settings.split.name.lower(),
        "seeds": list(settings.seeds),
        "drivers": {
            driver.name: {**_identity(driver, ran), **_summary(by_driver[driver.name])} for driver in settings.drivers
        },
        "passed_by_family": {
            family: {
                name: _share(
                    sum(drive.outcome.passed for drive, _ in of if drive.family == family),
                    sum(drive.family == family for drive, _ in of),
                )
                for name, of in by_driver.items()
            }
            for family in settings.families
        },
        "eyes": _eyes(ran),
        "drives": [_drive(drive, beside) for drive, beside in pairs],
    }


def markdown(results: Mapping[str, Any]) -> str:
    """Tables of `results_of` for the terminal, the card and the README: drivers, families, and how they drive."""
    drivers, seeds = results["drivers"], len(results["seeds"])
    count = seeds * len(results["families"])
    outcomes = markdown_table(
        (
            "driver",
            "passed",
            "collisions (at fault)",
            "off road",
            "out of lane",
            "too late",
            "route driven",
            "of it in the expert's time",
            "command carried out",
        ),
        [
            (
                name,
                _counted(row["passed"]),
                f"{row['collisions']['count']} ({row['at_fault']})",
                str(row["off_road"]),
                str(row["out_of_lane"]),
                str(row["too_late"]),
                _percent(row["completion"]),
                _percent(row["progress_of_expert"]),
                _counted(row["command_carried_out"]) if row["command_carried_out"]["of"] else "-",
            )
            for name, row in drivers.items()
        ],
    )
    families = markdown_table(
        ("passed, by family", *drivers),
        [
            (
                family.replace("_", " "),
                *(f"{row[name]['count']} of {row[name]['of']}" if row[name]["of"] else "-" for name in drivers),
            )
            for family, row in results["passed_by_family"].items()
        ],
    )
    manners = markdown_table(
        (
            "driver",
            "s behind the expert",
            "least time to collision, s, median",
            "hardest braking, m/s²",
            "mean acceleration, m/s²",
            "mean lateral, m/s²",
            "mean jerk, m/s³",
            "plan ms, p50 / p95",
            "without a plan",
        ),
        [(name, *_manner(row)) for name, row in drivers.items()],
    )
    title = (
        f"Closed loop: {count} scenarios of {results['split']} seeds, {seeds} of each of "
        f"{len(results['families'])} families; in brackets 95 % intervals.\n"
    )
    return "\n".join((title, outcomes, families, manners))


def reasons(outcome: Outcome) -> str:
    """Why a drive did not pass, in words; empty where it did."""
    found = []
    if outcome.collision is not None:
        found.append(
            f"collision with {outcome.collision.detection_name}{'' if outcome.at_fault else ', not at fault'}"
        )
    elif not outcome.in_time:
        found.append("off its route" if outcome.command is CommandResult.ANOTHER_WAY else "not at the goal in time")
    if outcome.off_road:
        found.append("off road")
    if outcome.out_of_lane:
        found.append(f"{outcome.most_lateral:.1f} m off its lane's middle")
    return "; ".join(found)


def _summary(pairs: Sequence[tuple[Drive, AgainstExpert]]) -> dict[str, Any]:
    outcomes = [drive.outcome for drive, _ in pairs]
    commands = [outcome.command for outcome in outcomes if outcome.command is not None]
    collisions = sum(outcome.collision is not None for outcome in outcomes)
    behind = [beside.seconds_behind for _, beside in pairs if beside.seconds_behind is not None]
    return {
        "passed": _share(sum(outcome.passed for outcome in outcomes), len(outcomes)),
        "collisions": _share(collisions, len(outcomes)),
        "at_fault": sum(outcome.at_fault for outcome in outcomes),
        "off_road": sum(outcome.off_road for outcome in outcomes),
        "out_of_lane": sum(outcome.out_of_lane for outcome in outcomes),
        "too_late": sum(not outcome.in_time and outcome.collision is None for outcome in outcomes),
        "command_carried_out": _share(commands.count(CommandResult.CARRIED_OUT), len(commands)),
        "commands": dict(Counter(command.value for command in commands)),
        "completion": _mean(outcome.completion for outcome in outcomes),
        "progress_of_expert": _mean(beside.share for _, beside in pairs),
        "seconds_behind_expert": _mean(behind),
        "least_time_to_collision": _finite(
            float(np.median([outcome.least_time_to_collision for outcome in outcomes])) if outcomes else None
        ),
        "hardest_braking": _most(outcome.hardest_braking for outcome in outcomes),
        "hardest_acceleration": _most(outcome.hardest_acceleration for outcome in outcomes),
        "most_lateral_acceleration": _most(outcome.most_lateral_acceleration for outcome in outcomes),
        "most_jerk": _most(outcome.most_jerk for outcome in outcomes),
        "mean_acceleration": _mean(outcome.mean_acceleration for outcome in outcomes),
        "mean_lateral_acceleration": _mean(outcome.mean_lateral_acceleration for outcome in outcomes),
        "mean_jerk": _mean(outcome.mean_jerk for outcome in outcomes),
        "distance": round(sum(outcome.distance for outcome in outcomes), 1),
        "plans": sum(drive.plans for drive, _ in pairs),
        "failures": dict(sum((Counter(dict(drive.failures)) for drive, _ in pairs), Counter())),
        "plan_ms": _times([seconds for drive, _ in pairs for seconds in drive.plan_seconds]),
    }


def _eyes(ran: ClosedLoop) -> dict[str, Any]:
    """Scenarios passed with pictures, with black ones and with shuffled ones, in each family that needs eyes.

    needed: with neither are half as many passed as with the true ones.
    """
    found = {}
    for family in ran.settings.families:
        if family in FAMILIES_THAT_NEED_EYES:
            passed = {
                driver.sight: sum(
                    drive.outcome.passed
                    for drive in ran.drives
                    if drive.driver == driver.name and drive.family == family
                )
                for driver in ran.settings.drivers
                if driver.policy == ran.settings.policy
            }
            seeing, black, shuffled = (passed[sight] for sight in Sight)
            needed = 2 * max(black, shuffled) < seeing
            found[family] = {"seeing": seeing, "black": black, "shuffled": shuffled, "needed": needed}
    return found


def _drive(drive: Drive, beside: AgainstExpert) -> dict[str, Any]:
    measures = {field.name: _plain(getattr(drive.outcome, field.name)) for field in fields(drive.outcome)}
    return {
        "driver": drive.driver,
        "family": drive.family,
        "seed": drive.seed,
        "passed": drive.outcome.passed,
        "why_not": reasons(drive.outcome),
        **measures,
        "progress_of_expert": _plain(beside.share),
        "metres_behind_expert": _plain(beside.metres_behind),
        "seconds_behind_expert": _plain(beside.seconds_behind),
        "plans": drive.plans,
        "failures": dict(drive.failures),
        "plan_ms": _times(drive.plan_seconds),
    }


def _identity(driver: Driver, ran: ClosedLoop) -> dict[str, Any]:
    if driver.policy is None:
        return {"policy": None, "sight": "true state"}
    info = ran.infos[driver.policy]
    return {
        "policy": driver.policy,
        "sight": driver.sight.value,
        "model_id": info.model_id,
        "weights_hash": info.weights_hash,
        "trained": info.trained,
    }


def _manner(row: Mapping[str, Any]) -> tuple[str, ...]:
    keys = ("hardest_braking", "mean_acceleration", "mean_lateral_acceleration", "mean_jerk")
    times, attempts = row["plan_ms"], row["plans"] + sum(row["failures"].values())
    nearest = row["least_time_to_collision"]
    return (
        _number(row["seconds_behind_expert"], 1),
        _number(nearest, 1) if nearest is not None else "over 4",
        *(_number(row[key], 2) for key in keys),
        f"{times['p50']:.0f} / {times['p95']:.0f}" if times else "-",
        f"{sum(row['failures'].values())} of {attempts}" if attempts else "-",
    )


def _share(count: int, of: int) -> dict[str, Any]:
    return {"count": count, "of": of, "interval": [round(end, DIGITS) for end in wilson(count, of)]}


def _counted(share: Mapping[str, Any]) -> str:
    low, high = share["interval"]
    percent = 100 * share["count"] / max(1, share["of"])
    return f"{share['count']} of {share['of']}, {percent:.0f} % ({100 * low:.0f} to {100 * high:.0f})"


def _times(seconds: Sequence[float]) -> dict[str, float] | None:
    if not seconds:
        return None
    return {f"p{p}": round(1e3 * float(np.percentile(seconds, p)), 2) for p in (50, 95, 100)}


def _versions() -> dict[str, str]:
    found = {"python": python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # run from the source tree
            found[package] = "unknown"
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    return _finite(value) if isinstance(value, float) else value


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, DIGITS)


def _mean(values: Iterable[float]) -> float | None:
    given = list(values)
    return round(float(np.mean(given)), DIGITS) if given else None


def _most(values: Iterable[float]) -> float | None:
    return _finite(max(values, default=None))


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f} %"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
