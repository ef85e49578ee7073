"""`odv demo`: the main job end to end over real DDS: a policy drives the world, and what it did is written down."""

import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from opendrivevla_ros.cli.console import (
    CommandError,
    console,
    one_sentence_errors,
    progress_bar,
    summarize_times,
    times_table,
    write_json,
)
from opendrivevla_ros.cli.demo_pictures import write_birds_eyes, write_gif, write_overviews
from opendrivevla_ros.cli.processes import Process, loopback_environment
from opendrivevla_ros.core.installation import install_file
from opendrivevla_ros.core.rig import CAMERA_NAMES
from opendrivevla_ros.datasets.bag_messages import deserialize, nanoseconds
from opendrivevla_ros.datasets.bag_storage import BagMessage
from opendrivevla_ros.datasets.bags import RIG_FILE, BagWriter
from opendrivevla_ros.policies.registry import SHIPPED
from opendrivevla_ros.ros import demo_guard
from opendrivevla_ros.ros.command_node import ros_node
from opendrivevla_ros.ros.listener import OUTPUTS, STAMPED_PLANS, Heard, Listener

RIG = "config/rig/world.yaml"  # of the pictures that world_node makes by default
# Each output of world_node, the input of vla_node that takes it, and its type.
SENSORS = {
    "output/odometry": ("input/odometry", "nav_msgs/msg/Odometry"),
    "output/command": ("input/command", "opendrivevla_ros/msg/DrivingCommand"),
    **{
        f"output/{camera}/{name}": (f"input/{camera}/{name}", f"sensor_msgs/msg/{kind}")
        for camera in CAMERA_NAMES
        for name, kind in (("image/compressed", "CompressedImage"), ("camera_info", "CameraInfo"))
    },
}
STATUS, AGENTS, MAP = (f"/world_node/truth/{name}" for name in ("status", "agents", "map_elements"))
RECORDED = {
    **{f"/vla_node/{name}": kind for name, kind in SENSORS.values()},
    STATUS: "opendrivevla_ros/msg/WorldStatus",
    AGENTS: "opendrivevla_ros/msg/DetectedAgentArray",
    MAP: "opendrivevla_ros/msg/MapElementArray",
    **demo_guard.RECORDED,
}
LATCHED = ("/vla_node/input/command", STATUS, MAP)
WORLDS = {topic for topic in RECORDED if topic not in demo_guard.RECORDED}  # sent by world_node

LOADING_TIMEOUT_S = 120.0
START_TIMEOUT_S = 30.0
SLOWEST = 3  # a drive that takes so many times its length is given up
LAST_PLAN_TIMEOUT_S = 30.0
QUIET_S = 1.5  # without a plan for so long after the drive's end, no more are awaited
LINES = 6
LEAD_IN_S = 3.0  # the world's expert drives until the guard has seen good plans for long enough to be armed


def demo(
    output: Annotated[Path, typer.Option(help="Folder for pictures, the bag and summary.json.")] = Path("demo_output"),
    policy: Annotated[str | None, typer.Option(help="Name or checkpoint folder; default: the shipped one.")] = None,
    family: Annotated[str, typer.Option(help="Scenario family of the world.")] = "junction_left",
    seed: Annotated[int, typer.Option(min=0, help="Of the scenario; those of tests end in 9.")] = 49,
    seconds: Annotated[float, typer.Option(min=2.0, max=60.0, help="Longest time to drive.")] = 25.0,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    domain: Annotated[int | None, typer.Option(min=0, max=101, help="ROS domain; default: one of its own.")] = None,
) -> None:
    """Drive the synthetic world: world, planner and guard over DDS, in a closed loop; pictures and a bag out."""
    domain = 50 + os.getpid() % 50 if domain is None else domain
    scenario = ["-p", f"family:={family}", "-p", f"seed:={seed}", "-p", f"duration:={seconds}"]
    with one_sentence_errors():
        summary = run_demo(output, policy or SHIPPED, scenario, seconds=seconds, device=device, domain=domain)
    _print_summary(summary, output)


def run_demo(
    output: Path, policy: str, scenario: list[str], *, seconds: float, device: str, domain: int
) -> dict[str, Any]:
    """Writes pictures, a bag of inputs and outputs, logs and summary.json to `output`; returns the summary.

    scenario: arguments of world_node. Raises CommandError when no plan comes. What it starts has ended when it
    returns.
    """
    started = time.monotonic()
    output.mkdir(parents=True, exist_ok=True)
    os.environ.update(loopback_environment(domain))
    with ros_node("odv_demo") as node, progress_bar() as bar:
        task = bar.add_task(f"loading {policy}", total=None)
        listener = Listener(node, others=RECORDED, latched=LATCHED)
        arming = demo_guard.Arming(node)
        _drive(listener, arming, output, policy, scenario, device=device, seconds=seconds, bar=bar)
        heard = listener.heard
        bar.update(task, description="writing pictures and the bag")
        pictures = write_overviews(output, heard.overviews)
        pictures += write_birds_eyes(output, heard.messages, agents=AGENTS, roads=MAP)
        pictures += write_gif(output, heard.overviews)
        _write_bag(output / "bag", heard)
    plans = heard.counts["output/trajectory"]
    if not plans:
        reasons = "; ".join(heard.reasons.values()) or "the node gave no reason"
        raise CommandError(f"no plan came ({reasons}); see {output}/vla_node.log")
    end = heard.newest[STATUS]
    summary = {
        "policy": heard.status.model_id,
        "trained": bool(heard.status.trained),
        "weights_hash": heard.status.weights_hash,
        "scenario": f"{end.family} {end.seed}",
        "outcome": _outcome(end),
        "drive_seconds": round(end.elapsed, 2),
        "route_completion": round(end.completion, 3),
        "collision": end.collision,
        "off_road": bool(end.off_road),
        "plans": plans,
        "plans_followed": int(end.plans),
        "plan_rate_hz": round(plans / end.elapsed, 2),
        "refusals": dict(heard.refusals),
        "guard": demo_guard.figures(heard, arming),
        "topics": _topic_figures(heard, end.elapsed),
        "stage_times": summarize_times(heard.stage_times),
        "reasoning": _reasoning(heard),
        "pictures": pictures,
        "total_seconds": round(time.monotonic() - started, 1),
    }
    write_json(output / "summary.json", summary)
    return summary


def _drive(
    listener: Listener,
    arming: demo_guard.Arming,
    output: Path,
    policy: str,
    scenario: list[str],
    *,
    device: str,
    seconds: float,
    bar: Any,
) -> None:
    """Runs planner, guard and world, each in a process of its own, to the end of the drive, and listens here."""
    task, heard = bar.task_ids[0], listener.heard
    # No deadline: a slow machine's plans are late, and the vehicle drives as it can with them, but they come.
    planning = [
        "-p",
        f"policy:={policy}",
        "-p",
        f"device:={device}",
        "-p",
        "use_sim_time:=true",
        "-p",
        "deadline:=0.0",
    ]
    planning += ["-p", f"rig_file:={install_file(RIG)}"]
    # both the planner and this process must hear everything before time begins
    world_arguments = [
        "--ros-args",
        *scenario,
        "-p",
        "readers:=2",
        "-p",
        f"lead_in:={LEAD_IN_S}",
        "-r",
        f"~/input/trajectory:={demo_guard.PLANS}",
    ]
    for name, (wired, _) in SENSORS.items():
        world_arguments += ["-r", f"~/{name}:=/vla_node/{wired}"]
    with ExitStack() as stack:
        # the guard first: it finds the planner while that loads, not in the seconds in which it is to be armed
        guard = stack.enter_context(_start("plan_guard", demo_guard.arguments(output), output))
        planner = stack.enter_context(_start("vla_node", ["--ros-args", *planning], output))
        _wait_until_ready(listener, planner)
        world = stack.enter_context(_start("world_node", world_arguments, output))

        def running() -> bool:
            _require_running(planner)
            _require_running(guard)
            return world.exit_code is not None or listener.time_ns > 0

        if not listener.spin_until(running, START_TIMEOUT_S):
            raise CommandError(f"the world did not begin ({world.last_words}); see {world.log}")
        bar.update(task, description="driving", total=seconds)

        def over() -> bool:
            if STATUS in heard.newest:
                bar.update(task, completed=heard.newest[STATUS].elapsed)
            _require_running(planner)
            _require_running(guard)
            arming.poll()
            return world.exit_code is not None

        if not listener.spin_until(over, SLOWEST * seconds):
            raise CommandError(f"the drive did not come to its end; see {world.log}")
        if world.exit_code:
            raise CommandError(f"world_node failed: {world.last_words}")
        listener.inputs_ended = True
        ended = time.monotonic()

        def quiet() -> bool:
            _require_running(planner)
            return time.monotonic() > max(ended, heard.newest_plan) + QUIET_S

        listener.spin_until(quiet, LAST_PLAN_TIMEOUT_S)
        for process in (planner, guard):
            if code := process.stop():
                raise CommandError(
                    f"{process.name} ended with exit code {code}: {process.last_words}; see {process.log}"
                )


def _start(name: str, arguments: list[str], output: Path) -> Process:
    return Process(name, f"opendrivevla_ros.ros.{name}", arguments, log=output / f"{name}.log")


def _require_running(process: Process) -> None:
    if process.exit_code is not None:
        raise CommandError(f"{process.name} ended by itself: {process.last_words}; see {process.log}")


def _wait_until_ready(listener: Listener, planner: Process) -> None:
    def ready() -> bool:
        _require_running(planner)
        status = listener.heard.status
        if status is not None and status.state == status.FAULT:
            raise CommandError(f"vla_node cannot plan: {status.reason}")
        return status is not None and status.state in (status.WAITING, status.PLANNING, status.DEGRADED)

    if not listener.spin_until(ready, LOADING_TIMEOUT_S):
        state = listener.heard.status.reason if listener.heard.status else "it was never heard"
        raise CommandError(f"vla_node was not ready within {LOADING_TIMEOUT_S:.0f} s ({state}); see {planner.log}")


def _write_bag(path: Path, heard: Heard) -> None:
    """One bag of what went in, what came out and what was true, by world time, with the rig beside it.

    What the world sent stands at its stamp, which is when it was sent: a busy machine hears it later.
    """
    messages = sorted((_when_sent(message) for message in heard.messages), key=lambda message: message.stamp_ns)
    begin_ns = next((message.stamp_ns for message in messages if message.stamp_ns), 0)
    with BagWriter(path) as bag:
        for topic in LATCHED:
            bag.add_topic(topic, RECORDED[topic], latched=True)
        for message in messages:
            bag.write_bytes(message.topic, message.type, message.data, max(begin_ns, message.stamp_ns))
    (path / RIG_FILE).write_bytes(install_file(RIG).read_bytes())


def _when_sent(message: BagMessage) -> BagMessage:
    if message.topic not in WORLDS:
        return message
    return message._replace(stamp_ns=nanoseconds(deserialize(message.data, message.type).header.stamp))


def _outcome(status: Any) -> str:
    return {
        status.ARRIVED: "arrived",
        status.COLLIDED: f"collided with a {status.collision}",
        status.OUT_OF_TIME: "still driving when the time was over",
    }[status.state]


def _topic_figures(heard: Heard, seconds: float) -> dict[str, dict[str, float]]:
    """Count, rate over the drive, and latency from the stamp of the anchor picture, by output."""
    latencies = summarize_times({name: heard.latencies[name] for name in STAMPED_PLANS})
    return {
        name: {
            "count": heard.counts[name],
            "rate_hz": round(heard.counts[name] / seconds, 2),
            **latencies.get(name, {}),
        }
        for name in OUTPUTS
    }


def _reasoning(heard: Heard) -> list[str]:
    """What the model said in the course of the drive, with the seconds since its first words."""
    words = [(stamp_ns, " ".join(text.split())) for stamp_ns, text in heard.words if text]
    chosen = words[:: max(1, len(words) // LINES)][:LINES]
    return [f"{(stamp_ns - words[0][0]) / 1e9:.1f} s: {text}" for stamp_ns, text in chosen]


def _print_summary(summary: dict[str, Any], output: Path) -> None:
    table = Table("output", "count", "Hz", "p50 ms", "p95 ms")
    for name, row in summary["topics"].items():
        latency = [f"{row[key]:.0f}" if key in row else "" for key in ("p50_ms", "p95_ms")]
        table.add_row(name, str(row["count"]), f"{row['rate_hz']:.1f}", *latency)
    console.print(table)
    console.print(times_table(summary["stage_times"]))
    for line in summary["reasoning"]:
        console.print(line, markup=False, soft_wrap=True)
    trained = "yes" if summary["trained"] else "[yellow]no: the weights are random, so the plans mean nothing[/yellow]"
    console.print(f"policy {summary['policy']}, trained: {trained}")
    for reason, count in summary["guard"]["reasons"].items():
        console.print(f"the guard, in {count} cycles: {reason}", markup=False, soft_wrap=True)
    for name, count in summary["refusals"].items():
        console.print(f"attempts without a plan: {count} {name}")
    latency = summary["topics"]["output/trajectory"]
    figures = Table(show_header=False)
    figures.add_row("scenario", summary["scenario"])
    figures.add_row("outcome", f"{summary['outcome']} after {summary['drive_seconds']:.1f} s")
    figures.add_row("route completion", f"{summary['route_completion']:.0%}")
    figures.add_row("collisions", summary["collision"] or "none")
    figures.add_row("off the road", "yes" if summary["off_road"] else "no")
    figures.add_row("guard", demo_guard.line(summary["guard"]))
    figures.add_row("plans", f"{summary['plans']}, {summary['plan_rate_hz']:.1f} Hz")
    figures.add_row("stamp to plan", f"p50 {latency['p50_ms']:.0f} ms, p95 {latency['p95_ms']:.0f} ms")
    console.print(figures)
    console.print(
        f"{summary['total_seconds']} s in all; in {output}/: {', '.join(summary['pictures'])}, "
        "bag/ (inputs, outputs and truth), summary.json",
        soft_wrap=True,
    )
