"""How a vla_node process starts and ends: refused configurations with their reasons, loading, Ctrl-C at any moment."""

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from action_msgs.msg import GoalStatus
from lifecycle_msgs.msg import Transition
from nav_msgs.msg import Odometry
from opendrivevla_ros.action import AskScene
from opendrivevla_ros.msg import DrivingCommand, VlaStatus
from rclpy.qos import ReliabilityPolicy
from ros.harness import Client, NodeProcess, own_domain, synthetic_rig
from rosgraph_msgs.msg import Clock

from opendrivevla_ros.core.rig import CameraRig
from opendrivevla_ros.language.small_tokenizer import build_small_tokenizer
from opendrivevla_ros.policies.opendrivevla import config as configs
from opendrivevla_ros.policies.opendrivevla.model import random_model, save_model
from opendrivevla_ros.ros import qos
from opendrivevla_ros.ros.conversions import nanoseconds
from opendrivevla_ros.sensing.calibration import save_rig

RANDOM = "opendrivevla-small-random"
Start = Callable[..., tuple[NodeProcess, Client]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a node with parameters, and a client for it."""
    started: list[tuple[NodeProcess, Client]] = []

    def start(**parameters: object) -> tuple[NodeProcess, Client]:
        domain = own_domain()
        client = Client(domain)
        node = NodeProcess(tmp_path / f"node{len(started)}", domain, **parameters)
        started.append((node, client))
        return node, client

    yield start
    for node, client in started:
        node.end()
        client.close()


def _swapped_rig() -> CameraRig:
    rig = synthetic_rig()
    left, right = rig["cam_front_left"], rig["cam_front_right"]
    swaps = {left.name: right.camera_to_base, right.name: left.camera_to_base}
    return CameraRig(tuple(replace(c, camera_to_base=swaps.get(c.name, c.camera_to_base)) for c in rig.cameras))


def _checkpoints(folder: Path) -> dict[str, Path]:
    """A truncated checkpoint, and one whose weights are of another shape than its configuration says."""
    tokenizer = build_small_tokenizer()
    config = configs.small(len(tokenizer), int(tokenizer.eos_token_id))
    model = random_model(config, 0)
    for name in ("truncated", "other_shape"):
        save_model(model, folder / name, card="# for a test\n")
        tokenizer.save_pretrained(folder / name)
    weights = folder / "truncated" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])
    changed = folder / "other_shape" / "config.json"
    text = changed.read_text()
    number = f'"ffn_dim": {config.perception.ffn_dim}'
    assert number in text
    changed.write_text(text.replace(number, f'"ffn_dim": {2 * config.perception.ffn_dim}'))
    return {name: folder / name for name in ("truncated", "other_shape")}


def test_configure_names_what_is_wrong_until_all_is_right(start: Start, tmp_path: Path) -> None:
    """One node, one wrong parameter after the other; at last it plans."""
    save_rig(_swapped_rig(), tmp_path / "swapped.yaml")
    checkpoints = _checkpoints(tmp_path)
    node, client = start(autostart=False, sync__slop=5.0, policy="constant_velocity")
    client.wait_for_state(VlaStatus.UNCONFIGURED)
    rig_file = str(tmp_path / "node0" / "rig.yaml")
    wrong: list[tuple[str, object, object, list[str]]] = [
        ("sync.slop", None, 0.05, ["sync.slop is 5.0, outside 0.001 to 1 s"]),
        ("rig_file", "", rig_file, ["rig_file is empty"]),
        ("rig_file", "/nowhere/rig.yaml", rig_file, ["/nowhere/rig.yaml"]),
        ("rig_file", str(tmp_path / "swapped.yaml"), rig_file, ["cam_front_left", "cam_front_right", "swapped"]),
        ("extrinsics", "tf", "file", ["tf2_ros"]),
        ("sync.method", "message_filters", "own", ["message_filters"]),
        ("policy", "/nowhere/weights", RANDOM, ["/nowhere/weights"]),
        ("policy", str(checkpoints["truncated"]), RANDOM, ["truncated"]),
        ("policy", str(checkpoints["other_shape"]), "constant_velocity", ["other_shape"]),
        ("sync.gap_limit", 0.1, 2.0, []),
    ]
    for name, value, remedy, words in wrong:
        if value is not None:
            assert client.set_parameter(name, value) == ""
        if words:
            assert not client.change_state(Transition.TRANSITION_CONFIGURE), name
            status = client.wait_for_state(VlaStatus.FAULT)
            assert all(word in status.reason for word in words), status.reason
            client.wait_for_diagnostics("model", words[0])
        assert client.set_parameter(name, remedy) == ""
    assert client.change_state(Transition.TRANSITION_CONFIGURE)
    client.wait_for_state(VlaStatus.INACTIVE)
    assert client.change_state(Transition.TRANSITION_ACTIVATE)
    client.wait_for_plan(client.now_ns())
    assert node.interrupt() == 0


def test_unknown_parameters_and_overrides_of_no_endpoint_are_refused_by_name(start: Start) -> None:
    _, client = start(polcy="constant_velocity")
    _, other_client = start(**{"qos_overrides./vla_node/input/odometri.subscription.depth": 7})
    client.wait_for_state(VlaStatus.FAULT, "polcy is unknown")
    other_client.wait_for_state(VlaStatus.FAULT, "odometri.subscription.depth overrides no endpoint")


def test_intrinsics_come_from_camera_info_where_the_file_has_none(start: Start, tmp_path: Path) -> None:
    save_rig(synthetic_rig(), tmp_path / "whole.yaml")
    document = yaml.safe_load((tmp_path / "whole.yaml").read_text())
    for camera in document["cameras"].values():
        del camera["width"], camera["height"], camera["intrinsics"]
    extrinsics = tmp_path / "extrinsics.yaml"
    extrinsics.write_text(yaml.safe_dump(document))
    _, refused = start(rig_file=str(extrinsics))
    refused.wait_for_state(VlaStatus.FAULT, "lacks height, intrinsics, width")
    _, client = start(rig_file=str(extrinsics), intrinsics="camera_info")
    client.wait_for_plan(0)


def test_message_filters_forms_the_sets_where_it_is_installed(start: Start) -> None:
    if importlib.util.find_spec("message_filters") is None:
        pytest.skip("sync.method message_filters was not run: message_filters is not installed (a full ROS 2 has it)")
    _, client = start(sync__method="message_filters")
    client.wait_for_plan(0)


def test_under_simulated_time_the_node_waits_for_the_clock_and_follows_it_when_it_jumps(start: Start) -> None:
    """As when a bag is played in a loop: stamps and /clock go back together."""
    node, client = start(use_sim_time=True)
    client.wait_for_state(VlaStatus.WAITING, "/clock")
    publisher = client.node.create_publisher(Clock, "/clock", qos.reliable(10))

    def ticking(message: Odometry) -> list[Odometry]:
        publisher.publish(Clock(clock=message.header.stamp))
        return [message]

    with client.spoiled(odometry=ticking):
        client.wait_for_plan(client.now_ns())
    assert not any(s.result == s.CLOCK_JUMP for s in client.received["output/plan_status"])
    since = len(client.received["output/plan_status"])
    with client.spoiled(odometry=ticking, offset_ns=-30_000_000_000):
        client.wait_for("output/plan_status", lambda s: s.result == s.CLOCK_JUMP, since=since)
        of_the_past = lambda plan: nanoseconds(plan.header.stamp) < client.now_ns() - 29_000_000_000  # noqa: E731
        client.wait_for("output/trajectory", of_the_past, what="a plan of the second round")
    assert node.interrupt() == 0
    assert "Traceback" not in node.output()


def test_plans_from_less_than_all_cameras_are_marked_as_degraded(start: Start) -> None:
    _, client = start(sync__missing_camera="blank")
    client.wait_for_plan(0)
    with client.spoiled(image={"cam_back": lambda message: []}):
        client.wait_for_state(VlaStatus.DEGRADED, "cam_back blank")
        client.wait_for("output/plan_status", lambda s: list(s.degraded) == ["cam_back blank"] and s.result == s.OK)
        client.wait_for_diagnostics("plan", "cam_back blank")
    client.wait_for_state(VlaStatus.PLANNING)


def test_qos_is_overridden_by_parameters_and_incompatible_writers_are_named(start: Start) -> None:
    node, client = start(**{"qos_overrides./vla_node/input/odometry.subscription.reliability": "reliable"})
    client.wait_for_plan(0)
    (reader,) = client.node.get_subscriptions_info_by_topic("/vla_node/input/odometry")
    assert reader.qos_profile.reliability == ReliabilityPolicy.RELIABLE
    publisher = client.node.create_publisher(DrivingCommand, "/vla_node/input/command", qos.reliable(1))
    client.wait_for_diagnostics("plan", "incompatible QoS")
    client.drop(lambda: client.node.destroy_publisher(publisher))
    assert "incompatible QoS" in node.output()


def test_the_heartbeat_goes_on_while_weights_load_and_the_random_network_plans(start: Start) -> None:
    node, client = start(policy=RANDOM, deadline=60.0, plan_timeout=60.0, autostart=False)
    client.wait_for_state(VlaStatus.UNCONFIGURED)
    assert client.change_state(Transition.TRANSITION_CONFIGURE)
    assert client.change_state(Transition.TRANSITION_ACTIVATE)
    client.wait_for_state(VlaStatus.PLANNING, timeout_s=90.0)
    plan = client.wait_for_plan(0)
    assert nanoseconds(plan.header.stamp) in client.sent
    status = client.received["output/status"][-1]
    assert (status.model_id, status.trained, len(status.weights_hash)) == (RANDOM, False, 64)
    plan_status = client.wait_for("output/plan_status", lambda s: s.header.stamp == plan.header.stamp)
    assert "generated" in plan_status.token_kinds
    assert client.wait_for("output/agents", lambda a: len(a.agents) > 0)
    assert client.wait_for("output/map_elements", lambda m: len(m.elements) > 0)
    client.wait_for_diagnostics("model", f"{RANDOM} has random weights: its plans mean nothing")
    stamps = [nanoseconds(s.header.stamp) for s in client.received["output/status"] if s.state == s.LOADING]
    gaps = [(after - before) / 1e9 for before, after in pairwise(stamps)]
    assert len(stamps) >= 2
    assert max(gaps) < 1.5, "the heartbeat stopped while loading"
    goal = client.result(client.ask.send_goal_async(AskScene.Goal(question="What is ahead?")))
    client.result(goal.cancel_goal_async())
    assert client.result(goal.get_result_async()).status == GoalStatus.STATUS_CANCELED
    assert node.interrupt() == 0  # most likely in the middle of an inference
    assert "Traceback" not in node.output()


def test_ctrl_c_while_loading_ends_the_node_cleanly(start: Start) -> None:
    node, client = start(policy=RANDOM, autostart=False)
    client.wait_for_state(VlaStatus.UNCONFIGURED)  # heard before it loads, or loading may be over by then
    client.begin_transition(Transition.TRANSITION_CONFIGURE)
    client.wait_for_state(VlaStatus.LOADING)
    assert node.interrupt() == 0
    assert "Traceback" not in node.output()
