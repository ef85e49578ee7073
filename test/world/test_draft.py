"""Writing a scenario: the order of its parts, and who gives way to whom for a place."""

import numpy as np
import pytest

from opendrivevla_ros.world.casting import Part
from opendrivevla_ros.world.draft import Draft
from opendrivevla_ros.world.road_builder import CrossSection, RoadMapBuilder
from opendrivevla_ros.world.route import Route
from opendrivevla_ros.world.state import Category


@pytest.fixture
def draft() -> Draft:
    builder = RoadMapBuilder(10.0)
    road = builder.add_road(np.column_stack([np.arange(200.0), np.zeros(200)]), CrossSection(1, 3.5))
    town = builder.build()
    return Draft(town, Route.along(town, road.forward), start_s=20.0, start_speed=8.0, goal_s=120.0)


def car(s: float, lateral: float = 0.0) -> Part:
    return Part(Category.CAR, (4.5, 1.8, 1.5), 0, s, lateral)


def test_later_parts_give_way_to_earlier_ones_and_to_the_ego(draft: Draft) -> None:
    draft.add_focus(car(60.0))
    draft.parts += [car(63.0), car(22.0), car(80.0), car(500.0)]
    scenario = draft.finish("test", 0, np.random.default_rng(0))
    assert [part.s for part in scenario.parts] == [60.0, 80.0]
    assert scenario.focus == (0,)


def test_the_parts_a_family_is_about_come_first(draft: Draft) -> None:
    draft.parts.append(car(60.0))
    with pytest.raises(ValueError, match="come before all others"):
        draft.add_focus(car(80.0))


def test_routes_come_before_walks(draft: Draft) -> None:
    draft.add_walk(draft.routes[0].path)
    with pytest.raises(ValueError, match="before walks"):
        draft.add_route(draft.routes[0])
