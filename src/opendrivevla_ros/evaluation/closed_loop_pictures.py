"""Bird's-eye pictures of closed-loop drives: the road, the route, what was driven, who was there at the end."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon

from opendrivevla_ros.core.boxes import corners
from opendrivevla_ros.core.geometry import Array
from opendrivevla_ros.evaluation.closed_loop import Drive
from opendrivevla_ros.evaluation.closed_loop_report import reasons
from opendrivevla_ros.world.families import make_scenario
from opendrivevla_ros.world.scenario import Scenario
from opendrivevla_ros.world.state import EGO_CENTRE_AHEAD, EGO_LENGTH, EGO_WIDTH, Category

ASPHALT, GRASS, PAINT, STRIPES = "#d9dbde", "#f3f5ef", "#ffffff", "#eceef0"
ROUTE, PASSED, FAILED, PLAN = "#7a9cc6", "#2b8a3e", "#c92a2a", "#f08c00"
ACTOR, PEDESTRIAN, FOCUS = "#868e96", "#9c36b5", "#1864ab"
CLOSE_METRES = 45.0  # shown around the end of a drive
MARGIN_METRES = 15.0
INCHES = 1.7  # of each drive in the overview


def draw_all(drives: Iterable[Drive], driver: str, folder: Path) -> None:
    """overview.png of what `driver` drove, and a picture of each drive that did not pass, in `folder`."""
    mine = [drive for drive in drives if drive.driver == driver]
    draw_overview(mine, folder / "overview.png")
    for drive in mine:
        if not drive.outcome.passed:
            draw_drive(drive, folder / f"{drive.family}_{drive.seed}.png")


def draw_drive(drive: Drive, path: Path) -> None:
    """One drive as a PNG: the whole of it, and beside it where it ended."""
    scenario = make_scenario(drive.family, drive.seed)
    figure = Figure(figsize=(12, 6.4), layout="constrained")
    whole, end = figure.subplots(1, 2)
    for axes in (whole, end):
        _draw(axes, scenario, drive)
    _show_whole(whole, scenario, drive)
    x, y = drive.trace.ego[-1, :2]
    end.set(xlim=(x - CLOSE_METRES / 2, x + CLOSE_METRES / 2), ylim=(y - CLOSE_METRES / 2, y + CLOSE_METRES / 2))
    outcome = drive.outcome
    figure.suptitle(
        f"{drive.driver}: {drive.family.replace('_', ' ')}, seed {drive.seed}, "
        f"{'passed' if outcome.passed else reasons(outcome)}; "
        f"{100 * outcome.completion:.0f} % of the route in {outcome.time_s:.1f} s"
    )
    whole.legend(loc="best", fontsize="small")
    figure.savefig(path, dpi=80)


def draw_overview(drives: Sequence[Drive], path: Path) -> None:
    """All drives of one driver as a PNG: a column for each family; green passed, red did not."""
    families = list(dict.fromkeys(drive.family for drive in drives))
    seeds = list(dict.fromkeys(drive.seed for drive in drives))
    figure = Figure(figsize=(INCHES * len(families) + 0.6, INCHES * len(seeds) + 0.8), layout="constrained")
    grid = figure.subplots(len(seeds), len(families), squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for drive in drives:
        scenario = make_scenario(drive.family, drive.seed)
        axes = grid[seeds.index(drive.seed), families.index(drive.family)]
        _draw(axes, scenario, drive)
        _show_whole(axes, scenario, drive)
    for axes, family in zip(grid[0], families, strict=True):
        axes.set_title(family.replace("_", "\n"), fontsize=9)
    for axes, seed in zip(grid[:, 0], seeds, strict=True):
        axes.text(-0.05, 0.5, seed, transform=axes.transAxes, ha="right", va="center", fontsize=8)
    passed = sum(drive.outcome.passed for drive in drives)
    figure.suptitle(f"{drives[0].driver}: {passed} of {len(drives)} passed", fontsize=11)
    figure.savefig(path, dpi=80)


def _draw(axes: Axes, scenario: Scenario, drive: Drive) -> None:
    axes.set_aspect("equal")
    axes.set_facecolor(GRASS)
    axes.tick_params(labelsize="x-small")
    road, trace = scenario.road, drive.trace
    for polygon in road.drivable:
        axes.add_patch(Polygon(polygon, facecolor=ASPHALT, edgecolor="none"))
    for polygon in road.crosswalks:
        axes.add_patch(Polygon(polygon, facecolor=STRIPES, edgecolor="white", hatch="||", linewidth=0))
    for divider in road.dividers:
        axes.plot(*divider.points.T, color=PAINT, linewidth=0.8)
    for line in road.stop_lines:
        axes.plot(*line.T, color=PAINT, linewidth=1.6)
    axes.plot(*_route(scenario).T, color=ROUTE, linewidth=1.0, linestyle="--", label="route")
    for actor in trace.actors:
        box = np.array([[actor.x, actor.y, actor.yaw, actor.size[0], actor.size[1]]])
        color = PEDESTRIAN if actor.category is Category.PEDESTRIAN else ACTOR
        color = FOCUS if actor.id in scenario.focus and color == ACTOR else color
        axes.add_patch(Polygon(corners(box)[0], facecolor=color, edgecolor="none", zorder=3))
    color = PASSED if drive.outcome.passed else FAILED
    axes.plot(trace.ego[:, 0], trace.ego[:, 1], color=color, linewidth=1.6, label="driven", zorder=4)
    x, y, yaw = trace.ego[-1, :3]
    centre = (x + EGO_CENTRE_AHEAD * np.cos(yaw), y + EGO_CENTRE_AHEAD * np.sin(yaw))
    ego = corners(np.array([[*centre, yaw, EGO_LENGTH, EGO_WIDTH]]))[0]
    axes.add_patch(Polygon(ego, facecolor="none", edgecolor=color, linewidth=1.4, zorder=5))
    if trace.plan is not None:
        axes.plot(*trace.plan.T, color=PLAN, marker=".", markersize=4, linewidth=1.0, label="last plan", zorder=6)


def _show_whole(axes: Axes, scenario: Scenario, drive: Drive) -> None:
    shown = np.concatenate([drive.trace.ego[:, :2], _route(scenario)])
    low, high = shown.min(axis=0) - MARGIN_METRES, shown.max(axis=0) + MARGIN_METRES
    half = float((high - low).max()) / 2
    x, y = (low + high) / 2
    axes.set(xlim=(x - half, x + half), ylim=(y - half, y + half))


def _route(scenario: Scenario) -> Array:
    """[N, 2] the points of the route from start to goal."""
    path = scenario.route.path
    return path.points[int(scenario.start_s / path.spacing) : int(np.ceil(scenario.goal_s / path.spacing)) + 1]
