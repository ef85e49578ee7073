"""A sample's labels in the lidar frame: where boxes and map elements end up on the grid, and what is left out."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from opendrivevla_ros.core.geometry import NUSCENES_LIDAR_TO_BASE
from opendrivevla_ros.core.plan import MapElement
from opendrivevla_ros.datasets.driving_samples import AgentLabel
from opendrivevla_ros.perception.config import AGENT_CLASSES
from opendrivevla_ros.perception.tracker import decode_boxes
from opendrivevla_ros.policies.opendrivevla.config import small_perception
from opendrivevla_ros.policies.opendrivevla.frames import box_to_base
from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.training.sample_labels import box_labels, map_labels

MOUNT = np.array(NUSCENES_LIDAR_TO_BASE)
CONFIG = small_perception()  # 40 x 40 cells of 2 m
CAR = AgentLabel(
    track_id=7,
    label="car",
    position=np.array([20.0, 5.0, 0.8]),
    size=np.array([4.5, 1.9, 1.6]),
    yaw=0.3,
    velocity=np.array([6.0, 2.0]),
    velocity_known=True,
    future=np.zeros((6, 2)),
    future_mask=np.zeros(6, dtype=bool),
    points=12,
    visibility=4,
    attribute="vehicle.moving",
)


def line(label: str, *points: tuple[float, float], closed: bool = False) -> MapElement:
    return MapElement(label, 1.0, np.array(points), closed)


def test_a_labelled_box_comes_back_as_the_agent_in_base_link():
    labels = box_labels([CAR], MOUNT, CONFIG)
    assert (labels.ids.tolist(), labels.classes.tolist()) == ([7], [AGENT_CLASSES.index("car")])
    centre, size, yaw, velocity = box_to_base(decode_boxes(labels.codes)[0].numpy(), MOUNT)
    np.testing.assert_allclose(centre, CAR.position, atol=1e-4)
    np.testing.assert_allclose(size, CAR.size, atol=1e-4)
    assert yaw == pytest.approx(CAR.yaw, abs=1e-5)
    np.testing.assert_allclose(velocity, CAR.velocity, atol=1e-4)


def test_agents_that_nothing_measured_or_that_are_out_of_range_are_left_out():
    hidden, far = replace(CAR, track_id=1, points=0), replace(CAR, track_id=2, position=np.array([60.0, 0.0, 0.8]))
    still = replace(CAR, track_id=3, velocity_known=False)
    labels = box_labels([hidden, far, still], MOUNT, CONFIG)
    assert labels.ids.tolist() == [3]
    assert labels.velocity_known.tolist() == [False]
    assert len(box_labels([hidden], MOUNT, CONFIG)) == 0


def test_a_line_to_the_left_runs_up_a_column_left_of_the_middle():
    # base_link's y = 9 is 9 m to the left: lidar x = -9, so column (40 - 9) / 2 = 15.5, whose cell is 15
    labels = map_labels([line("divider", (-60.0, 9.0), (60.0, 9.0))], MOUNT, CONFIG)
    assert labels.classes.tolist() == [0]
    assert labels.masks[0].nonzero()[:, 1].unique().tolist() == [15]
    assert labels.masks[0].sum() == 40


def test_a_crossing_ahead_is_filled_above_the_middle():
    corners = ((10.0, -5.0), (10.0, 5.0), (14.0, 5.0), (14.0, -5.0))
    labels = map_labels([line("ped_crossing", *corners, closed=True)], MOUNT, CONFIG)
    rows, columns = labels.masks[0].nonzero().unbind(1)
    assert labels.classes.tolist() == [1]
    # 10 to 14 m ahead of base_link is about 9 to 13 m ahead of the lidar: rows from (40 + 9) / 2
    assert (rows.min().item(), rows.max().item()) == (24, 26)
    assert (columns.min().item(), columns.max().item()) == (17, 22)


def test_a_ring_in_the_drivable_area_is_a_hole():
    outer = line("drivable_area", (-30.0, -30.0), (30.0, -30.0), (30.0, 30.0), (-30.0, 30.0), closed=True)
    hole = line("drivable_area", (-10.0, -10.0), (-10.0, 10.0), (10.0, 10.0), (10.0, -10.0), closed=True)
    labels = map_labels([outer, hole], MOUNT, CONFIG)
    assert len(labels) == 0
    assert labels.drivable[10, 10]
    assert not labels.drivable[20, 20]
    assert not labels.drivable[2, 2]


def test_what_lies_outside_the_grid_is_left_out():
    labels = map_labels([line("boundary", (80.0, 0.0), (90.0, 0.0))], MOUNT, CONFIG)
    assert len(labels) == 0
    assert not labels.drivable.any()
    assert labels.masks.shape == torch.Size([0, 40, 40])


def test_unknown_classes_and_labels_that_are_not_finite_are_refused():
    with pytest.raises(TrainingError, match="agent 7 has a label that is not finite"):
        box_labels([replace(CAR, position=np.array([np.nan, 0.0, 0.0]))], MOUNT, CONFIG)
    with pytest.raises(TrainingError, match="agent 7 is a 'tram'"):
        box_labels([replace(CAR, label="tram")], MOUNT, CONFIG)
    with pytest.raises(TrainingError, match="a map element is a 'river'"):
        map_labels([line("river", (0.0, 0.0), (1.0, 0.0))], MOUNT, CONFIG)
    with pytest.raises(TrainingError, match="a divider holds points that are not finite"):
        map_labels([line("divider", (0.0, 0.0), (np.nan, 0.0))], MOUNT, CONFIG)
