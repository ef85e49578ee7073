"""Moments of stored drives as examples: read as the policy reads, with the actions of the driven way."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from policies.autovla.tiny import tiny_codebook, tiny_config, tiny_model, tiny_policy, tiny_tokenizer
from training.autovla.drives import THOUGHT, drives, elsewhere, standing_car, stored

from opendrivevla_ros.core.geometry import planar_transform
from opendrivevla_ros.datasets.drive_store import DriveStore, StoredSample
from opendrivevla_ros.datasets.world_samples import WorldSampler
from opendrivevla_ros.language.action_tokens import ActionTokens
from opendrivevla_ros.policies.autovla.model import Seen, VisionIds
from opendrivevla_ros.training.autovla.examples import PlanExamples
from opendrivevla_ros.training.autovla.known_way import known_way
from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.world.families import make_scenario
from opendrivevla_ros.world.renderer import Renderer
from opendrivevla_ros.world.rig import nuscenes_rig
from opendrivevla_ros.world.simulation import World


def examples(*stores: DriveStore, draws: int = 0) -> PlanExamples:
    actions = ActionTokens(tiny_tokenizer(), tiny_codebook())
    return PlanExamples(stores, tiny_config(), tiny_tokenizer(), actions, draws=draws)


def store_of(folder: Path, *stretches: Sequence[StoredSample]) -> DriveStore:
    for number, samples in enumerate(stretches):
        DriveStore(folder).write(f"drive{number}", samples)
    return DriveStore(folder)


def test_training_reads_the_very_prompts_and_pictures_that_the_policy_plans_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    store = drives(tmp_path, speeds=(4.0,), samples=7)
    found = examples(store)
    model = tiny_model()
    policy, read, looked, embed, see = tiny_policy(model), [], [], model.embed_seen, model.seen

    def watched(ids: list[int], tokens: torch.Tensor, own: VisionIds) -> tuple[torch.Tensor, torch.Tensor]:
        read.append(ids)
        return embed(ids, tokens, own)

    def shown(videos: Sequence[torch.Tensor]) -> Seen:
        looked.extend(videos)
        return see(videos)

    monkeypatch.setattr(model, "embed_seen", watched)
    monkeypatch.setattr(model, "seen", shown)
    for number, one in enumerate(store.read(0)[: len(found)]):
        policy.plan(one.sample.observation)
        example, ids, videos = found[number], read[-1], looked[-1]
        assert list(example.ids) == ids
        torch.testing.assert_close(example.videos, videos, rtol=0, atol=0)
        assert example.sample.sample.token == one.sample.token
        assert example.sample.sample.observation.frames == ()
    assert len(found) == len(read) == len(looked) == 7


def test_the_actions_lead_where_was_driven(tmp_path: Path):
    found = examples(drives(tmp_path, speeds=(8.0,), samples=6))
    first, last = found[0], found[5]
    way = tiny_codebook().decode(list(first.actions))
    np.testing.assert_allclose(way[:, 0], 8.0 * 0.5 * np.arange(1, 11), atol=0.15)
    np.testing.assert_allclose(way[:, 1], 0.0, atol=0.05)
    assert len(last.actions) == 6


def test_a_moment_is_slow_where_somebody_matters_and_there_are_words_for_it(tmp_path: Path):
    car = (standing_car(9.0),)
    wordless = [
        replace(stored(index, scene="c", agents=car), words=replace(stored(0).words, captions=()))
        for index in range(6)
    ]
    store = store_of(
        tmp_path,
        [stored(index, scene="a") for index in range(6)],
        [stored(index, scene="b", agents=car) for index in range(6)],
        wordless,
        [stored(index, scene="d", agents=None) for index in range(6)],  # a source that knows of nobody
    )
    found = examples(store)
    assert [found[index].thought for index in range(0, 24, 6)] == [None, THOUGHT, None, THOUGHT]


def test_moments_come_back_with_other_seeds_where_more_are_drawn_than_there_are(tmp_path: Path):
    found = examples(drives(tmp_path, speeds=(4.0,)), draws=13)
    assert len(found) == 18
    assert [found[index].seed for index in (2, 8)] == [2, 8]
    assert found[2].actions == found[8].actions


def test_drives_that_nothing_can_be_learned_from_are_told_by_name(tmp_path: Path):
    def blind(index: int) -> StoredSample:
        sample = stored(index).sample
        return replace(stored(index), sample=replace(sample, observation=replace(sample.observation, frames=())))

    dark = examples(store_of(tmp_path / "dark", [blind(index) for index in range(6)]))
    with pytest.raises(TrainingError, match=r"has no picture of cam_front; draw or record drives with pictures"):
        dark[0]
    one = stored(0).sample
    lost = replace(one, future=np.full_like(one.future, np.nan))
    with pytest.raises(TrainingError, match=r"the way after .* is not finite; leave that drive out"):
        examples(store_of(tmp_path / "lost", [replace(stored(0), sample=lost)]))


def test_a_drive_that_is_cut_in_stretches_is_one_drive(tmp_path: Path):
    samples = [stored(index) for index in range(8)]
    whole = examples(store_of(tmp_path / "whole", samples))
    cut = examples(store_of(tmp_path / "cut", samples[:3], samples[3:]))
    for index in range(8):
        torch.testing.assert_close(cut[index].videos, whole[index].videos, rtol=0, atol=0)
        assert cut[index].actions == whole[index].actions


def test_a_way_is_known_as_long_as_the_drive_went_where_its_future_said():
    samples = [stored(index).sample for index in range(11)]
    np.testing.assert_allclose(known_way(samples)[:, 0], 2.5 * np.arange(1, 11), atol=1e-9)
    assert len(known_way(samples[:1])) == 6
    assert len(known_way(samples[:3])) == 8
    strayed = elsewhere(stored(2), 0.5).sample
    assert len(known_way([samples[0], samples[1], strayed, *samples[3:]])) == 7
    assert len(known_way([samples[0], *samples[3:]])) == 10  # a sample may be missing
    assert len(known_way([samples[0], *samples[8:]])) == 6  # but not until its own future has ended
    assert len(known_way([stored(0, known=0).sample])) == 0


def test_what_the_expert_drove_in_the_world_is_the_way_of_its_moments():
    eyes = Renderer(nuscenes_rig(112, 63))
    sampler = WorldSampler(make_scenario("bend", 4), eyes)
    samples = list(sampler.follow(World(sampler.scenario), 12))
    way = known_way(samples)
    start = samples[0].observation.ego.base_to_world
    for step, later in enumerate(samples[1:11], start=1):
        there = np.linalg.inv(start) @ later.observation.ego.base_to_world
        np.testing.assert_allclose(way[step - 1, :2], there[:2, 3], atol=0.1)


def test_a_way_that_turns_past_half_a_circle_keeps_its_headings():
    quarter = np.pi / 2 * np.arange(1, 7) / 3

    def at(index: int) -> StoredSample:
        one = stored(index, speed=0.0)
        angle = np.pi / 6 * index
        ego = replace(one.sample.observation.ego, base_to_world=planar_transform(0.0, 0.0, angle))
        future = np.column_stack([np.zeros(6), np.zeros(6), (quarter + np.pi) % (2 * np.pi) - np.pi])
        observation = replace(one.sample.observation, ego=ego)
        return replace(one, sample=replace(one.sample, observation=observation, future=future))

    way = known_way([at(index).sample for index in range(6)])
    np.testing.assert_allclose(np.exp(1j * way[:, 2]), np.exp(1j * np.pi / 6 * np.arange(1, 11)), atol=1e-9)


def test_drives_without_five_seconds_of_a_way_are_refused(tmp_path: Path):
    store = store_of(tmp_path, [stored(0), stored(1)])
    with pytest.raises(TrainingError, match=r"none of 2 moments in .* is followed by 5 s of known motion"):
        examples(store)
