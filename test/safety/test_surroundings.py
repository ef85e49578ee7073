"""Road users and boundaries of a plan, as they are seen later and from elsewhere."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from opendrivevla_ros.core.geometry import Array, invert, planar_transform
from opendrivevla_ros.core.plan import Agent, MapElement
from opendrivevla_ros.safety.surroundings import boundaries_seen_from, movers_seen_from


def agent(x: float, y: float, velocity: tuple[float, float], predicted: Array | None = None) -> Agent:
    path = np.zeros((0, 2)) if predicted is None else predicted
    size = np.array([4.5, 1.9, 1.6])
    return Agent(1, "car", 0.9, np.array([x, y, 0.8]), size, 0.4, np.array(velocity), path)


@given(
    age=st.floats(0.0, 3.0),
    place=st.tuples(st.floats(-9, 9), st.floats(-9, 9), st.floats(-3, 3)),
    later=st.floats(0.0, 3.0),
)
def test_where_somebody_is_expected_does_not_depend_on_when_and_from_where_it_is_asked(
    age: float, place: tuple[float, float, float], later: float
) -> None:
    path = np.array([[6.0, 0.5], [8.0, 2.0], [8.0, 5.0]])
    agents = [agent(5.0, 0.0, (3.0, 1.0), path), agent(-4.0, 2.0, (0.0, -1.0))]
    at_once = movers_seen_from(agents, np.eye(4), 0.0)
    now = planar_transform(*place)
    seen = movers_seen_from(agents, invert(now), age)
    there = seen.at(np.array([later]))[:, 0]
    back = np.column_stack([there[:, :2], np.zeros(2), np.ones(2)]) @ now.T
    np.testing.assert_allclose(back[:, :2], at_once.at(np.array([age + later]))[:, 0, :2], atol=1e-9)
    np.testing.assert_allclose(np.cos(there[:, 2] + place[2] - 0.4), 1.0)


def test_nobody_is_nobody() -> None:
    assert len(movers_seen_from([], np.eye(4), 1.0)) == 0


def test_boundaries_alone_are_not_to_be_crossed_and_closed_ones_close() -> None:
    square = np.array([[1.0, 0.0], [2.0, 0.0], [2.0, 1.0]])
    elements = [MapElement("boundary", 0.9, square, closed=True), MapElement("divider", 0.9, square)]
    (line,) = boundaries_seen_from(elements, planar_transform(1.0, 0.0, np.pi / 2))
    np.testing.assert_allclose(line, [[1, 1], [1, 2], [0, 2], [1, 1]], atol=1e-12)
