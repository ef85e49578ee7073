"""Thoughts over DDS: they are there while they are being written, and a policy that has none says so."""

from pathlib import Path

import numpy as np
import pytest
from opendrivevla_ros.msg import Reasoning, VlaStatus
from opendrivevla_ros.srv import SetThinkingMode
from ros.harness import Client, NodeProcess, own_domain

from opendrivevla_ros.ros.conversions import nanoseconds

SCRIPT = Path(__file__).parent / "thinking_node.py"


def test_a_thought_is_published_while_it_is_written_and_its_plan_comes_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = tmp_path / "gate"
    monkeypatch.setenv("GATE", str(gate))
    domain = own_domain()
    client = Client(domain)
    node = NodeProcess(tmp_path / "node", domain, script=SCRIPT, thinking_mode="auto", hang_timeout=0.0, deadline=0.0)
    try:
        first = client.wait_for("output/reasoning", lambda said: said.text)
        more = client.wait_for("output/reasoning", lambda said: len(said.text) > len(first.text))
        assert more.text.startswith(first.text)
        assert not client.received["output/trajectory"], "the plan is still to come"
        for said in (first, more):
            assert not said.is_final
            assert (said.requested_mode, said.actual_mode) == (Reasoning.AUTO, Reasoning.SLOW)
            assert said.slow_probability == 0.75
            assert said.header == first.header
        assert first.header.frame_id == "odom"
        assert nanoseconds(first.header.stamp) in client.sent
        gate.touch()
        last = client.wait_for("output/reasoning", lambda said: said.is_final)
        assert last.header == first.header
        assert last.text.startswith(more.text)
        client.wait_for("output/trajectory", lambda plan: plan.header == first.header)
        client.wait_for_diagnostics("inference", "slow probability")
        assert client.set_parameter("thinking_mode", "fast") == ""
        fast = client.wait_for("output/reasoning", lambda said: said.requested_mode == Reasoning.FAST)
        assert fast.is_final
        assert "does not think" not in node.output()
    finally:
        node.end()
        client.close()


def test_a_policy_that_does_not_think_says_so_once_and_plans_fast(tmp_path: Path) -> None:
    domain = own_domain()
    client = Client(domain)
    node = NodeProcess(tmp_path, domain)
    sentence = "constant_velocity does not think before it plans"
    try:
        client.wait_for_state(VlaStatus.PLANNING)
        request = SetThinkingMode.Request(mode=SetThinkingMode.Request.SLOW)
        response = client.call(SetThinkingMode, "/vla_node/set_thinking_mode", request)
        assert response.success
        assert response.message.startswith(sentence)
        said = client.wait_for("output/reasoning", lambda said: said.requested_mode == Reasoning.SLOW)
        assert (said.actual_mode, said.is_final) == (Reasoning.FAST, True)
        assert np.isnan(said.slow_probability)
        client.wait_for_diagnostics("inference", sentence)
        assert node.output().count(sentence) == 1
        assert client.set_parameter("thinking_mode", "auto") == ""
        client.wait_for("output/reasoning", lambda said: said.requested_mode == Reasoning.AUTO)
        assert node.output().count(sentence) == 1
    finally:
        node.end()
        client.close()


def test_a_policy_that_looks_through_six_cameras_is_not_driven_with_three(tmp_path: Path) -> None:
    domain = own_domain()
    client = Client(domain)
    node = NodeProcess(tmp_path, domain, camera_count=3)
    try:
        client.wait_for_state(VlaStatus.FAULT, "constant_velocity cannot do with 3 cameras in place of six; give 6")
        assert "one of 0, 3, 6" in client.set_parameter("camera_count", 4)
    finally:
        node.end()
        client.close()
