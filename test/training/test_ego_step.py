"""The ego's query by itself: how it learns, what the language model gets of it, and what it does at the wheel."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from opendrivevla_ros.datasets.drive_store import DriveStore, StoredSample
from opendrivevla_ros.language.model import Features
from opendrivevla_ros.perception.network import PerceptionNetwork
from opendrivevla_ros.policies.opendrivevla.config import OpenDriveVlaConfig, small_perception
from opendrivevla_ros.policies.opendrivevla.perception_input import perception_frame, scene_origin
from opendrivevla_ros.training.ego_driver import EgoDriver, EgoPolicy
from opendrivevla_ros.training.ego_step import EgoTraining, proposal_scales, query_of, with_ego_tokens
from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.training.moments import Moment, Moments
from opendrivevla_ros.training.own_drives import draw_own_drives
from opendrivevla_ros.training.seen_tokens import load_tokens, see, see_drives
from opendrivevla_ros.training.world_drives import eyes_of, stretches
from opendrivevla_ros.world.seeds import Split

PERCEPTION = small_perception()
CONFIG = replace(OpenDriveVlaConfig(), perception=PERCEPTION, heading_as_trained=False, tells_past=False)


def network() -> PerceptionNetwork:
    torch.manual_seed(0)
    return PerceptionNetwork(PERCEPTION).eval()


@pytest.fixture(scope="module")
def stretch() -> list[StoredSample]:
    return next(iter(stretches(6, Split.TRAIN, eyes_of(PERCEPTION.image_size))))  # a stopped lead


@torch.no_grad()
def test_the_language_model_gets_what_the_network_gives_on_a_vehicle(stretch: list[StoredSample]):
    perception = network()
    seen = with_ego_tokens(see(perception, CONFIG, stretch), query_of(perception))
    perception.reset()
    origin = scene_origin(stretch[0].sample.observation)
    for one, stored in zip(seen, stretch, strict=True):
        output = perception(perception_frame(stored.sample.observation, PERCEPTION, origin))
        assert one.features.agents is not None
        wanted = torch.cat([output.ego_tokens, output.agent_tokens])
        torch.testing.assert_close(one.features.agents.float(), wanted, atol=1e-2, rtol=1e-2)
        assert one.features.proposal is not None
        assert one.features.proposal.shape == (6, 2)
        torch.testing.assert_close(one.features.proposal, output.path, atol=5e-2, rtol=1e-2)


def test_a_moment_whose_plan_is_not_known_stays_as_it_is(stretch: list[StoredSample]):
    perception = network()
    (sample, *_) = see(perception, CONFIG, stretch[:1])
    (kept,) = with_ego_tokens([replace(sample, plan=None)], query_of(perception))
    assert kept.features is sample.features


def test_muon_gets_what_multiplies_states_in_the_layers_and_nothing_else():
    training = EgoTraining(network())
    names = {id(parameter): name for name, parameter in query_of(training.perception).named_parameters()}
    found = {names[id(matrix)] for matrix in training.inner_matrices()}
    assert {name.split(".")[0] for name in found} == {"layers", "look"}
    assert all("layers." in name and name.endswith("weight") for name in found)
    assert all(matrix.ndim == 2 for matrix in training.inner_matrices())


def test_only_the_query_learns_and_it_learns_the_plan(stretch: list[StoredSample]):
    perception = network()
    with torch.no_grad():
        moments = Moments(see(perception, CONFIG, stretch))
    training = EgoTraining(perception)
    batch: list[Moment] = [moments[index] for index in range(len(moments))]
    optimiser = torch.optim.Adam(query_of(perception).parameters(), 3e-3)
    losses = []
    for _ in range(40):
        loss = training(batch)["plan"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 4
    others = [part for name, part in perception.named_parameters() if not name.startswith("ego_query.")]
    assert all(part.grad is None for part in others)


def test_frames_that_hold_nothing_are_read_too(stretch: list[StoredSample]):
    perception = network()
    (sample, *_) = see(perception, CONFIG, stretch[:1])
    assert sample.plan is not None
    empty = Features(torch.zeros(1, PERCEPTION.embed_dim), None, torch.zeros(0, PERCEPTION.embed_dim))
    assert EgoTraining(perception)([Moment(empty, sample.plan, ahead=sample.ahead)])["plan"].isfinite()


def test_a_perception_without_the_query_is_refused():
    with pytest.raises(TrainingError, match="ego_layers"):
        EgoTraining(PerceptionNetwork(replace(PERCEPTION, ego_layers=0)))


def test_what_it_saw_at_the_wheel_need_not_be_looked_at_again(tmp_path: Path):
    perception = network()
    torch.save(EgoTraining(perception).state_dict(), weights := tmp_path / "weights.pt")
    folder, tokens = tmp_path / "own", tmp_path / "tokens"
    driver = EgoDriver(weights, CONFIG, tokens)
    assert list(draw_own_drives(folder, driver, [4], image_size=PERCEPTION.image_size, processes=1)) == [0.0, 1.0]
    store, kept = DriveStore(folder), load_tokens(tokens)
    assert store.names[0].startswith("own000004")
    assert len(kept) == store.lengths[0] > 1
    assert list(see_drives(store, tokens, CONFIG, perception.state_dict(), processes=1)) == [1.0]
    with torch.no_grad():
        looked = see(perception, CONFIG, store.read(0))
    for one, other in zip(kept, looked, strict=True):
        assert one.tasks == other.tasks
        assert one.features.scene is not None
        assert other.features.scene is not None
        assert one.ahead is not None
        assert other.ahead is not None
        for mine, its in ((one.features.scene, other.features.scene), (one.ahead, other.ahead)):
            # what is stored went through JPEG, what it saw did not
            assert (mine.float() - its.float()).abs().mean() < 0.1 * its.float().std()


def test_at_the_wheel_it_forgets_the_drive_before(stretch: list[StoredSample]):
    policy = EgoPolicy(EgoTraining(network()))
    first, second = (stored.sample.observation for stored in stretch[:2])
    fresh = policy.plan(first).trajectory.xy
    policy.plan(second)
    policy.reset()
    torch.testing.assert_close(policy.plan(first).trajectory.xy, fresh)


def test_scales_are_how_many_times_as_far_off_as_expected_proposals_are(stretch: list[StoredSample]):
    perception = network()
    (sample, *_) = see(perception, CONFIG, stretch[:1])
    (told,) = with_ego_tokens([sample], query_of(perception))
    assert told.plan is not None
    assert told.features.proposal is not None
    right = replace(sample, plan=replace(told.plan, path=told.features.proposal))
    off = replace(sample, plan=replace(told.plan, path=told.features.proposal + torch.tensor([0.5, -2.0])))
    query = query_of(perception)
    query.doubt.forward = lambda tokens, motion: torch.full((len(tokens), 6, 2), 0.5)  # type: ignore[method-assign]
    assert proposal_scales([right], query) == ((0.001, 0.001),) * 6  # a prior must leave some doubt
    assert proposal_scales([right, off, replace(off, plan=None)], query) == ((0.5, 2.0),) * 6
    unknown = replace(off, plan=replace(told.plan, known=torch.zeros(6, dtype=torch.bool)))
    with pytest.raises(TrainingError, match="none of 1 samples has a known future"):
        proposal_scales([unknown], query)
