"""Map elements on the grid by class; training's labels are tested on top of the same drawing."""

import numpy as np
import pytest

from opendrivevla_ros.core.geometry import NUSCENES_LIDAR_TO_BASE
from opendrivevla_ros.core.plan import MapElement
from opendrivevla_ros.perception.config import MAP_CLASSES, PerceptionConfig
from opendrivevla_ros.perception.map_drawing import draw_map

MOUNT = np.array(NUSCENES_LIDAR_TO_BASE)
CONFIG = PerceptionConfig(range_metres=(-40.0, -40.0, -5.0, 40.0, 40.0, 3.0), bev_size=40)


def line(label: str, *points: tuple[float, float], closed: bool = False) -> MapElement:
    return MapElement(label, 1.0, np.array(points), closed)


def test_elements_of_one_class_share_its_mask():
    first = line("divider", (-60.0, 9.0), (60.0, 9.0))
    second = line("divider", (-60.0, -9.0), (60.0, -9.0))
    ring = line("drivable_area", (-30.0, -30.0), (30.0, -30.0), (30.0, 30.0), (-30.0, 30.0), closed=True)
    drawing = draw_map([first, ring, second], MOUNT, CONFIG)
    assert drawing.elements == (first, second)
    masks = drawing.by_class()
    assert masks.shape == (len(MAP_CLASSES), 40, 40)
    assert masks[0].sum() == 80
    assert sorted(set(np.nonzero(masks[0])[1].tolist())) == [15, 24]
    assert not masks[1].any()
    assert not masks[2].any()
    np.testing.assert_array_equal(masks[3], drawing.drivable)
    assert masks[3].sum() > 800


def test_nothing_to_draw_gives_empty_masks():
    drawing = draw_map([], MOUNT, CONFIG)
    assert drawing.masks.shape == (0, 40, 40)
    assert not drawing.by_class().any()


def test_what_the_network_does_not_know_or_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="a map element is a 'river'; the classes are"):
        draw_map([line("river", (0.0, 0.0), (1.0, 0.0))], MOUNT, CONFIG)
    with pytest.raises(ValueError, match="a boundary holds points that are not finite"):
        draw_map([line("boundary", (0.0, 0.0), (np.nan, 0.0))], MOUNT, CONFIG)
