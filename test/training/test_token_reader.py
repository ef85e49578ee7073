"""The reader finds in tokens what was put there, and its losses count what is known."""

from dataclasses import replace

import pytest
import torch
from perception.test_network import CONFIG
from training.samples import box_labels, plan_label

from opendrivevla_ros.perception.ego_query import PLAN_METRES, EgoAnswer
from opendrivevla_ros.training.labels import LINE_POINTS, PlanLabel
from opendrivevla_ros.training.token_reader import (
    LINE_METRES,
    TokenReader,
    future_loss,
    proposal_losses,
)

DIM = CONFIG.embed_dim


def loss(path: torch.Tensor, plan: PlanLabel) -> float:
    """Of one proposed path [1, 6, 2]."""
    answer = EgoAnswer(torch.zeros(1, DIM), path, torch.ones_like(path))
    return proposal_losses(answer, [plan])["plan"].item()


def test_unknown_points_of_a_plan_do_not_count():
    known = torch.tensor([True, True, False, False, False, False])
    given = plan_label()
    path = given.path.clone()
    path[2:] = 1e6
    found = torch.randn(1, 6, 2)
    plans = [PlanLabel(given.ego, some, known) for some in (given.path, path)]
    first, second = (loss(found, plan) for plan in plans)
    assert first == pytest.approx(second)


def test_a_plans_loss_is_its_mean_error():
    way = straight_way()
    assert loss(way[None] + 7.0, replace(plan_label(), path=way)) * PLAN_METRES == pytest.approx(7.0)


def test_what_is_driven_first_counts_most():
    plan = replace(plan_label(), path=straight_way())
    off = [straight_way()[None] for _ in range(2)]
    for path, point in zip(off, (0, 5), strict=True):
        path[0, point, 1] += 1.0
    assert loss(off[0], plan) == pytest.approx(6 * loss(off[1], plan), rel=1e-3)


def test_expected_errors_are_learned_and_the_path_is_not_bent_by_them():
    plan = plan_label()
    known = torch.tensor([True] * 5 + [False])
    labels = [replace(plan, path=torch.full((6, 2), off), known=known) for off in (1.0, 3.0)]
    paths = torch.zeros(2, 6, 2, requires_grad=True)
    logarithms = torch.zeros(6, 2, requires_grad=True)
    optimizer = torch.optim.Adam([logarithms], 0.05)
    for _ in range(400):
        answer = EgoAnswer(torch.zeros(2, DIM), paths, logarithms.exp().expand(2, 6, 2))
        optimizer.zero_grad()
        proposal_losses(answer, labels)["doubt"].backward()
        optimizer.step()
    assert paths.grad is None
    torch.testing.assert_close(logarithms[:5].exp(), torch.full((5, 2), 2.0), atol=0.01, rtol=0)
    assert logarithms[5].tolist() == [0.0, 0.0]


def turning_way() -> torch.Tensor:
    """The points [6, 2] of a right turn of 10 m radius at 4 m/s, lidar frame."""
    angles = 0.2 * torch.arange(1, 7)
    return 10.0 * torch.stack([1 - angles.cos(), angles.sin()], dim=1)


def straight_way() -> torch.Tensor:
    return torch.stack([torch.zeros(6), 2.0 * torch.arange(1, 7)], dim=1)


def losses_of(found: torch.Tensor, wanted: torch.Tensor) -> dict[str, float]:
    answer = EgoAnswer(torch.zeros(1, DIM), found[None], torch.ones(1, 6, 2))
    losses = proposal_losses(answer, [replace(plan_label(), path=wanted)], caution=2.0)
    assert set(losses) == {"plan", "doubt", "too_far"}
    return {name: loss.item() * PLAN_METRES for name, loss in losses.items()}


def caution_loss(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return losses_of(found, wanted)["too_far"]


def directions(way: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Along a way's pieces and to their right, [6, 2] each."""
    onwards = torch.nn.functional.normalize(way.diff(dim=0, prepend=torch.zeros(1, 2)), dim=1)
    return onwards, onwards.flip(1) * torch.tensor([1.0, -1.0])


WAYS = pytest.mark.parametrize("way", [straight_way(), turning_way()], ids=["straight", "turn"])


@WAYS
def test_an_error_across_the_way_counts_twice_what_one_along_it_does(way: torch.Tensor):
    onwards, across = directions(way)
    for off in (onwards, -onwards):
        assert losses_of(way + off, way)["plan"] == pytest.approx(1 / 3, rel=0.02)
    for off in (across, -across):
        assert losses_of(way + off, way)["plan"] == pytest.approx(2 / 3, rel=0.02)


@WAYS
def test_too_far_counts_along_the_way_alone_and_only_ahead(way: torch.Tensor):
    onwards, across = directions(way)
    assert caution_loss(way + onwards, way) == pytest.approx(2.0 / 3, rel=0.01)
    assert caution_loss(way - onwards, way) == 0.0
    assert caution_loss(way + across, way) < 0.02
    assert caution_loss(way - across, way) < 0.02


def test_who_stands_goes_too_far_straight_ahead():
    assert caution_loss(torch.tensor([[0.0, 1.0]]).expand(6, 2), torch.zeros(6, 2)) > 0.6
    assert caution_loss(torch.tensor([[1.0, -1.0]]).expand(6, 2), torch.zeros(6, 2)) == 0.0


@pytest.mark.parametrize(("caution", "stops"), [(0.0, False), (1.0, True)])
def test_a_cautious_path_stops_where_two_in_five_would(caution: float, stops: bool):
    moving = straight_way()
    plans = [replace(plan_label(), path=way) for way in (moving, moving, moving, torch.zeros(6, 2), torch.zeros(6, 2))]
    path = moving.clone().requires_grad_()
    optimizer = torch.optim.Adam([path], 0.1)
    for _ in range(400):
        answer = EgoAnswer(torch.zeros(5, DIM), path.expand(5, 6, 2), torch.ones(5, 6, 2))
        optimizer.zero_grad()
        torch.stack(list(proposal_losses(answer, plans, caution).values())).sum().backward()
        optimizer.step()
    assert (path[:, 1] < 0.3).all() if stops else (path[:, 1] > moving[:, 1] - 0.3).all()


def test_no_label_gives_no_loss_but_a_gradient():
    reader = TokenReader(CONFIG)
    nothing = box_labels(3).rows(torch.zeros(0, dtype=torch.int64))
    hidden = torch.randn(0, DIM, requires_grad=True)
    loss = reader.state_loss(hidden, nothing) + reader.line_loss(hidden, torch.zeros(0, LINE_POINTS, 2))
    loss = loss + future_loss(torch.zeros(0, 4, 2), nothing)
    assert loss.item() == 0.0
    loss.backward()


def test_the_future_loss_is_the_mean_error_in_metres_of_known_steps():
    labels = box_labels(2)
    off = labels.future[:, :4] + 3.0
    assert future_loss(off, labels).item() == pytest.approx(3.0)
    labels.future_known[1] = False
    off[1] += 100.0
    assert future_loss(off, labels).item() == pytest.approx(3.0)


def test_the_shape_of_a_line_is_learned_whichever_way_it_is_given():
    torch.manual_seed(0)
    reader = TokenReader(CONFIG)
    tokens = torch.randn(2, DIM)
    bend = torch.linspace(-1, 1, LINE_POINTS)
    lines = torch.stack([torch.stack([20 * bend, 5 * bend**2], 1), torch.stack([8 + bend, 30 * bend], 1)])
    optimizer = torch.optim.Adam(reader.parameters(), lr=3e-3)
    for step in range(200):
        loss = reader.line_loss(tokens, lines.flip(1) if step % 2 else lines)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() * LINE_METRES < 1.0
    assert reader.line_loss(tokens, lines.flip(1)).item() == pytest.approx(reader.line_loss(tokens, lines).item())
