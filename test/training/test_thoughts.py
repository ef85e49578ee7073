"""What is thought before a plan, and where a thought is needed."""

from dataclasses import replace

import numpy as np
import pytest
from training.autovla.drives import THOUGHT, WORDS, standing_car, stored

from opendrivevla_ros.core.trajectory import FUTURE_TIMES_S
from opendrivevla_ros.datasets.drive_store import Words
from opendrivevla_ros.datasets.driving_samples import AgentLabel, DrivingSample
from opendrivevla_ros.datasets.world_samples import NoPictures, WorldSampler
from opendrivevla_ros.training.thoughts import needs_thought, thought_of
from opendrivevla_ros.training.world_drives import words_of
from opendrivevla_ros.world.families import make_scenario
from opendrivevla_ros.world.narration import narrate
from opendrivevla_ros.world.rig import nuscenes_rig
from opendrivevla_ros.world.simulation import World


def moment(*agents: AgentLabel, speed: float = 8.0) -> DrivingSample:
    return stored(0, speed=speed, agents=agents).sample


def test_a_thought_is_the_captions_under_the_published_headings():
    assert thought_of(WORDS) == THOUGHT


def test_the_worlds_captions_make_the_narration_as_it_is_written():
    sampler = WorldSampler(make_scenario("braking_lead", 3), NoPictures(nuscenes_rig()))
    world = World(sampler.scenario)
    sample = sampler.sample(world, 0)
    assert thought_of(words_of(world, sample, 5)) == narrate(world.state, sample.future, seed=5).text


def test_captions_of_instruction_data_are_known_by_the_last_word_of_their_kind():
    captions = tuple((f"drivelm {kind}", question, text) for kind, question, text in WORDS.captions)
    assert thought_of(Words(captions)) == THOUGHT


def test_words_without_an_action_make_no_thought():
    assert thought_of(Words()) is None
    assert thought_of(Words(WORDS.captions[:3], WORDS.questions)) is None


@pytest.mark.parametrize(
    ("agent", "expected"),
    [
        (standing_car(15.0), True),
        (standing_car(60.0), False),  # further than the next 3 s lead
        (standing_car(15.0, left=3.5), False),  # in the next lane
        (standing_car(-12.0), False),
        (standing_car(15.0, points=0), False),  # nobody can see it
    ],
)
def test_somebody_in_the_way_matters(agent: AgentLabel, expected: bool):
    assert needs_thought(moment(agent)) is expected


def test_who_crosses_the_way_in_time_matters_and_who_is_gone_by_then_does_not():
    walks = np.column_stack([np.full(6, 18.0), 4.0 - 2.0 * FUTURE_TIMES_S])
    crossing = replace(standing_car(18.0, left=4.0), future=walks, size=np.array([0.7, 0.7, 1.8]))
    assert needs_thought(moment(crossing))
    away = replace(crossing, future=walks + np.array([0.0, 6.0]))
    assert not needs_thought(moment(away))
    leaves = replace(crossing, position=np.array([18.0, 0.0, 0.9]), future_mask=np.zeros(6, dtype=bool))
    assert not needs_thought(moment(leaves))


def test_who_leads_at_ones_own_speed_does_not_matter_and_who_stands_before_a_standing_ego_does():
    ahead = 20.0 + 8.0 * FUTURE_TIMES_S
    lead = replace(standing_car(20.0), future=np.column_stack([ahead, np.zeros(6)]))
    assert not needs_thought(moment(lead))
    assert needs_thought(moment(standing_car(9.0), speed=0.0))


def test_a_source_without_agents_knows_of_nobody():
    assert not needs_thought(stored(0, agents=None).sample)


def test_the_way_is_looked_along_where_it_bends():
    sample = moment(standing_car(15.0, left=6.0))
    assert not needs_thought(sample)
    angle = np.linspace(0.12, 0.9, 6)
    bend = np.column_stack([20 * np.sin(angle), 20 * (1 - np.cos(angle)), angle])
    assert needs_thought(replace(sample, future=bend))
