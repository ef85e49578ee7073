"""Labels: box codes, map boxes, and what is refused."""

from dataclasses import replace

import pytest
import torch
from training.samples import box_labels, map_labels

from opendrivevla_ros.perception.tracker import decode_boxes
from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.training.labels import MapLabels, encode_boxes


def test_a_box_code_decodes_to_its_box():
    boxes = torch.tensor([[1.0, -2.0, -1.5, 1.8, 4.4, 1.6, -2.5, 3.0, -4.0]])
    torch.testing.assert_close(decode_boxes(encode_boxes(boxes)), boxes)


def test_boxes_of_masks_enclose_whole_cells():
    expected = torch.tensor([[1.5 / 8, 0.5, 1 / 8, 1.0], [4 / 8, 6 / 8, 2 / 8, 4 / 8]])
    torch.testing.assert_close(map_labels().boxes(), expected)


def test_labels_that_are_not_finite_are_refused_by_their_object():
    good = box_labels(3)
    codes = good.codes.clone()
    codes[1, 2] = float("nan")
    with pytest.raises(TrainingError, match=r"objects \[11\] hold numbers that are not finite"):
        replace(good, codes=codes)


def test_an_object_that_is_labelled_twice_is_refused():
    good = box_labels(2)
    with pytest.raises(TrainingError, match="name an object twice"):
        replace(good, ids=torch.tensor([3, 3]))


def test_box_labels_of_different_lengths_are_refused():
    good = box_labels(2)
    with pytest.raises(TrainingError, match="one row an object"):
        replace(good, classes=good.classes[:1])


def test_map_labels_need_a_mask_on_the_grid_for_every_element():
    good = map_labels()
    with pytest.raises(TrainingError, match="one mask an element"):
        MapLabels(good.classes, good.lines, good.masks[:, :4], good.drivable)
    with pytest.raises(TrainingError, match="need 12 points"):
        replace(good, lines=good.lines[:, :4])
    with pytest.raises(TrainingError, match="empty mask"):
        MapLabels(good.classes, good.lines, good.masks & False, good.drivable)
