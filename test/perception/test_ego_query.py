"""The ego's query reads what no number of the ego tells, and every frame by itself."""

import torch

from opendrivevla_ros.perception.ego_query import EGO_NUMBERS, EgoQuery, EgoView

WIDTH = 16


def view(seed: int, *, agents: int = 3, ego: float = 0.5) -> EgoView:
    generator = torch.Generator().manual_seed(seed)
    scene, others, lines = (torch.randn(count, WIDTH, generator=generator) for count in (6, agents, 2))
    return EgoView(scene, others, lines, torch.full((EGO_NUMBERS,), ego))


def query() -> EgoQuery:
    torch.manual_seed(0)
    return EgoQuery(WIDTH, 1)


def test_it_learns_to_tell_frames_apart_that_only_their_tokens_do():
    reading = query()
    head = torch.nn.Linear(WIDTH, 1)
    views, wanted = [view(1), view(2, agents=0)], torch.tensor([[1.0], [-1.0]])
    optimizer = torch.optim.Adam([*reading.parameters(), *head.parameters()], lr=3e-3)
    for _ in range(80):
        loss = (head(reading(views)) - wanted).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.2


def test_a_frame_is_read_alike_alone_and_beside_longer_ones():
    reading = query().eval()
    short, long = view(1, agents=1), view(2, agents=9)
    torch.testing.assert_close(reading([short, long])[0], reading([short])[0])


def test_the_motion_of_the_ego_changes_what_it_says():
    reading = query()
    slow, fast = reading([view(1, ego=0.1), view(1, ego=0.9)])
    assert (slow - fast).abs().max() > 0.01
