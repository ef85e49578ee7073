"""What each language stage learns to say: user messages exactly as inference writes them, and their answers.

Stage 1 captions, stage 2 questions, stage 2.5 the futures of agents, stage 3 plans (arXiv 2503.23463, section 3.4).
Futures are text as plans are: six points, metres, in the lidar frame at t0 (x right, y forward).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from opendrivevla_ros.core.geometry import Array, apply, invert
from opendrivevla_ros.datasets.drive_store import StoredSample, Words
from opendrivevla_ros.datasets.driving_samples import AgentLabel, DrivingSample
from opendrivevla_ros.language.prompt import PromptFields, question_message, user_message
from opendrivevla_ros.language.trajectory_text import format_trajectory
from opendrivevla_ros.policies.opendrivevla.config import OpenDriveVlaConfig
from opendrivevla_ros.policies.opendrivevla.frames import base_path_to_lidar
from opendrivevla_ros.policies.opendrivevla.thinking import TEMPLATE, words_before_plan
from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.training.thoughts import needs_thought, thought_of

AGENT_QUESTION = "Where will the {label} at {place} be in the next 3 seconds?"
NEVER_MOVING = ("barrier", "traffic_cone")
FITTING = 3  # times as often as the other way a plan begins in the way that fits the moment


@dataclass(frozen=True)
class TextTask:
    """One thing to say.

    kind: of the task, for figures by kind ("caption scene", "question count", "agent car", "plan"). user: the user
    message. answer: the text to be said. before: what a model that thinks says before that, to be learned too.
    """

    kind: str
    user: str
    answer: str
    before: str = ""


def prompt_fields(sample: DrivingSample, config: OpenDriveVlaConfig) -> PromptFields:
    """The ego motion of a sample, as the policy of this configuration tells it."""
    observation = sample.observation
    return PromptFields.from_ego(
        observation.ego,
        observation.command.command,
        lidar_to_base=observation.rig.lidar_to_base,
        heading_as_trained=config.heading_as_trained,
        tells_past=config.tells_past,
        tells_proposal=bool(config.proposal_scales),
    )


def word_tasks(words: Words, fields: PromptFields) -> tuple[TextTask, ...]:
    """Stages 1 and 2: the captions of a sample, then its questions and answers."""
    return tuple(
        TextTask(f"{what} {kind}".strip(), question_message(fields, question), answer)
        for what, said in (("caption", words.captions), ("question", words.questions))
        for kind, question, answer in said
    )


def agent_tasks(
    agents: Sequence[AgentLabel], fields: PromptFields, lidar_to_base: Array, *, decimals: int
) -> tuple[TextTask, ...]:
    """Stage 2.5: where each agent will be, for those that can be seen, can move, and have a whole future."""
    base_to_lidar = invert(lidar_to_base)
    tasks = []
    for agent in agents:
        if agent.label in NEVER_MOVING or agent.points == 0 or not agent.future_mask.all():
            continue
        path = np.column_stack([agent.future, np.full(len(agent.future), agent.position[2])])
        question = agent_question(agent.label, apply(base_to_lidar, agent.position))
        answer = _trajectory(apply(base_to_lidar, path)[:, :2], decimals)
        tasks.append(TextTask(f"agent {agent.label}", question_message(fields, question), answer))
    return tuple(tasks)


def agent_question(label: str, place: ArrayLike) -> str:
    """The question for an agent's future; a place tells the agents of one class apart.

    label: its class in the detection task. place: [2 or more] x, y of its centre in the lidar frame, metres.
    """
    return AGENT_QUESTION.format(label=label.replace("_", " "), place=written_place(place))


def planning_task(sample: DrivingSample, fields: PromptFields, *, decimals: int) -> TextTask:
    """Stage 3: the plan, which is where the lidar's origin was driven.

    Raises TrainingError for a sample whose future ends before its six points.
    """
    if not sample.future_mask.all():
        known = int(sample.future_mask.sum())
        raise TrainingError(
            f"sample {sample.token} has {known} of {len(sample.future)} points of its future: leave it out"
        )
    path = base_path_to_lidar(sample.future, sample.observation.rig.lidar_to_base)
    return TextTask("plan", user_message(fields, sample.observation.command.text), _trajectory(path, decimals))


def planning_tasks(stored: StoredSample, fields: PromptFields, config: OpenDriveVlaConfig) -> tuple[TextTask, ...]:
    """`planning_task`; for a model that thinks, after a thought and without one, as often as each is to be drawn.

    The thought is what the sample's captions say; without such there is none. It thinks where somebody matters (see
    `needs_thought`), but either way is learned at any moment, since either can be forced: the one that fits FITTING
    times as often, so that by its own probabilities it begins in that way. Raises TrainingError as `planning_task`,
    and for a caption that would end the thought.
    """
    task = planning_task(stored.sample, fields, decimals=config.decimals)
    if not config.thinks:
        return (task,)
    at_once, thought = replace(task, kind="plan fast", before=words_before_plan(None)), thought_of(stored.words)
    if thought is None:
        return (at_once,)
    if TEMPLATE.end in thought:
        raise TrainingError(f"a caption of sample {stored.sample.token} holds {TEMPLATE.end!r}: leave it out")
    after_thought = replace(task, kind="plan slow", before=words_before_plan(thought))
    if needs_thought(stored.sample):
        return (at_once, *[after_thought] * FITTING)
    return (*[at_once] * FITTING, after_thought)


def _trajectory(path: Array, decimals: int) -> str:
    """The text of points [6, 2], rounded, in which zero has one spelling: half of the labels would be "-0.00".

    A second decimal that nobody could foresee takes as much of the gradient as the first digit.
    """
    return format_trajectory(np.round(path, decimals) + 0.0)


def written_place(place: ArrayLike) -> str:
    """x and y of a place [2 or more] in the lidar frame, metres, as questions name it."""
    x, y = np.round(np.asarray(place, dtype=np.float64)[:2], 1) + 0.0
    return f"({x:.1f},{y:.1f})"
