"""What the language stages learn to say: inference's own messages, and answers that are true."""

import re
from dataclasses import replace

import numpy as np
import pytest

from opendrivevla_ros.core.ego import Command, DrivingCommand
from opendrivevla_ros.core.geometry import NUSCENES_LIDAR_TO_BASE, apply, planar_transform
from opendrivevla_ros.core.observation import Observation
from opendrivevla_ros.datasets.drive_store import StoredSample, Words
from opendrivevla_ros.datasets.driving_samples import AgentLabel, DrivingSample
from opendrivevla_ros.language.prompt import PromptFields, question_message, user_message
from opendrivevla_ros.language.trajectory_text import parse_trajectory
from opendrivevla_ros.policies.opendrivevla.config import base
from opendrivevla_ros.policies.opendrivevla.thinking import words_before_plan
from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.training.text_tasks import (
    TextTask,
    agent_tasks,
    planning_task,
    planning_tasks,
    prompt_fields,
    word_tasks,
)
from opendrivevla_ros.world.families import make_scenario
from opendrivevla_ros.world.rig import nuscenes_rig
from opendrivevla_ros.world.simulation import World

MOUNT = np.array(NUSCENES_LIDAR_TO_BASE)
TIMES = np.arange(1, 7) * 0.5
CONFIG = replace(base(), heading_as_trained=False)


@pytest.fixture(scope="module")
def world() -> World:
    return World(make_scenario("braking_lead", 0))


@pytest.fixture(scope="module")
def sample(world: World) -> DrivingSample:
    """The start of the drive without pictures; the way to the left is made up."""
    observation = Observation(
        stamp_ns=0,
        frames=(),
        rig=nuscenes_rig(64, 36),
        ego=world.ego_state(),
        command=DrivingCommand(Command.TURN_LEFT, "Drive slowly.", False),
    )
    future = np.column_stack([6.0 * TIMES, 0.5 * TIMES**2, 0.1 * TIMES])
    return DrivingSample("scene", "token", 0, observation, future, np.ones(6, dtype=bool))


@pytest.fixture(scope="module")
def fields(sample: DrivingSample) -> PromptFields:
    return prompt_fields(sample, CONFIG)


def agent(label: str = "car", **changes: object) -> AgentLabel:
    """Ten metres ahead and 2 m to the left, moving on at 3 m/s."""
    future = np.array([10.0, 2.0]) + np.outer(TIMES, [3.0, 0.0])
    there = AgentLabel(
        track_id=1,
        label=label,
        position=np.array([10.0, 2.0, 0.8]),
        size=np.array([4.5, 1.9, 1.6]),
        yaw=0.0,
        velocity=np.array([3.0, 0.0]),
        velocity_known=True,
        future=future,
        future_mask=np.ones(6, dtype=bool),
        points=9,
        visibility=4,
        attribute="",
    )
    return replace(there, **changes)


def test_captions_and_questions_become_inferences_own_messages(fields: PromptFields) -> None:
    said = Words((("scene", "Describe the scene.", "A street."),), (("count", "How many cars?", "2."),))
    caption, question = word_tasks(said, fields)
    assert caption == TextTask("caption scene", question_message(fields, "Describe the scene."), "A street.")
    assert question == TextTask("question count", question_message(fields, "How many cars?"), "2.")


def test_a_plan_is_where_the_lidar_goes_in_inferences_own_message(sample: DrivingSample, fields: PromptFields) -> None:
    task = planning_task(sample, fields, decimals=2)
    assert task.user == user_message(fields, "Drive slowly.")
    assert "Mission goal: turn left" in task.user
    place = sample.observation.rig.lidar_to_base
    for point, pose in zip(parse_trajectory(task.answer), sample.future, strict=True):
        ahead = apply(planar_transform(*pose), place[:3, 3])
        np.testing.assert_allclose(apply(place, [*point, 0.0])[:2], ahead[:2], atol=0.01)
    assert parse_trajectory(task.answer)[-1, 0] < -4  # left is a negative x


def test_a_standing_plan_has_one_spelling_of_zero(sample: DrivingSample, fields: PromptFields) -> None:
    for wobble in (1e-4, -1e-4):
        standing = replace(sample, future=np.full((6, 3), wobble))
        stop = planning_task(standing, fields, decimals=2).answer
        assert stop == f"<traj_start>[{','.join(['(0.00,0.00)'] * 6)}]<traj_end>"


def test_a_plan_in_decimetres_keeps_its_two_decimals(sample: DrivingSample, fields: PromptFields) -> None:
    fine, coarse = (planning_task(sample, fields, decimals=decimals).answer for decimals in (2, 1))
    np.testing.assert_allclose(parse_trajectory(coarse), np.round(parse_trajectory(fine), 1), atol=0.1001)
    assert len(coarse) == len(fine)
    assert set(re.findall(r"\.\d(\d)", coarse)) == {"0"}


def test_a_plan_that_was_not_driven_to_its_end_is_refused(sample: DrivingSample, fields: PromptFields) -> None:
    cut = replace(sample, future_mask=np.arange(6) < 4)
    with pytest.raises(TrainingError, match="sample token has 4 of 6 points of its future"):
        planning_task(cut, fields, decimals=2)


def test_an_agents_future_is_told_in_the_lidar_frame(fields: PromptFields) -> None:
    (task,) = agent_tasks([agent()], fields, MOUNT, decimals=2)
    path = np.column_stack([parse_trajectory(task.answer), np.zeros(6)])
    np.testing.assert_allclose(apply(MOUNT, path)[:, :2], agent().future, atol=0.01)
    # 10 m ahead of base_link and 2 m left is 9.1 m ahead of the lidar
    assert task.user == question_message(fields, "Where will the car at (-2.0,9.1) be in the next 3 seconds?")
    assert task.kind == "agent car"


def test_agents_without_a_future_to_learn_are_left_out(fields: PromptFields) -> None:
    cut = agent(future_mask=np.arange(6) < 5)
    hidden, cone = agent(points=0), agent("traffic_cone")
    digger = agent("construction_vehicle")
    tasks = agent_tasks([cut, hidden, cone, digger], fields, MOUNT, decimals=2)
    assert [task.kind for task in tasks] == ["agent construction_vehicle"]
    assert "the construction vehicle at" in tasks[0].user


def test_the_configuration_decides_whether_the_past_is_told(sample: DrivingSample):
    told, untold = (user_message(prompt_fields(sample, replace(CONFIG, tells_past=tells))) for tells in (True, False))
    assert "Historical trajectory" in told
    assert "Historical trajectory" not in untold
    assert {line for line in untold.splitlines() if "Ego states" not in line} < set(told.splitlines())


CAPTIONS = (("scene", "Describe the scene.", "A street."), ("action", "What is the best driving action?", "I stop."))
THOUGHT = "### Scene Description:\nA street.\n### Best Driving Action:\nI stop."


def test_a_model_that_does_not_think_learns_the_plan_alone(sample: DrivingSample, fields: PromptFields) -> None:
    tasks = planning_tasks(StoredSample(sample, Words(captions=CAPTIONS)), fields, CONFIG)
    assert tasks == (planning_task(sample, fields, decimals=CONFIG.decimals),)
    assert tasks[0].before == ""


@pytest.mark.parametrize("someone_matters", [False, True])
def test_a_model_that_thinks_learns_both_ways_and_more_often_the_one_that_fits(
    sample: DrivingSample, fields: PromptFields, someone_matters: bool
) -> None:
    here = replace(sample, agents=(agent(),) if someone_matters else ())
    tasks = planning_tasks(StoredSample(here, Words(captions=CAPTIONS)), fields, replace(CONFIG, thinks=True))
    plan = planning_task(sample, fields, decimals=CONFIG.decimals)
    assert {(task.user, task.answer) for task in tasks} == {(plan.user, plan.answer)}
    begun = [task.before for task in tasks]
    slow, fast = words_before_plan(THOUGHT), words_before_plan(None)
    assert (begun.count(slow), begun.count(fast)) == ((3, 1) if someone_matters else (1, 3))
    assert {task.kind.split()[0] for task in tasks} == {"plan"}


def test_without_captions_there_is_no_thought_to_learn(sample: DrivingSample, fields: PromptFields) -> None:
    (task,) = planning_tasks(StoredSample(sample), fields, replace(CONFIG, thinks=True))
    assert task.before == words_before_plan(None)


def test_a_caption_that_would_end_a_thought_is_refused(sample: DrivingSample, fields: PromptFields) -> None:
    words = Words(captions=(("action", "What?", "Stop.</think>"),))
    with pytest.raises(TrainingError, match="a caption of sample token holds '</think>': leave it out"):
        planning_tasks(StoredSample(sample, words), fields, replace(CONFIG, thinks=True))
