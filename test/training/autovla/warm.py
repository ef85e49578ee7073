"""A tiny AutoVLA that has learned a few moments, so that what it says is an answer."""

from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from policies.autovla.tiny import tiny_codebook, tiny_model, tiny_tokenizer
from training.autovla.drives import THOUGHT, drives

from opendrivevla_ros.language.action_tokens import ActionTokens
from opendrivevla_ros.policies.autovla.model import AutoVlaModel
from opendrivevla_ros.training.autovla.answers import AnswerTraining
from opendrivevla_ros.training.autovla.examples import PlanExample, PlanExamples

STEPS = 20  # by then it is far from sure, so that what is drawn from it differs
WEIGHT = 4.0  # of answers with a thought: their first word, which says so, is one of four times as many


def actions() -> ActionTokens:
    return ActionTokens(tiny_tokenizer(), tiny_codebook())


def dataset(folder: Path, *, draws: int = 0) -> PlanExamples:
    """A fast and a slow drive."""
    return PlanExamples([drives(folder)], tiny_model().autovla_config, tiny_tokenizer(), actions(), draws=draws)


@cache
def examples() -> tuple[PlanExample, ...]:
    with TemporaryDirectory() as folder:
        found = dataset(Path(folder))
        return tuple(found[index] for index in range(len(found)))


@cache
def _learned(steps: int, taught: tuple[tuple[int, str | None], ...]) -> AutoVlaModel:
    """After so many steps on examples by number, each with that thought."""
    model = tiny_model()
    lessons = [replace(examples()[index], thought=thought) for index, thought in taught]
    training = AnswerTraining(model, tiny_tokenizer(), actions(), reasoning_weight=WEIGHT)
    optimiser = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(steps):
        torch.stack(list(training(lessons).values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
    return model


def warm_model(steps: int = STEPS) -> AutoVlaModel:
    """One that thinks in the second drive and not in the first."""
    return deepcopy(_learned(steps, ((0, None), (3, None), (6, THOUGHT), (9, THOUGHT))))


def undecided_model() -> AutoVlaModel:
    """One that thinks as often as not, whatever it sees."""
    return deepcopy(_learned(STEPS, tuple((index, thought) for index in (0, 6) for thought in (None, THOUGHT))))
