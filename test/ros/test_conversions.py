"""A plan in base_link becomes messages in the world-fixed frame."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opendrivevla_ros.msg import PlannedTrajectory, PlanStatus
from ros.samples import STAMP_NS, ego, observation, plan

from opendrivevla_ros.core.plan import Reasoning, ThinkingMode
from opendrivevla_ros.core.trajectory import Trajectory
from opendrivevla_ros.ros import conversions
from opendrivevla_ros.ros.conversions import nanoseconds
from opendrivevla_ros.ros.markers import plan_markers
from opendrivevla_ros.ros.overview import render_overview
from opendrivevla_ros.ros.palette import Footprint
from opendrivevla_ros.ros.received import trajectory_of

QUARTER = np.pi / 2


@given(st.integers(min_value=0, max_value=2**31 * 10**9 - 1))
def test_a_stamp_survives_the_way_to_a_message_and_back(stamp_ns: int) -> None:
    assert nanoseconds(conversions.time_message(stamp_ns)) == stamp_ns


def test_the_trajectory_is_turned_and_moved_into_the_world_frame_with_its_covariance() -> None:
    message = conversions.trajectory_message(plan(), ego(QUARTER))
    assert (nanoseconds(message.header.stamp), message.header.frame_id) == (STAMP_NS, "odom")
    assert message.source == PlannedTrajectory.MODEL
    last = message.points[-1]
    position = last.pose.position
    assert (position.x, position.y, position.z) == pytest.approx((100.0, 50.0 + 24.0, 2.0))
    assert (last.pose.orientation.z, last.pose.orientation.w) == pytest.approx((np.sqrt(0.5), np.sqrt(0.5)))
    assert last.position_covariance == pytest.approx([0.3, 0.0, 0.0, 1.2])
    assert (last.time_from_start.sec, last.time_from_start.nanosec) == (3, 0)
    assert last.longitudinal_velocity == pytest.approx(8.0)


@given(st.floats(-np.pi, np.pi))
def test_turning_the_covariance_keeps_its_eigenvalues(yaw: float) -> None:
    message = conversions.trajectory_message(plan(), ego(yaw))
    covariance = np.array(message.points[0].position_covariance).reshape(2, 2)
    assert np.linalg.eigvalsh(covariance) == pytest.approx([0.05, 0.2])
    along = np.array([np.cos(yaw), np.sin(yaw)])
    assert along @ covariance @ along == pytest.approx(0.2)


def test_every_pose_of_the_path_is_stamped_with_the_time_at_which_it_is_reached() -> None:
    path = conversions.path_message(plan(), ego())
    assert nanoseconds(path.header.stamp) == STAMP_NS
    stamps = [nanoseconds(pose.header.stamp) for pose in path.poses]
    assert stamps == [STAMP_NS + (k + 1) * 500_000_000 for k in range(6)]


def test_a_plan_of_ten_points_is_ten_points_in_every_message_and_back() -> None:
    times = np.arange(1, 11) * 0.5
    made = Trajectory.from_waypoints(times, np.column_stack([4.0 * times, 0.1 * times**2]), 4.0)
    long = replace(plan(), trajectory=made)
    message = conversions.trajectory_message(long, ego(QUARTER))
    assert (message.points[-1].time_from_start.sec, len(message.points)) == (5, 10)
    stamps = [nanoseconds(pose.header.stamp) for pose in conversions.path_message(long, ego()).poses]
    assert stamps == [STAMP_NS + (k + 1) * 500_000_000 for k in range(10)]
    back = trajectory_of(message, ego(QUARTER).base_to_world, 4.0)
    for name in ("times", "xy", "yaw", "velocity"):
        np.testing.assert_allclose(getattr(back, name), getattr(made, name), atol=1e-9)
    markers = plan_markers(long, ego(), lifetime_s=1.0, banner="").markers
    assert sum(marker.ns == "plan/footprint" for marker in markers) == 10
    (path,) = (marker for marker in markers if marker.ns == "plan/path")
    assert len(path.points) == 11
    picture = render_overview(observation(), long, status="", footprint=Footprint())
    short = render_overview(observation(), plan(), status="", footprint=Footprint())
    assert picture.shape == short.shape
    assert not np.array_equal(picture, short)


def test_agents_come_by_falling_score_with_everything_in_the_world_frame() -> None:
    message = conversions.agents_message(plan(), ego(QUARTER))
    assert [agent.track_id for agent in message.agents] == [9, 7]
    car = message.agents[1]
    position = car.pose.position
    assert (position.x, position.y, position.z) == pytest.approx((99.0, 70.0, 2.8))
    assert (car.velocity.x, car.velocity.y) == pytest.approx((0.0, 5.0), abs=1e-9)
    assert (car.size.x, car.size.y, car.size.z) == (4.0, 2.0, 1.6)
    assert len(car.predicted_path) == 6
    assert message.agents[0].predicted_path == []
    end = car.predicted_path[-1]
    assert (end.x, end.y, end.z) == pytest.approx((99.0, 85.0, 2.8))


def test_map_elements_keep_label_score_and_whether_they_are_closed() -> None:
    message = conversions.map_elements_message(plan(), ego())
    assert [(e.label, e.score, e.closed) for e in message.elements] == [
        ("divider", 0.8, False),
        ("ped_crossing", 0.7, True),
    ]
    first = message.elements[0].points[0]
    assert (first.x, first.y, first.z) == pytest.approx((90.0, 51.75, 2.0))


def test_reasoning_keeps_the_requested_mode_apart_from_the_actual_one() -> None:
    message = conversions.reasoning_message(plan().reasoning, STAMP_NS, "odom")
    assert (message.requested_mode, message.actual_mode) == (message.AUTO, message.FAST)
    assert message.is_final


@pytest.mark.parametrize("probability", [None, 0.0, 0.25, 1.0])
def test_the_probability_of_thinking_is_not_a_number_where_there_is_no_choice(probability: float | None) -> None:
    reasoning = Reasoning("The bus", ThinkingMode.AUTO, ThinkingMode.SLOW, probability)
    message = conversions.reasoning_message(reasoning, STAMP_NS, "odom", is_final=False)
    assert np.isnan(message.slow_probability) if probability is None else message.slow_probability == probability
    assert not message.is_final


def test_a_plan_status_lists_stages_and_tokens_in_order() -> None:
    message = conversions.plan_status_message(
        stamp_ns=STAMP_NS, stage_times={"decode": 0.01, "plan": 0.2}, token_counts={"prompt": 400, "generated": 30}
    )
    assert message.result == PlanStatus.OK
    assert (message.stages, list(message.stage_times)) == (["decode", "plan"], [0.01, 0.2])
    assert (message.token_kinds, list(message.token_counts)) == (["prompt", "generated"], [400, 30])
