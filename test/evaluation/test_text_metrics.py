"""Captions and answers: what counts as right, and figures of answers that are known."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from evaluation.scenes import Oracle, make_renderer

from opendrivevla_ros.core.observation import Observation
from opendrivevla_ros.core.plan import PlanError, PlanFailure
from opendrivevla_ros.evaluation.text_metrics import (
    WORDINGS,
    TextRecord,
    ask_about,
    evaluate_text,
    is_right,
    text_result,
    true_texts,
)
from opendrivevla_ros.evaluation.world_scenes import EvaluationError, Scene, drive_scene
from opendrivevla_ros.language.small_tokenizer import build_small_tokenizer
from opendrivevla_ros.policies.opendrivevla import config as configs
from opendrivevla_ros.policies.opendrivevla.model import random_model, save_model
from opendrivevla_ros.world.narration import CAPTION_QUESTIONS
from opendrivevla_ros.world.renderer import Renderer

SCENE = Scene("braking_lead", 39)


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return make_renderer()


class Talker(Oracle):
    """Says what a table has for a question, and has no answer where it has none."""

    def __init__(self, scene: Scene, renderer: Renderer, answers: dict[str, str]) -> None:
        super().__init__(scene, renderer, samples=5)
        self._answers = answers

    def answer(self, observation: Observation, question: str) -> Iterator[str]:
        if question not in self._answers:
            raise PlanError(PlanFailure.BAD_TEXT, "the model ended its answer without a word of text")
        yield from self._answers[question]


@pytest.mark.parametrize(
    ("kind", "answer", "truth", "right"),
    [
        ("exist", "yes", "Yes.", True),
        ("exist", "No.", "Yes.", False),
        ("count", "2", "2.", True),
        ("count", "12.", "2.", False),
        ("object", "Car.", "A car.", True),
        ("distance", "It is 12 m away.", "About 12 m.", True),
        ("distance", "About 13 m.", "About 12 m.", False),
        ("distance", "far away", "About 12 m.", False),
        ("status", "It is standing still.", "It stands still.", True),
        ("status", "It comes towards us.", "It stands still.", False),
        ("action", "Best is to go ahead in our lane and slow down.", "The best action is to keep moving forward"
         " and reduce the speed. The car 9 m ahead is the reason.", True),
        ("action", "Best is to keep moving forward and slow down firmly.", "Best is to keep moving forward and slow"
         " down.", False),
        ("action", "Best is to turn left and keep the speed.", "Best is to turn right and keep the speed.", False),
        ("action", "Best is to stay stopped.", "The best action is to remain at a standstill.", True),
        ("action", "", "Best is to stay stopped.", False),
    ],
)  # fmt: skip
def test_an_answer_is_right_when_it_says_the_same_in_any_wording(kind, answer, truth, right) -> None:
    assert is_right(kind, answer, truth) is right


def test_true_words_score_perfectly_and_silence_scores_nothing(renderer: Renderer) -> None:
    world, sample = list_last(SCENE, renderer)
    true = {question: references[0] for _, question, references in true_texts(world, sample.future, SCENE.seed)}
    records = ask_about(SCENE, Talker(SCENE, renderer, true), Talker(SCENE, renderer, {}), renderer)
    assert {record.seeing for record in records} == set(true.values())
    result = text_result(records, policy="talker", scenes=1)
    assert set(result.seeing.bleu) == {*CAPTION_QUESTIONS, "all"}
    assert result.seeing.bleu["all"] == pytest.approx(100.0)
    assert result.seeing.accuracy["all"] == 1.0
    assert result.seeing.failures == 0
    assert result.blind.bleu["all"] == 0.0
    assert result.blind.accuracy["all"] == 0.0
    assert result.blind.failures == len(records)
    assert result.counts["question action"] == 1
    assert json.loads(result.to_json())["seeing"]["accuracy"]["action"] == 1.0
    assert "| right answers, action | 100.00 % | 0.00 % |" in result.markdown()
    assert "version:2.6.0" in result.bleu


def list_last(scene: Scene, renderer: Renderer):
    """The state and the sample at which a scene is asked about."""
    return [(world.state, sample) for world, sample in drive_scene(scene, renderer, samples=5)][-1]


def test_captions_have_several_wordings_of_one_truth(renderer: Renderer) -> None:
    state, sample = list_last(SCENE, renderer)
    captions = [texts for kind, _, texts in true_texts(state, sample.future, 1) if kind.startswith("caption")]
    assert all(len(texts) == WORDINGS for texts in captions)
    assert all(len(set(texts)) > 1 for texts in captions)


def test_figures_by_kind_are_those_of_that_kind() -> None:
    records = [
        TextRecord("question exist", "Is there a car?", ("Yes.",), "Yes.", "No."),
        TextRecord("question exist", "Is there a bus?", ("No.",), "Yes.", "No."),
        TextRecord("question count", "How many?", ("2.",), "2.", "3."),
        TextRecord("caption intent", "Which way?", ("we follow the road ahead", "x y"), "we follow the road", "x"),
    ]
    result = text_result(records, policy="p", scenes=2)
    assert result.seeing.accuracy == {"exist": 0.5, "all": pytest.approx(2 / 3), "count": 1.0}
    assert result.blind.accuracy == {"exist": 0.5, "all": pytest.approx(1 / 3), "count": 0.0}
    # four words of five, all n-grams right: the brevity penalty exp(1 - 5/4)
    assert result.seeing.bleu["intent"] == pytest.approx(77.88, abs=0.01)


def test_a_policy_without_language_is_refused() -> None:
    with pytest.raises(EvaluationError, match="constant_velocity has no language to evaluate"):
        evaluate_text("constant_velocity", scenes=1)


def test_a_checkpoint_with_random_weights_gets_its_poor_figures(tmp_path: Path) -> None:
    tokenizer = build_small_tokenizer()
    config = replace(configs.small(len(tokenizer), tokenizer.eos_token_id), max_new_tokens=3)
    save_model(random_model(config, seed=3), tmp_path / "random", card="# random\n")
    tokenizer.save_pretrained(tmp_path / "random")
    result = evaluate_text(str(tmp_path / "random"), scenes=1, processes=1)
    assert result.policy == "random"
    assert sum(result.counts.values()) >= 5
    assert result.seeing.bleu["all"] < 20
    assert result.seeing.accuracy["all"] < 0.5
