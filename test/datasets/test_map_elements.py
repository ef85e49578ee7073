"""Map elements around any pose of a small town of squares."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opendrivevla_ros.core.geometry import planar_transform
from opendrivevla_ros.datasets.map_elements import MapGeometry
from opendrivevla_ros.datasets.nuscenes_map import RoadLayers

REACH = (20.0, 10.0)


def square(x: float, y: float, side: float) -> np.ndarray:
    return np.array([[x, y], [x + side, y], [x + side, y + side], [x, y + side]])


# Four squares around an empty middle: the union has a hole.
RING = tuple(
    np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]])
    for x, y, width, height in ((0, 0, 30, 5), (0, 25, 30, 5), (0, 0, 5, 30), (25, 0, 5, 30))
)
TOWN = RoadLayers(
    drivable=RING,
    lane_dividers=(np.array([[0.0, 2.5], [30.0, 2.5]]),),
    crosswalks=(square(10, 0, 3), square(13, 0, 3)),
)


def elements(road: RoadLayers, x: float, y: float, yaw: float = 0.0) -> dict[str, list[np.ndarray]]:
    found: dict[str, list[np.ndarray]] = {}
    for element in MapGeometry.of_layers(road, reach=REACH).elements(planar_transform(x, y, yaw)):
        found.setdefault(element.label, []).append(element.points)
    return found


def test_points_are_in_base_link() -> None:
    (divider,) = elements(TOWN, 15.0, 2.5, np.pi / 2)["divider"]
    assert np.ptp(divider[:, 1]) == pytest.approx(20.0)  # cut at ten metres to each side
    np.testing.assert_allclose(divider[:, 0], 0.0, atol=1e-9)


def test_areas_that_touch_are_one() -> None:
    (crossing,) = elements(TOWN, 15.0, 2.5)["ped_crossing"]
    assert np.ptp(crossing[:, 0]) == pytest.approx(6.0)


def test_a_hole_is_a_ring_of_its_own_that_turns_the_other_way() -> None:
    found = MapGeometry.of_layers(TOWN, reach=(60, 60)).elements(planar_transform(15.0, 15.0, 0.0))
    rings = [element.points for element in found if element.label == "drivable_area"]
    areas = [float(np.cross(ring, np.roll(ring, -1, axis=0)).sum() / 2) for ring in rings]
    assert areas == pytest.approx([900.0, -400.0])


def test_the_end_of_the_reach_is_no_boundary() -> None:
    for line in elements(TOWN, 15.0, 2.5)["boundary"]:
        assert np.abs(line[:, 0]).max() < REACH[0]
        assert np.abs(line[:, 1]).max() < REACH[1]
    assert sum(len(line) for line in elements(TOWN, 15.0, 2.5)["boundary"]) > 0


def test_boundaries_that_are_given_take_the_place_of_edges() -> None:
    kerb = np.array([[0.0, 0.0], [30.0, 0.0]])
    found = elements(RoadLayers(drivable=RING, boundaries=(kerb,)), 15.0, 2.5)
    (line,) = found["boundary"]
    np.testing.assert_allclose(line[:, 1], -2.5)


def test_far_from_everything_there_is_nothing() -> None:
    assert elements(TOWN, 500.0, 0.0) == {}


@given(st.integers(-60, 90), st.integers(-60, 90), st.sampled_from([0.0, np.pi / 2, 0.3, -2.0]))
def test_elements_lie_within_reach_wherever_the_vehicle_is(x: int, y: int, yaw: float) -> None:
    for road in (TOWN, RoadLayers(drivable=RING, boundaries=(RING[0],))):
        for lines in elements(road, float(x), float(y), yaw).values():
            for line in lines:
                assert len(line) >= 2
                assert (np.abs(line) <= np.array(REACH) + 1e-6).all()
