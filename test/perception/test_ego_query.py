"""The ego's query reads what no number of the ego tells, and every frame by itself."""

import pytest
import torch

from opendrivevla_ros.perception.ego_query import EGO_NUMBERS, EgoQuery, EgoView

WIDTH = 16


def view(seed: int, *, agents: int = 3, ego: float = 0.5) -> EgoView:
    generator = torch.Generator().manual_seed(seed)
    scene, others, lines = (torch.randn(count, WIDTH, generator=generator) for count in (6, agents, 2))
    return EgoView(scene, others, lines, torch.full((EGO_NUMBERS,), ego))


def query(ahead: tuple[int, int] | None = None) -> EgoQuery:
    torch.manual_seed(0)
    return EgoQuery(WIDTH, 1, ahead)


def looking(column: int) -> EgoView:
    """A frame whose tokens tell nothing, with something in one column of the bird's-eye view."""
    cells = torch.zeros(5, 4, WIDTH)
    cells[:, column, 3] = 1.0
    return view(1)._replace(ahead=cells)


@pytest.mark.parametrize(
    ("reading", "views"),
    [(query(), [view(1), view(2, agents=0)]), (query((5, 4)), [looking(0), looking(3)])],
    ids=["tokens", "the bird's-eye view"],
)
def test_it_learns_to_tell_frames_apart_that_only_one_thing_does(reading: EgoQuery, views: list[EgoView]):
    head = torch.nn.Linear(WIDTH, 1)
    wanted = torch.tensor([[1.0], [-1.0]])
    optimizer = torch.optim.Adam([*reading.parameters(), *head.parameters()], lr=3e-3)
    for _ in range(80):
        loss = (head(reading(views).tokens) - wanted).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.2


def test_a_frame_is_read_alike_alone_and_beside_longer_ones():
    reading = query().eval()
    short, long = view(1, agents=1), view(2, agents=9)
    both, alone = reading([short, long]), reading([short])
    for some, one in zip(both, alone, strict=True):
        torch.testing.assert_close(some[:1], one)


def test_the_motion_of_the_ego_changes_what_it_says():
    reading = query()
    slow, fast = reading([view(1, ego=0.1), view(1, ego=0.9)]).tokens
    assert (slow - fast).abs().max() > 0.01


def test_a_path_is_as_exact_as_float32_where_all_else_is_bfloat16():
    reading = query().eval()
    with torch.no_grad():
        reading.plan.path.bias[1::2] = torch.linspace(0.7, 4.1, 6)  # tens of metres, ahead
        with torch.autocast("cpu", torch.bfloat16):
            rough = reading([view(1)])
        exact = reading.plan(rough.tokens.float(), view(1).ego[None])
    assert rough.tokens.dtype is torch.bfloat16
    assert rough.paths.amax() > 30.0
    torch.testing.assert_close(rough.paths, exact, rtol=0, atol=1e-3)


def test_where_its_paths_are_off_it_learns_to_expect_so_and_the_token_stays_as_it_is():
    reading = query()
    views = [view(1), view(2)]
    off = torch.tensor([0.1, 5.0])
    before = reading(views)
    assert (before.errors > 0).all()
    before.errors.sum().backward()
    assert all(part.grad is None for name, part in reading.named_parameters() if not name.startswith("doubt."))
    optimizer = torch.optim.Adam(reading.doubt.parameters(), lr=3e-3)
    for _ in range(300):
        errors = reading(views).errors
        loss = (off[:, None, None] / errors + errors.log()).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.testing.assert_close(reading(views).errors.mean((1, 2)), off, rtol=0.1, atol=0)
    torch.testing.assert_close(reading(views).paths, before.paths, rtol=0, atol=0)
