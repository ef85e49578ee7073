"""`odv demo`: the main job end to end over real DDS: a bag of six cameras into the node, its plans written down."""

import heapq
import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer
from rich.table import Table

from opendrivevla_ros.cli.console import (
    CommandError,
    console,
    one_sentence_errors,
    progress_bar,
    shipped_policy,
    summarize_times,
    times_table,
    write_json,
)
from opendrivevla_ros.cli.processes import Process, loopback_environment
from opendrivevla_ros.datasets.bags import RIG_FILE, BagReader, BagWriter
from opendrivevla_ros.datasets.synthetic_bag import write_synthetic_bag
from opendrivevla_ros.ros.command_node import ros_node
from opendrivevla_ros.ros.listener import OUTPUTS, STAMPED_PLANS, Heard, Listener

LOADING_TIMEOUT_S = 120.0
DISCOVERY_TIMEOUT_S = 15.0
LAST_PLAN_TIMEOUT_S = 30.0
QUIET_S = 1.5  # without a plan for so long after the bag's end, no more are awaited
PICTURES = 3


def demo(
    output: Annotated[Path, typer.Option(help="Folder for pictures, the bag and summary.json.")] = Path("demo_output"),
    policy: Annotated[str | None, typer.Option(help="Name or checkpoint folder; default: the shipped one.")] = None,
    seconds: Annotated[float, typer.Option(min=2.0, max=60.0, help="Length of the drive.")] = 6.0,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    domain: Annotated[int | None, typer.Option(min=0, max=101, help="ROS domain; default: one of its own.")] = None,
) -> None:
    """Drive a street that exists only in numbers: six cameras over DDS into vla_node, plans and pictures out."""
    domain = 50 + os.getpid() % 50 if domain is None else domain
    with one_sentence_errors():
        summary = run_demo(output, policy or shipped_policy(), seconds=seconds, device=device, domain=domain)
    _print_summary(summary, output)


def run_demo(output: Path, policy: str, *, seconds: float, device: str, domain: int) -> dict[str, Any]:
    """Writes pictures, a bag of inputs and outputs, logs and summary.json to `output`; returns the summary.

    Raises CommandError when no plan comes. What it starts has ended when it returns.
    """
    started = time.monotonic()
    output.mkdir(parents=True, exist_ok=True)
    os.environ.update(loopback_environment(domain))
    source = output / "input"
    with ros_node("odv_demo") as node, progress_bar() as bar:
        task = bar.add_task("drawing six cameras", total=1.0)
        write_synthetic_bag(source, duration_s=seconds, progress=lambda done: bar.update(task, completed=done))
        bar.update(task, description=f"loading {policy}", completed=0, total=None)
        heard = _drive(node, output, source, policy, device=device, seconds=seconds, bar=bar)
        bar.update(task, description="writing pictures and the bag")
        pictures = _write_pictures(output, heard)
        _write_bag(output / "bag", source, heard)
    plans = heard.counts["output/trajectory"]
    if not plans:
        reasons = "; ".join(heard.reasons.values()) or "the node gave no reason"
        raise CommandError(f"no plan came ({reasons}); see {output}/vla_node.log")
    summary = {
        "policy": heard.status.model_id,
        "trained": bool(heard.status.trained),
        "weights_hash": heard.status.weights_hash,
        "drive_seconds": seconds,
        "plans": plans,
        "refusals": dict(heard.refusals),
        "topics": _topic_figures(heard, seconds),
        "stage_times": summarize_times(heard.stage_times),
        "pictures": pictures,
        "total_seconds": round(time.monotonic() - started, 1),
    }
    write_json(output / "summary.json", summary)
    return summary


def _drive(node: Any, output: Path, source: Path, policy: str, *, device: str, seconds: float, bar: Any) -> Heard:
    """Plays the bag into a node, each in a process of its own, and listens in this one."""
    task = bar.task_ids[0]
    arguments = ["--ros-args", "-p", f"policy:={policy}", "-p", f"device:={device}", "-p", "use_sim_time:=true"]
    # No deadline: a slow machine's plans are late, and the table says how late, but they come.
    arguments += ["-p", f"rig_file:={(source / RIG_FILE).absolute()}", "-p", "deadline:=0.0"]
    with ExitStack() as stack:
        with BagReader(source) as inputs:
            listener = Listener(node, ends_ns=inputs.end_ns)
        heard = listener.heard
        planner = stack.enter_context(_start("vla_node", "ros.vla_node", arguments, output))
        _wait_until_ready(listener, planner)
        bar.update(task, description="driving", total=seconds)
        # both the node and this process must hear the clock before the bag begins
        playing = ["play", str(source), "--wait", str(DISCOVERY_TIMEOUT_S), "--clock-readers", "2"]
        player = stack.enter_context(_start("odv play", "cli.main", playing, output))

        def played() -> bool:
            bar.update(task, completed=max(0.0, seconds - (listener.ends_ns - listener.bag_time_ns) / 1e9))
            _require_running(planner)
            return player.exit_code is not None

        if not listener.spin_until(played, DISCOVERY_TIMEOUT_S + 3 * seconds + 10):
            raise CommandError(f"the bag did not come to its end; see {player.log}")
        if player.exit_code:
            raise CommandError(f"odv play failed: {player.last_words}")
        ended = time.monotonic()

        def quiet() -> bool:
            _require_running(planner)
            return bool(heard.newest_plan) and time.monotonic() > max(ended, heard.newest_plan) + QUIET_S

        listener.spin_until(quiet, LAST_PLAN_TIMEOUT_S)
        code = planner.stop()
        if code:
            raise CommandError(f"vla_node ended with exit code {code}: {planner.last_words}; see {planner.log}")
    return heard


def _start(name: str, module: str, arguments: list[str], output: Path) -> Process:
    log = output / f"{name.replace(' ', '_')}.log"
    return Process(name, f"opendrivevla_ros.{module}", arguments, log=log)


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


def _write_pictures(output: Path, heard: Heard) -> list[str]:
    """Some of the overviews that the node drew, from the later part of the drive, where it has seen something."""
    for old in output.glob("overview_*.png"):
        old.unlink()
    chosen = np.linspace(len(heard.overviews) // 4, len(heard.overviews) - 1, PICTURES).round().astype(int)
    names = []
    for number, index in enumerate(sorted(set(chosen)) if heard.overviews else [], start=1):
        picture = cv2.imdecode(np.frombuffer(heard.overviews[index], np.uint8), cv2.IMREAD_COLOR)
        names.append(f"overview_{number}.png")
        cv2.imwrite(str(output / names[-1]), picture)
    return names


def _write_bag(path: Path, source: Path, heard: Heard) -> None:
    """One bag of what went in and what came out, by bag time."""
    with BagReader(source) as inputs, BagWriter(path) as bag:
        outputs = sorted(heard.messages, key=lambda message: message.stamp_ns)
        for name, topic in inputs.topics.items():
            bag.add_topic(name, topic.type, latched=topic.latched)
        for message in heapq.merge(inputs.messages(), outputs, key=lambda message: message.stamp_ns):
            bag.write_bytes(message.topic, message.type, message.data, message.stamp_ns)


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


def _print_summary(summary: dict[str, Any], output: Path) -> None:
    table = Table("output", "count", "Hz", "p50 ms", "p95 ms")
    for name, row in summary["topics"].items():
        latency = [f"{row[key]:.0f}" if key in row else "" for key in ("p50_ms", "p95_ms")]
        table.add_row(name, str(row["count"]), f"{row['rate_hz']:.1f}", *latency)
    console.print(table)
    console.print(times_table(summary["stage_times"]))
    trained = "yes" if summary["trained"] else "[yellow]no: the weights are random, so the plans mean nothing[/yellow]"
    console.print(f"policy {summary['policy']}, trained: {trained}")
    for name, count in summary["refusals"].items():
        console.print(f"attempts without a plan: {count} {name}")
    pictures = ", ".join(summary["pictures"])
    console.print(
        f"{summary['plans']} plans over DDS, {summary['total_seconds']} s in all; in {output}/: {pictures}, "
        "bag/ (inputs and outputs), summary.json",
        soft_wrap=True,
    )
