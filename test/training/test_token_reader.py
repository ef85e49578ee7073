"""The reader finds in tokens what was put there, and its losses count what is known."""

import numpy as np
import pytest
import torch
from perception.test_network import CONFIG
from training.samples import box_labels, plan_label

from opendrivevla_ros.core.ego import Command, EgoState
from opendrivevla_ros.training.frame_labels import ego_numbers
from opendrivevla_ros.training.labels import LINE_POINTS, PlanLabel
from opendrivevla_ros.training.token_reader import (
    EGO_NUMBERS,
    LINE_METRES,
    PLAN_METRES,
    WAYPOINTS,
    FrameTokens,
    TokenReader,
    future_loss,
)

DIM = CONFIG.embed_dim


def frame_tokens(seed: int, plan: PlanLabel, *, agents: int = 3) -> FrameTokens:
    generator = torch.Generator().manual_seed(seed)
    scene, others, lines = (torch.randn(count, DIM, generator=generator) for count in (6, agents, 2))
    return FrameTokens(scene, others, lines, plan)


def test_the_plan_is_learned_from_the_tokens_where_the_ego_alone_does_not_tell_it():
    torch.manual_seed(0)
    reader = TokenReader(CONFIG)
    straight = plan_label()
    stop = PlanLabel(straight.ego, torch.zeros(WAYPOINTS, 2), straight.known)
    frames = [frame_tokens(1, straight), frame_tokens(2, stop, agents=0)]
    optimizer = torch.optim.Adam(reader.parameters(), lr=3e-3)
    for _ in range(80):
        loss = reader.plan_loss(frames)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    plans = reader.read(frames) * PLAN_METRES
    torch.testing.assert_close(plans[0], straight.path, atol=1.5, rtol=0)
    assert plans[1].abs().max() < 1.5


def test_a_frame_is_read_alike_alone_and_beside_longer_ones():
    torch.manual_seed(0)
    reader = TokenReader(CONFIG).eval()
    short, long = frame_tokens(1, plan_label(), agents=1), frame_tokens(2, plan_label(), agents=9)
    torch.testing.assert_close(reader.read([short, long])[0], reader.read([short])[0])


def test_unknown_points_of_a_plan_do_not_count():
    reader = TokenReader(CONFIG)
    known = torch.tensor([True, True, False, False, False, False])
    given = plan_label()
    path = given.path.clone()
    path[2:] = 1e6
    plans = [PlanLabel(given.ego, some, known) for some in (given.path, path)]
    first, second = (reader.plan_loss([frame_tokens(1, plan)]) for plan in plans)
    assert first.item() == pytest.approx(second.item())


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


def test_ego_numbers_tell_motion_and_command():
    zero = np.zeros(3)
    ego = EgoState(0, np.eye(4), np.array([20.0, 0.0, 0.0]), zero, zero, np.zeros((4, 3)))
    numbers = {command: ego_numbers(ego, command) for command in Command}
    assert {len(row) for row in numbers.values()} == {EGO_NUMBERS}
    assert all(row[0] == 2.0 for row in numbers.values())
    assert len({tuple(row.tolist()) for row in numbers.values()}) == len(Command)
