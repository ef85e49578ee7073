"""Markers of a plan: namespaces, lifetime, frame, and ids that do not collide."""

import pytest
from ros.samples import STAMP_NS, ego, plan
from visualization_msgs.msg import Marker

from opendrivevla_ros.ros.conversions import nanoseconds
from opendrivevla_ros.ros.markers import plan_markers

NAMESPACES = {
    *("plan/path", "plan/footprint", "agents/box", "agents/velocity", "agents/future", "agents/label"),
    *("map/divider", "map/ped_crossing", "reasoning/text", "status/banner"),
}


def test_markers_begin_with_deleteall_and_use_the_agreed_namespaces_once_per_id() -> None:
    markers = plan_markers(plan(), ego(), lifetime_s=0.8, banner="small").markers
    assert markers[0].action == Marker.DELETEALL
    assert {marker.ns for marker in markers[1:]} == NAMESPACES
    keys = [(marker.ns, marker.id) for marker in markers[1:]]
    assert len(keys) == len(set(keys))


def test_markers_are_stamped_and_framed_as_the_plan_and_fade_after_their_lifetime() -> None:
    for marker in plan_markers(plan(), ego(), lifetime_s=0.8, banner="small").markers[1:]:
        assert (nanoseconds(marker.header.stamp), marker.header.frame_id) == (STAMP_NS, "odom")
        assert marker.lifetime.nanosec == 800_000_000


def test_a_velocity_arrow_reaches_where_the_agent_will_be_in_a_second() -> None:
    markers = plan_markers(plan(), ego(), lifetime_s=0.8, banner="").markers
    arrow = next(marker for marker in markers if marker.ns == "agents/velocity")
    assert (arrow.points[1].x, arrow.points[1].y) == pytest.approx((125.0, 51.0))


def test_a_closed_map_element_returns_to_its_first_point() -> None:
    markers = plan_markers(plan(), ego(), lifetime_s=0.8, banner="").markers
    crossing = next(marker for marker in markers if marker.ns == "map/ped_crossing")
    assert crossing.points[0] == crossing.points[-1]
    assert len(crossing.points) == 5
