"""Lessons: turns beside moments that are only thought about, with the truth or what is seen as features."""

from dataclasses import replace

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from opendrivevla_ros.language.model import DrivingLanguageModel, Features, LanguageConfig
from opendrivevla_ros.language.prompt import PROPOSAL_LINE, with_proposal
from opendrivevla_ros.language.small_tokenizer import build_small_tokenizer
from opendrivevla_ros.language.trajectory_text import format_trajectory
from opendrivevla_ros.perception.ego_query import EGO_NUMBERS
from opendrivevla_ros.training.answer_losses import POINT_METRES
from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.training.labels import PlanLabel
from opendrivevla_ros.training.language_batches import Saying, Turn
from opendrivevla_ros.training.language_samples import AGENT_NUMBERS, LINE_NUMBERS, SpokenSample
from opendrivevla_ros.training.lessons import Lesson, Lessons, LessonTraining
from opendrivevla_ros.training.moments import Moment, Moments
from opendrivevla_ros.training.text_tasks import TextTask
from opendrivevla_ros.training.token_reader import plan_error
from opendrivevla_ros.training.truth_encoder import TruthEncoder

PATH = torch.tensor([[0.0, 4.0 * step] for step in range(1, 7)])
TASK = TextTask("plan", "Map information: <map_start><MAP><map_end>\nvy: 3.93\nPlanning trajectory: <trajectory>", "")


def turn(seen: Features, answer: str) -> Turn:
    return Turn(seen, (Saying("Planning trajectory: <trajectory>", answer),))


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_small_tokenizer()


def truth(agents: int, lines: int, seed: int = 0) -> Features:
    random = torch.Generator().manual_seed(seed)
    return Features(
        None,
        torch.randn(agents, AGENT_NUMBERS, generator=random),
        torch.randn(lines, LINE_NUMBERS, generator=random),
    )


def moment(agents: int = 2, lines: int = 3, seed: int = 0, path: torch.Tensor = PATH) -> Moment:
    plan = PlanLabel(torch.full((EGO_NUMBERS,), 0.5), path, torch.ones(6, dtype=torch.bool))
    return Moment(truth(agents, lines, seed), plan, TASK.user)


def lesson(*moments: Moment) -> Lesson:
    return Lesson(turn(truth(2, 1), format_trajectory(PATH)), moments)


@pytest.fixture
def school(tokenizer: PreTrainedTokenizerFast) -> LessonTraining:
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "layers": 3, "heads": 2, "key_value_heads": 1}
    model = DrivingLanguageModel(LanguageConfig(vocabulary_size=len(tokenizer), feature_size=16, **sizes))
    return LessonTraining(model, tokenizer, system_text="You drive.", end_id=int(tokenizer.eos_token_id), truth=True)


def test_the_encoder_keeps_moments_apart():
    encoder = TruthEncoder(16)
    first, second = truth(2, 3, 1), truth(4, 0, 2)
    together = encoder([first, second])
    for alone, seen in zip((first, second), together, strict=True):
        torch.testing.assert_close(encoder([alone])[0].agents, seen.agents)
        torch.testing.assert_close(encoder([alone])[0].map_elements, seen.map_elements)
    assert together[1].map_elements.shape == (0, 16)


def test_what_is_thought_is_the_distance_to_the_path_and_nothing_of_the_filling(school: LessonTraining):
    thought = school.answers.thought
    torch.nn.init.zeros_(thought.points.weight)
    with torch.no_grad():
        thought.points.bias.copy_(PATH.flatten() / POINT_METRES)
    few, many = moment(1, 1), moment(9, 5, path=PATH + 3.0)
    off = plan_error(PATH[None], PATH[None] + 3.0, torch.ones(1, 6)).item()
    assert off > 2.0
    assert school([lesson(few)])["thinking"].item() == pytest.approx(0.0, abs=1e-6)
    assert school([lesson(few, many)])["thinking"].item() == pytest.approx(off / 2, rel=1e-4)


def test_a_moment_is_thought_about_alike_beside_any_other(school: LessonTraining):
    alone = school([lesson(moment(2, 2, 1))])["thinking"]
    other = school([lesson(moment(8, 6, 2))])["thinking"]
    both = school([lesson(moment(2, 2, 1), moment(8, 6, 2))])["thinking"]
    assert both.item() == pytest.approx((alone.item() + other.item()) / 2, rel=1e-4)


def test_thinking_teaches_what_reads_features_and_the_layers_up_to_the_thought_alone(school: LessonTraining):
    school([lesson(moment())])["thinking"].backward()
    learned = {name for name, part in school.named_parameters() if part.grad is not None and part.grad.any()}
    for beginning in (
        "encoder.agents",
        "encoder.lines",
        "language.model.embed_tokens",
        "answers.thought.",
        "language.model.layers.0.",
    ):
        assert any(name.startswith(beginning) for name in learned), beginning
    assert not any(
        name.startswith(("language.model.layers.2.", "language.lm_head", "answers.written")) for name in learned
    )


def test_seen_features_are_thought_about_as_they_are(tokenizer: PreTrainedTokenizerFast, school: LessonTraining):
    training = LessonTraining(school.language, tokenizer, system_text="You drive.", end_id=1)
    seen = Features(torch.randn(3, 16), torch.randn(2, 16), torch.randn(1, 16))
    blocks = (seen.scene, seen.agents, seen.map_elements)
    for block in blocks:
        block.requires_grad_()
    plan = moment().plan
    training([Lesson(turn(seen, "Yes."), [Moment(seen, plan, TASK.user)])])["thinking"].backward()
    assert all((block.grad != 0).any(1).all() for block in blocks)


def test_a_moment_is_thought_about_with_the_proposal_beside_its_features(school: LessonTraining):
    asking = TASK.user.replace("Planning", f"{PROPOSAL_LINE}Planning")
    features = replace(truth(2, 3), proposal=PATH)
    told = moment()._replace(user=asking, features=features)
    written = moment()._replace(user=with_proposal(asking, PATH))
    silent = moment()._replace(user=asking)
    losses = [school([lesson(one)])["thinking"].item() for one in (told, written, silent, moment())]
    assert losses[0] == losses[1] != losses[2] == losses[3]


def test_a_lesson_is_the_same_every_time_and_its_moments_are_not_all_one():
    turns = [turn(truth(1, 1), str(index)) for index in range(3)]
    moments = Moments([SpokenSample("street", *_parted(moment(seed=index))) for index in range(50)])
    lessons = Lessons(turns, moments, 8)
    assert len(lessons) == 3
    first, again = lessons[1], lessons[1]
    assert first.turn is turns[1]
    assert len(first.moments) == 8
    assert [id(one) for one in first.moments] == [id(one) for one in again.moments]
    assert len({id(one) for one in first.moments}) > 4


def test_moments_without_a_known_future_are_left_out():
    known, unknown = SpokenSample("street", *_parted(moment())), SpokenSample("street", truth(1, 1), ())
    assert len(Moments([known, unknown])) == 1
    with pytest.raises(TrainingError, match="none of 1 samples has a known future"):
        Moments([unknown])


def _parted(one: Moment) -> tuple[Features, tuple[TextTask], float, PlanLabel]:
    """The arguments of a sample that has nothing to say but its plan."""
    return one.features, (TASK,), 0.0, one.plan


def test_inner_matrices_are_neither_the_words_nor_the_heads(school: LessonTraining):
    inner = {id(matrix) for matrix in school.inner_matrices()}
    assert all(matrix.ndim == 2 for matrix in school.inner_matrices())
    model = school.language.model
    assert id(model.layers[0].mlp.up_proj.weight) in inner
    assert id(model.mm_projector_track[0].weight) in inner
    assert id(model.embed_tokens.weight) not in inner
    assert not inner & {id(parameter) for parameter in school.answers.parameters()}


def test_how_the_ego_moves_is_read_from_the_words_of_the_prompt(school: LessonTraining):
    other = moment()._replace(user=TASK.user.replace("3.93", "8.14"))
    slow, fast, same = (school([lesson(one)])["thinking"].item() for one in (moment(), other, moment()))
    assert slow == same
    assert abs(slow - fast) > 1e-6
