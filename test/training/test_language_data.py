"""What a moment offers to say, the truth in place of features, and the choice among it."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from opendrivevla_ros.core.geometry import NUSCENES_LIDAR_TO_BASE, apply
from opendrivevla_ros.core.trajectory import FUTURE_TIMES_S
from opendrivevla_ros.datasets.drive_store import StoredSample, Words
from opendrivevla_ros.datasets.world_samples import WorldSampler
from opendrivevla_ros.language.prompt import proposal_text
from opendrivevla_ros.language.trajectory_text import parse_trajectory
from opendrivevla_ros.perception.tracker import decode_boxes
from opendrivevla_ros.policies.opendrivevla.config import small
from opendrivevla_ros.policies.opendrivevla.frames import base_path_to_lidar
from opendrivevla_ros.policies.opendrivevla.thinking import words_before_plan
from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.training.labels import LINE_POINTS
from opendrivevla_ros.training.language_data import EVENTFUL_METRES, TOGETHER, choose, draw
from opendrivevla_ros.training.language_samples import (
    AGENT_NUMBERS,
    LINE_NUMBERS,
    NOTHING_SEEN,
    SpokenSample,
    departure,
    spoken,
    true_features,
)
from opendrivevla_ros.training.sample_labels import even_points
from opendrivevla_ros.training.text_tasks import TextTask
from opendrivevla_ros.training.world_drives import stretches
from opendrivevla_ros.world.families import make_scenario
from opendrivevla_ros.world.renderer import Renderer
from opendrivevla_ros.world.rig import nuscenes_rig
from opendrivevla_ros.world.seeds import Split

CONFIG = small(vocabulary_size=900, eos_id=1)


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer(nuscenes_rig(96, 54))


@pytest.fixture(scope="module")
def stored(renderer: Renderer) -> StoredSample:
    return next(stretches(8, Split.TRAIN, renderer))[0]  # a cut-in: there is somebody


def test_a_moment_offers_its_plan_captions_questions_and_agents(stored: StoredSample):
    sample = spoken(stored, NOTHING_SEEN, CONFIG)
    kinds = Counter(task.kind.split()[0] for task in sample.tasks)
    assert kinds["plan"] == 1
    assert set(kinds) == {"plan", "caption", "question", "agent"}
    (plan,) = (task for task in sample.tasks if task.kind == "plan")
    wanted = base_path_to_lidar(stored.sample.future, stored.sample.observation.rig.lidar_to_base)
    np.testing.assert_allclose(parse_trajectory(plan.answer), wanted, atol=0.051)


def test_a_moment_without_words_still_offers_its_plan(stored: StoredSample):
    bare = replace(stored, words=Words(), sample=replace(stored.sample, agents=None))
    assert [task.kind for task in spoken(bare, NOTHING_SEEN, CONFIG).tasks] == ["plan"]


def test_a_moment_of_a_model_that_thinks_offers_its_captions_as_a_thought(stored: StoredSample):
    sample = spoken(stored, NOTHING_SEEN, replace(CONFIG, thinks=True))
    random = np.random.default_rng(0)
    begun = {choose(sample, {"plan": 1.0}, random).sayings[0].before for _ in range(40)}
    assert words_before_plan(None) in begun
    (slow,) = begun - {words_before_plan(None)}
    assert all(caption in slow for _, _, caption in stored.words.captions)
    assert {
        choose(spoken(stored, NOTHING_SEEN, CONFIG), {"plan": 1.0}, random).sayings[0].before for _ in range(5)
    } == {""}


def test_the_truth_holds_agents_nearest_first_and_lines(stored: StoredSample):
    truth = true_features(stored, CONFIG.perception)
    assert truth.scene is None
    assert truth.agents.shape[1] == AGENT_NUMBERS
    assert truth.map_elements.shape[1] == LINE_NUMBERS
    codes = truth.agents[:, :10] * torch.tensor([40, 40, 1, 1, 1, 1, 1, 1, 10, 10])
    distances = decode_boxes(codes)[:, :2].norm(dim=1)
    assert (distances.diff() >= 0).all()
    seen = [agent for agent in stored.sample.agents if agent.points > 0]
    nearest = min(np.hypot(*(agent.position[:2] - NUSCENES_LIDAR_TO_BASE[:2, 3])) for agent in seen)
    assert distances[0].item() == pytest.approx(nearest, abs=1e-3)
    assert (truth.agents[:, 10:].sum(1) == 1).all()
    assert (truth.map_elements[:, 2 * LINE_POINTS :].sum(1) == 1).all()


def test_points_of_a_line_are_even_and_in_the_lidar_frame():
    line = np.array([[0.0, 0.0], [3.0, 0.0], [11.0, 0.0]])
    points = even_points(line, False, NUSCENES_LIDAR_TO_BASE)
    back = apply(NUSCENES_LIDAR_TO_BASE, np.column_stack([points, np.zeros(LINE_POINTS)]))[:, :2]
    np.testing.assert_allclose(back[:, 0], np.linspace(0, 11, LINE_POINTS), atol=1e-9)
    np.testing.assert_allclose(back[:, 1], 0, atol=1e-9)


def test_tasks_are_chosen_by_their_shares():
    tasks = tuple(TextTask(kind, kind, "answer") for kind in ("plan", "question count", "question exist", "agent car"))
    sample = SpokenSample("street", NOTHING_SEEN, tasks)
    random = np.random.default_rng(0)
    shares = {"plan": 2.0, "question": 1.0, "caption": 5.0}  # there are no captions
    turns = [choose(sample, shares, random) for _ in range(3000)]
    said = Counter(turn.sayings[0].user for turn in turns)
    assert said["agent car"] == 0
    assert said["plan"] == pytest.approx(2000, abs=120)
    assert said["question count"] == pytest.approx(500, abs=90)


def test_questions_of_a_moment_are_asked_together_and_none_twice():
    questions = tuple(TextTask("question count", f"how many {number}", "3.") for number in range(9))
    sample = SpokenSample("street", NOTHING_SEEN, (TextTask("plan", "plan", "answer"), *questions))
    random = np.random.default_rng(0)
    asked = [[saying.user for saying in choose(sample, {"question": 1.0}, random).sayings] for _ in range(50)]
    assert {len(set(some)) for some in asked} == {TOGETHER["question"]}
    assert len({tuple(some) for some in asked}) > 40
    assert len(choose(replace(sample, tasks=questions[:2]), {"question": 1.0}, random).sayings) == 2


def test_plans_are_the_driven_ones_and_as_often_those_that_were_proposed(stored: StoredSample):
    path = torch.tensor([[0.0, 3.0 * step] for step in range(1, 7)])
    silent = spoken(stored, NOTHING_SEEN, CONFIG)
    told = replace(silent, features=replace(NOTHING_SEEN, proposal=path))
    random = np.random.default_rng(0)
    said = Counter(choose(told, {"plan": 1.0}, random).sayings[0].answer for _ in range(400))
    (driven,) = {choose(silent, {"plan": 1.0}, random).sayings[0].answer for _ in range(20)}
    assert set(said) == {driven, proposal_text(path)}
    assert said[driven] == pytest.approx(200, abs=40)
    other = Counter(choose(told, {"agent": 1.0}, random).sayings[0].answer for _ in range(20))
    assert proposal_text(path) not in other


def test_a_sample_that_offers_nothing_of_what_is_asked_for_is_named():
    sample = SpokenSample("street 9", NOTHING_SEEN, (TextTask("plan", "plan", "answer"),))
    with pytest.raises(TrainingError, match=r"street 9 offers plan, but \{'caption': 1\.0\} is asked for"):
        choose(sample, {"caption": 1.0}, np.random.default_rng(0))


def test_stretches_are_the_same_every_time_and_disturbed_drives_come_back(renderer: Renderer):
    first, second = (list(stretches(2, Split.TRAIN, renderer)) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        for a, b in zip(one, other, strict=True):
            assert a.sample.token == b.sample.token
            assert a.words == b.words
            np.testing.assert_array_equal(a.sample.future, b.sample.future)
    calm = WorldSampler(make_scenario("bend", 0), renderer)
    assert [sample.index for sample in calm.drive(3)] == [0, 1, 2]


def test_the_departure_is_the_furthest_from_going_on_at_the_present_velocity(stored: StoredSample):
    ways = np.zeros((6, 3))
    ways[:, :2] = np.outer(FUTURE_TIMES_S, stored.sample.observation.ego.velocity[:2])
    assert departure(replace(stored.sample, future=ways)) == 0.0
    ways[3, :2] += (3.0, -4.0)
    assert departure(replace(stored.sample, future=ways)) == pytest.approx(5.0)
    unknown = np.arange(6) != 3
    assert departure(replace(stored.sample, future=ways, future_mask=unknown)) == 0.0


def test_eventful_moments_are_drawn_more_often_than_they_are():
    tasks = (TextTask("plan", "plan", "answer"),)
    there = [SpokenSample("street", NOTHING_SEEN, tasks, EVENTFUL_METRES)]
    there += [SpokenSample("street", NOTHING_SEEN, (TextTask("plan", "dull", "answer"),))] * 9
    said = Counter(draw(there.__getitem__, 10, index, {"plan": 1.0}).sayings[0].user for index in range(2000))
    assert said["plan"] / 2000 == pytest.approx(0.27, abs=0.05), "a tenth of the moments, a quarter of what is learned"
    assert draw(there.__getitem__, 10, 7, {"plan": 1.0}) == draw(there.__getitem__, 10, 7, {"plan": 1.0})
