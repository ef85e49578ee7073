"""`odv replay`: a policy over a bag, offline, as fast as the machine allows; the same input gives the same bytes."""

import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from opendrivevla_ros.cli.console import (
    console,
    errors,
    one_sentence_errors,
    progress_bar,
    summarize_times,
    times_table,
    write_json,
)
from opendrivevla_ros.cli.stand_in_messages import message_bytes, message_type, provide_messages
from opendrivevla_ros.core.installation import install_file
from opendrivevla_ros.core.observation import Observation
from opendrivevla_ros.core.plan import Plan, PlanError
from opendrivevla_ros.core.policy import DrivingPolicy
from opendrivevla_ros.core.rig import CameraRig
from opendrivevla_ros.datasets.bag_observations import BagObservations
from opendrivevla_ros.datasets.bag_topics import find_input_topics, read_topic_map
from opendrivevla_ros.datasets.bags import RIG_FILE, BagReader, BagWriter
from opendrivevla_ros.policies.registry import SHIPPED, load_policy
from opendrivevla_ros.sensing.calibration import load_rig, require_fit
from opendrivevla_ros.sensing.refusals import Refused

NODE = "/vla_node"  # outputs have the names that the node's would have
DEFAULT_RIG = "config/rig/nuscenes.yaml"


class _Recorder:
    """Writes the outcome of each attempt to a bag and counts."""

    def __init__(self, bag: BagWriter, markers_lifetime_s: float, banner: str) -> None:
        self._bag, self._lifetime_s, self._banner = bag, markers_lifetime_s, banner
        self.plans = 0
        self.refusals: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.times: dict[str, list[float]] = defaultdict(list)

    def plan(self, plan: Plan, observation: Observation, stamp_ns: int) -> None:
        """A plan with everything that comes with it, received at `stamp_ns`."""
        from opendrivevla_ros.ros import conversions
        from opendrivevla_ros.ros.markers import plan_markers

        ego = observation.ego
        reasoning = conversions.reasoning_message(plan.reasoning, plan.stamp_ns, ego.world_frame)
        self._write("output/trajectory", conversions.trajectory_message(plan, ego), stamp_ns)
        self._write("output/path", conversions.path_message(plan, ego), stamp_ns)
        self._write("output/reasoning", reasoning, stamp_ns)
        self._write("output/agents", conversions.agents_message(plan, ego), stamp_ns)
        self._write("output/map_elements", conversions.map_elements_message(plan, ego), stamp_ns)
        markers = plan_markers(plan, ego, lifetime_s=self._lifetime_s, banner=self._banner)
        self._write("debug/markers", markers, stamp_ns)
        status = conversions.plan_status_message(
            stamp_ns=plan.stamp_ns,
            frame_id=ego.world_frame,
            degraded=observation.degraded,
            age_s=(stamp_ns - plan.stamp_ns) / 1e9 + sum(plan.stage_times.values()),
            skew_s=observation.skew_ns / 1e9,
            stage_times=plan.stage_times,
            token_counts=plan.token_counts,
        )
        self._write("output/plan_status", status, stamp_ns)
        self.plans += 1
        for stage, seconds in plan.stage_times.items():
            self.times[stage].append(seconds)

    def no_plan(self, anchor_ns: int, stamp_ns: int, *, result: int, check: str, reason: str) -> None:
        """An attempt without a plan. check: the name under which it is counted."""
        from opendrivevla_ros.ros.conversions import plan_status_message

        self.refusals[check] += 1
        status = plan_status_message(stamp_ns=anchor_ns, result=result, failed_checks=[check], reason=reason)
        self._write("output/plan_status", status, stamp_ns)

    def _write(self, name: str, message: Any, stamp_ns: int) -> None:
        self._bag.write_bytes(f"{NODE}/{name}", message_type(message), message_bytes(message), stamp_ns)


def run_replay(
    bag: BagReader,
    policy: DrivingPolicy,
    rig: CameraRig,
    output: Path,
    *,
    topic_map: dict[str, str] | None = None,
    rate: float = 2.0,
    progress: Callable[[float], None] = lambda fraction: None,
) -> dict[str, Any]:
    """Plans from the observations of `bag` into the bag `output`/plans, with a summary beside it, which it returns.

    rate: plans per second of bag time at most, 0 for one from every set of pictures. Raises BagError.
    """
    provide_messages()
    inputs = find_input_topics(bag, topic_map)
    info = policy.info
    source = BagObservations(bag, inputs, rig, image_size=info.image_size, rate=rate)
    banner = info.model_id if info.trained else f"{info.model_id}: UNTRAINED, its plans mean nothing"
    started = time.monotonic()
    policy.reset()
    with BagWriter(output / "plans") as writer:
        recorder = _Recorder(writer, markers_lifetime_s=2 / rate if rate else 1.0, banner=banner)
        for item in source:
            _attempt(policy, item, recorder, source.stamp_ns)
            progress((source.stamp_ns - bag.start_ns) / max(1, bag.end_ns - bag.start_ns))
    wall_s = time.monotonic() - started
    summary = {
        "bag": str(bag.path),
        "bag_seconds": round(bag.duration_s, 3),
        "policy": info.model_id,
        "trained": info.trained,
        "weights_hash": info.weights_hash,
        "plans": recorder.plans,
        "refusals": dict(recorder.refusals),
        "dropped_messages": dict(recorder.dropped),
        "stage_times": summarize_times(recorder.times),
        "wall_seconds": round(wall_s, 3),
        "times_real_time": round(bag.duration_s / wall_s, 2),
        "warnings": bag.warnings,
    }
    write_json(output / "summary.json", summary)
    return summary


def _attempt(policy: DrivingPolicy, item: Observation | Refused, recorder: _Recorder, stamp_ns: int) -> None:
    if isinstance(item, Refused):
        if item.reason.clears_state:
            policy.reset()
        if item.ends_attempt:
            result, check = item.reason.failure.value, item.reason.value
            recorder.no_plan(item.stamp_ns, stamp_ns, result=result, check=check, reason=item.message)
        else:
            recorder.dropped[f"{item.source} {item.reason.value}"] += 1
        return
    started = time.monotonic()
    try:
        plan = policy.plan(item)
    except PlanError as error:
        check = error.failure.name.lower()
        recorder.no_plan(item.stamp_ns, stamp_ns, result=error.failure.value, check=check, reason=str(error))
        return
    recorder.times["whole plan"].append(time.monotonic() - started)
    recorder.plan(plan, item, stamp_ns)


def rig_of(bag: Path, rig_file: Path | None) -> CameraRig:
    """The rig of a bag: of the given file, else of rig.yaml in the bag's folder, else of nuScenes' vehicles."""
    beside = (bag if bag.is_dir() else bag.parent) / RIG_FILE
    path = rig_file or (beside if beside.is_file() else install_file(DEFAULT_RIG))
    rig = load_rig(path)
    require_fit(rig)
    return rig


BagArgument = Annotated[Path, typer.Argument(help="A bag's folder, or its .mcap or .db3 file.")]
PolicyOption = Annotated[str | None, typer.Option(help="Name or checkpoint folder; default: the shipped one.")]
OutputOption = Annotated[Path, typer.Option(help="Folder for the bag of plans and summary.json.")]
RigOption = Annotated[Path | None, typer.Option(help="Calibration file; default: the bag's rig.yaml, else nuScenes'.")]
TopicsOption = Annotated[Path | None, typer.Option(help="Topic map; default: topics are found by type and name.")]
RateOption = Annotated[float, typer.Option(min=0.0, help="Plans per second of bag time; 0: from every picture set.")]


def replay(
    bag: BagArgument,
    policy: PolicyOption = None,
    output: OutputOption = Path("replay_output"),
    rig: RigOption = None,
    topics: TopicsOption = None,
    rate: RateOption = 2.0,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    precision: Annotated[str, typer.Option(help="float32, bfloat16 or int8.")] = "float32",
    seed: Annotated[int, typer.Option(min=0, help="Of random weights and of sampling.")] = 0,
) -> None:
    """Run a policy over a bag offline; writes plans, reasoning, agents, map elements and markers to a bag."""
    with one_sentence_errors(), BagReader(bag) as reader:
        find_input_topics(reader, topic_map := read_topic_map(topics) if topics else None)
        calibration = rig_of(bag, rig)
        name = policy or SHIPPED
        with console.status(f"loading {name}"):
            driver = load_policy(name, device=device, precision=precision, seed=seed)
        output.mkdir(parents=True, exist_ok=True)
        with progress_bar() as bar:
            task = bar.add_task("replay", total=1.0)
            summary = run_replay(
                reader,
                driver,
                calibration,
                output,
                topic_map=topic_map,
                rate=rate,
                progress=lambda fraction: bar.update(task, completed=fraction),
            )
    _print_summary(summary, output)
    if not summary["plans"]:
        reasons = (
            ", ".join(f"{name} ({count})" for name, count in summary["refusals"].items()) or "no whole picture set"
        )
        errors.print(f"[red]error:[/red] no plan came from {bag}: {reasons}; see the reasons in {output}/plans")
        raise typer.Exit(1)


def _print_summary(summary: dict[str, Any], output: Path) -> None:
    console.print(f"{summary['bag']} through {summary['policy']}", soft_wrap=True)
    table = Table("outcome", "count")
    table.add_row("plans", str(summary["plans"]))
    for name, count in summary["refusals"].items():
        table.add_row(f"no plan: {name}", str(count))
    for name, count in summary["dropped_messages"].items():
        table.add_row(f"message dropped: {name}", str(count))
    console.print(table)
    console.print(times_table(summary["stage_times"]))
    if not summary["trained"]:
        console.print("[yellow]the weights are random: these plans mean nothing[/yellow]")
    for warning in summary["warnings"]:
        console.print(f"[yellow]warning:[/yellow] {warning}", soft_wrap=True)
    speed = f"{summary['bag_seconds']} s of bag in {summary['wall_seconds']} s"
    console.print(f"{speed}; plans in {output}/plans, figures in {output}/summary.json", soft_wrap=True)
