"""What the BEV says cell by cell: it learns where objects are, and names those places."""

from dataclasses import replace

import pytest
import torch
from perception.test_network import CONFIG
from training.samples import box_labels

from opendrivevla_ros.perception.config import MAP_CLASSES
from opendrivevla_ros.training.dense_head import DenseHead

NOTHING = torch.zeros(len(MAP_CLASSES), CONFIG.bev_size, CONFIG.bev_size, dtype=torch.bool)


@pytest.fixture
def bev() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(CONFIG.bev_size**2, CONFIG.embed_dim)


def test_the_peaks_of_a_learned_frame_are_its_objects(bev: torch.Tensor):
    head, labels = DenseHead(CONFIG), box_labels(3)
    codes = labels.codes.clone()
    codes[:, :2] = torch.tensor([[-11.0, 3.0], [7.5, -9.0], [13.0, 13.9]])
    labels = replace(labels, codes=codes)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
    first, last = None, {}
    for _ in range(300):
        last, peaks = head(bev, labels, NOTHING)
        first = first or last
        optimizer.zero_grad()
        torch.stack(list(last.values())).sum().backward()
        optimizer.step()
    assert first is not None
    assert all(last[name] < first[name] / 2 for name in first)
    distance = torch.cdist(labels.codes[:, :2], peaks[:3])
    assert distance.amin(1).max() < CONFIG.cell_metres
    assert not peaks.requires_grad


def test_a_box_at_the_edge_and_one_beyond_are_no_trouble(bev: torch.Tensor):
    labels = box_labels(2)
    codes = labels.codes.clone()
    codes[0, :2], codes[1, :2] = CONFIG.range_metres[3] - 0.01, CONFIG.range_metres[3] + 100.0
    losses, _ = DenseHead(CONFIG)(bev, replace(labels, codes=codes), NOTHING)
    assert all(loss.isfinite() for loss in losses.values())
    assert losses["cell_boxes"] > 0


def test_an_empty_frame_has_no_boxes_to_learn(bev: torch.Tensor):
    losses, peaks = DenseHead(CONFIG)(bev, box_labels(0), NOTHING)
    assert losses["cell_boxes"] == 0
    assert peaks.isfinite().all()
