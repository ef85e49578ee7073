"""The memory bank and the interaction among tracks."""

from dataclasses import replace

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from opendrivevla_ros.perception.config import PerceptionConfig
from opendrivevla_ros.perception.memory import MemoryBank, QueryInteraction
from opendrivevla_ros.perception.tracks import EGO, Tracks, fresh_tracks

CONFIG = replace(PerceptionConfig(), queries=3, embed_dim=8, heads=2)
COUNT = CONFIG.queries + 1


def some_tracks(seed: int = 0) -> Tracks:
    generator = torch.Generator().manual_seed(seed)
    tracks = fresh_tracks(
        torch.randn(COUNT, 16, generator=generator), torch.randn(COUNT, 3, generator=generator), CONFIG
    )
    return replace(tracks, embedding=torch.randn(COUNT, 8, generator=generator), scores=torch.full((COUNT,), 0.5))


def bank() -> MemoryBank:
    torch.manual_seed(1)
    return MemoryBank(CONFIG).eval()


@torch.no_grad()
def test_a_track_without_a_memory_keeps_its_embedding_and_stores_its_first() -> None:
    tracks, module = some_tracks(), bank()
    after = module(tracks)
    torch.testing.assert_close(after.embedding, tracks.embedding, atol=0, rtol=0)
    torch.testing.assert_close(after.memory[:, -1], module.save_proj(tracks.embedding))
    assert after.memory_empty.tolist() == [[True, True, True, False]] * COUNT


@torch.no_grad()
def test_a_memory_changes_the_embedding_and_empty_slots_do_not_matter() -> None:
    module = bank()
    tracks = module(some_tracks())
    changed = tracks.memory.clone()
    changed[:, 0] = 100.0
    after, same = module(tracks), module(replace(tracks, memory=changed))
    assert not torch.allclose(after.embedding, tracks.embedding)
    torch.testing.assert_close(after.embedding, same.embedding)


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=20))
@torch.no_grad()
def test_a_memory_is_stored_at_the_first_chance_after_the_period(seen: list[bool]) -> None:
    module, tracks = bank(), some_tracks()
    frames_left, stored = 0, 0
    for visible in seen:
        before = tracks
        tracks = module(replace(before, scores=torch.full((COUNT,), 0.5 if visible else 0.0)))
        if frames_left == 0 and visible:
            stored, frames_left = stored + 1, CONFIG.memory_period
        else:
            frames_left = max(frames_left - 1, 0)
            torch.testing.assert_close(tracks.memory, before.memory, atol=0, rtol=0)
        assert tracks.save_period.tolist() == [frames_left] * COUNT
        assert (~tracks.memory_empty).sum(1).tolist() == [min(stored, CONFIG.memory_length)] * COUNT


@torch.no_grad()
def test_only_tracks_with_an_id_are_handed_on_and_see_one_another() -> None:
    torch.manual_seed(2)
    module = QueryInteraction(CONFIG).eval()
    tracks = replace(some_tracks(), ids=torch.tensor([4, -1, 9, EGO]))
    alive = module(tracks)
    assert alive.ids.tolist() == [4, 9]
    torch.testing.assert_close(alive.reference, tracks.reference[[0, 2]], atol=0, rtol=0)
    torch.testing.assert_close(alive.embedding, tracks.embedding[[0, 2]], atol=0, rtol=0)
    alone = module(replace(tracks, ids=torch.tensor([4, -1, -1, EGO])))
    assert not torch.allclose(alone.query[0], alive.query[0])


@torch.no_grad()
def test_no_live_track_hands_nothing_on() -> None:
    assert len(QueryInteraction(CONFIG).eval()(some_tracks())) == 0
