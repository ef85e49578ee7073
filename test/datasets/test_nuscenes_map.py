"""The map that many scenes share: where each goes, and how large it may get."""

import cv2
import numpy as np
import pytest

from opendrivevla_ros.datasets.nuscenes_map import MARGIN_METRES, LaneShape, MapWriter, RoadLayers
from opendrivevla_ros.datasets.nuscenes_tables import DatasetError


def strip(length: float, width: float = 10.0) -> RoadLayers:
    """A straight road from (-5, -5) on."""
    return RoadLayers((np.array([[-5, -5], [length - 5, -5], [length - 5, width - 5], [-5, width - 5]], float),))


def test_scenes_stand_side_by_side_and_then_in_a_new_row() -> None:
    writer = MapWriter()
    shifts = [writer.add(f"scene-{index}", strip(length)) for index, length in enumerate((1000, 1500, 900, 100))]
    corners = [shift - 5 - MARGIN_METRES for shift in shifts]
    np.testing.assert_allclose(corners, [[0, 0], [1060, 0], [0, 70], [960, 70]])
    assert writer.expansion()["canvas_edge"] == [2620, 140]


def test_the_mask_shows_each_road_in_its_place_from_the_north() -> None:
    writer = MapWriter()
    writer.add("a", strip(20))
    writer.add("b", strip(40))
    mask = cv2.imdecode(np.frombuffer(writer.mask(), np.uint8), cv2.IMREAD_UNCHANGED)
    assert mask.shape == (700, 1800)
    rows, columns = np.nonzero(mask)
    assert (rows.min(), rows.max()) == (300, 400)
    assert set(np.diff(np.unique(columns))) == {1, 600}


def test_a_map_too_large_for_a_mask_is_refused() -> None:
    writer = MapWriter()
    with pytest.raises(DatasetError, match=r"scene-9 makes the map 3060 x 14060 m, too large for one mask"):
        writer.add("scene-9", strip(3000, 14000))


def test_a_road_far_to_the_north_is_drawn_in_its_place() -> None:
    near = strip(20).drivable[0]
    writer = MapWriter()
    writer.add("a", RoadLayers((near, near + np.array([0, 5000]))))
    mask = cv2.imdecode(np.frombuffer(writer.mask(), np.uint8), cv2.IMREAD_UNCHANGED)
    assert mask.shape == (50_700, 800)
    driven = (mask[:, 400] == 255).astype(int)
    np.testing.assert_array_equal(np.flatnonzero(np.diff(driven)), [299, 400, 50_299, 50_400])
    assert not mask[:, :300].any()


def test_lanes_know_what_comes_before_and_after_them() -> None:
    outline = strip(20).drivable[0]
    writer = MapWriter()
    lanes = (
        LaneShape(outline, successors=(1,)),
        LaneShape(outline, connector=True, successors=(2,)),
        LaneShape(outline),
    )
    writer.add("a", RoadLayers(strip(20).drivable, lanes=lanes))
    content = writer.expansion()
    first, last = (row["token"] for row in content["lane"])
    (connector,) = (row["token"] for row in content["lane_connector"])
    assert content["connectivity"][first] == {"incoming": [], "outgoing": [connector]}
    assert content["connectivity"][connector] == {"incoming": [first], "outgoing": [last]}
    assert content["connectivity"][last] == {"incoming": [connector], "outgoing": []}
