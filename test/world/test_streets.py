"""Street maps: lanes join, nothing overlaps, kerbs enclose the drivable area."""

import cv2
import numpy as np
import pytest

from opendrivevla_ros.core.ego import Command
from opendrivevla_ros.world.families import FAMILIES, make_scenario
from opendrivevla_ros.world.road_builder import CrossSection, RoadMapBuilder
from opendrivevla_ros.world.road_queries import RoadQueries
from opendrivevla_ros.world.road_shapes import Piece, reference_line
from opendrivevla_ros.world.state import RoadMap
from opendrivevla_ros.world.streets import crossroads

CELL = 0.5  # metres


def area_of(polygons: tuple[np.ndarray, ...], bounds: np.ndarray) -> tuple[float, float]:
    """Square metres of the union of polygons, and of their sum."""
    size = np.ceil((bounds[1] - bounds[0]) / CELL).astype(int) + 3
    count = np.zeros((size[1], size[0]), dtype=np.int32)
    for polygon in polygons:
        layer = np.zeros_like(count, dtype=np.uint8)
        cv2.fillPoly(layer, [np.rint((polygon - bounds[0]) / CELL).astype(np.int32)], 1)
        count += layer
    return float((count > 0).sum()) * CELL**2, float(count.sum()) * CELL**2


def maps() -> list[RoadMap]:
    return [make_scenario(family, seed).road for family in FAMILIES for seed in range(4)]


def test_lanes_end_where_their_successors_begin_with_the_same_heading() -> None:
    for road in maps():
        for lane in road.lanes:
            for follower in lane.successors:
                after = road.lanes[follower]
                assert lane.id in after.predecessors
                np.testing.assert_allclose(lane.centreline[-1], after.centreline[0], atol=1e-6)
                last, first = np.diff(lane.centreline[-2:], axis=0)[0], np.diff(after.centreline[:2], axis=0)[0]
                cosine = last @ first / np.hypot(*last) / np.hypot(*first)
                assert cosine > np.cos(0.12)


def test_roads_and_junctions_do_not_overlap_each_other() -> None:
    for road in maps():
        union, total = area_of(road.drivable, road.bounds)
        edges = sum(np.hypot(*np.diff(polygon, axis=0).T).sum() for polygon in road.junctions)
        assert total - union < 0.02 * union + 2 * CELL * edges


def test_a_road_does_not_run_over_itself() -> None:
    for road in maps():
        for polygon in road.drivable:
            x, y = polygon.T
            shoelace = 0.5 * abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)))
            union, _ = area_of((polygon,), road.bounds)
            assert union == pytest.approx(shoelace, rel=0.15)


def test_lanes_and_crosswalks_lie_on_the_drivable_area() -> None:
    for road in maps():
        queries = RoadQueries(road)
        for lane in road.lanes:
            assert (queries.edge_distance(lane.centreline) > -0.05).all()
            if not lane.in_junction:
                assert (queries.edge_distance(lane.centreline[2:-2]) > 1.0).all()
        for crosswalk in road.crosswalks:
            assert (queries.edge_distance(crosswalk) > -0.1).all()


def test_the_drivable_area_is_on_the_left_hand_of_every_kerb() -> None:
    for road in maps():
        queries = RoadQueries(road)
        for kerb in road.boundaries:
            step = np.diff(kerb, axis=0)
            normal = np.column_stack([-step[:, 1], step[:, 0]]) / np.hypot(*step.T)[:, None]
            middle = (kerb[:-1] + kerb[1:]) / 2
            assert queries.on_road(middle + 0.3 * normal).all()
            assert not queries.on_road(middle - 0.3 * normal)[2:-2].any()


@pytest.mark.parametrize("command", list(Command))
def test_a_junction_lets_its_command_be_obeyed_and_has_three_or_four_arms(command: Command) -> None:
    arms = set()
    for seed in range(30):
        scene = crossroads(np.random.default_rng(seed), command=command, speed_limit=10.0)
        arms.add(len(scene.arms))
        turns = {
            scene.map.lanes[lane].turn
            for source in scene.arms[0].backward
            for lane in scene.map.lanes[source].successors
        }
        assert command in turns
        assert turns == set(scene.turns)
    assert arms == {3, 4}


def test_streets_have_one_and_two_lanes_and_bends_from_tight_to_wide() -> None:
    widths, radii = set(), []
    for seed in range(40):
        scenario = make_scenario("bend", seed)
        widths.add(sum(lane.right is None for lane in scenario.road.lanes) < len(scenario.road.lanes))
        radii.append(1.0 / np.abs(scenario.route.path.curvature).max())
    assert widths == {False, True}
    assert min(radii) < 17.0
    assert max(radii) > 55.0


def test_the_nearest_lane_of_a_point_beside_a_lane_is_that_lane() -> None:
    builder = RoadMapBuilder(10.0)
    reference = reference_line((0.0, 0.0, 0.4), [Piece(30.0), Piece.bend(40.0, 1.0), Piece(30.0)])
    built = builder.add_road(reference, CrossSection(2))
    road = builder.build()
    queries = RoadQueries(road)
    for lane in (*built.forward, *built.backward):
        line = road.lanes[lane].centreline
        place = queries.nearest_lane(line[5:-5] + np.array([0.3, 0.2]))
        assert (place.lane == lane).all()
        assert (np.abs(place.lateral) < 0.4).all()


def test_a_box_with_one_corner_on_the_footpath_is_off_the_road() -> None:
    builder = RoadMapBuilder(10.0)
    builder.add_road(np.column_stack([np.arange(50.0), np.zeros(50)]), CrossSection(1, 3.5))
    queries = RoadQueries(builder.build())
    assert queries.box_on_road(np.array([25.0, -2.4, 0.0, 4.0, 2.0]))
    assert not queries.box_on_road(np.array([25.0, -2.4, 0.1, 4.0, 2.0]))
    np.testing.assert_allclose(queries.edge_distance([[25.0, -2.5], [25.0, 5.0]]), [1.0, -1.5], atol=1e-5)
