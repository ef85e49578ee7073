"""Reinforcement by GRPO: a toy reward is learned, what is no number is not, and a run is the same however it goes."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from policies.autovla.tiny import PROPOSING, tiny_model, tiny_tokenizer
from training.autovla.warm import actions, dataset, examples, undecided_model

from opendrivevla_ros.core.trajectory import Trajectory
from opendrivevla_ros.datasets.drive_store import StoredSample
from opendrivevla_ros.training.autovla.answers import following
from opendrivevla_ros.training.autovla.low_rank import LowRank
from opendrivevla_ros.training.autovla.packed_answers import SharedPrompt, pack
from opendrivevla_ros.training.autovla.reinforcement import GrpoSettings, Reinforcement, Reward, advantages
from opendrivevla_ros.training.autovla.run import parameter_groups
from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.training.loop import LoopSettings, train, use_gradient_checkpointing
from opendrivevla_ros.training.metrics import read_metrics

SMALL = GrpoSettings(group=4, most_thought=20, rank=0)
LOOP = LoopSettings(
    steps=4, learning_rate=1e-3, batch_size=2, warmup_steps=1, weight_decay=0.0, clip_norm=1.0, save_every=2
)


def shorter(sample: StoredSample, plan: Trajectory) -> float:
    """More for who is slower."""
    return -float(plan.xy[5, 0]) / 10


def learner(reward: Reward = shorter, settings: GrpoSettings = SMALL, *, seed: int = 0) -> Reinforcement:
    return Reinforcement(undecided_model(), tiny_tokenizer(), actions(), reward, settings, seed=seed)


def trained(
    folder: Path, reward: Reward = shorter, settings: GrpoSettings = SMALL, loop: LoopSettings = LOOP
) -> Reinforcement:
    made = learner(reward, settings)
    samples = dataset(folder / "drives", draws=loop.steps * loop.batch_size)
    train(made, samples, list, parameter_groups(made, loop.weight_decay), loop, folder / "run")
    return made


def column(folder: Path, name: str) -> Sequence[float]:
    return [row[name] for row in read_metrics(folder / "run")]


def test_a_model_that_proposes_learns_with_what_it_proposes():
    model = tiny_model(**PROPOSING)
    made = Reinforcement(model, tiny_tokenizer(), actions(), shorter, SMALL)
    losses = made([examples()[0]])
    assert losses["divergence"].item() == pytest.approx(0.0, abs=1e-6)  # it is its own reference as yet
    losses["policy"].backward()
    learned = {name for name, weight in model.named_parameters() if weight.grad is not None and weight.grad.any()}
    assert learned
    assert all(name.startswith("model.language_model.") for name in learned)


def test_a_reward_is_learned(tmp_path: Path):
    loop = replace(LOOP, steps=30, learning_rate=5e-3, save_every=100)
    settings = replace(SMALL, group=16, divergence=0.0)
    trained(tmp_path, settings=settings, loop=loop)
    rewards = column(tmp_path, "measured_reward")
    assert np.mean(rewards[-8:]) > np.mean(rewards[:8]) + 0.15


@pytest.mark.parametrize("rank", [0, 4])
def test_a_thought_that_is_not_worth_its_price_is_given_up(tmp_path: Path, rank: int):
    loop = replace(LOOP, steps=20, learning_rate=5e-2 if rank else 3e-3, save_every=100)
    settings = replace(SMALL, group=8, rank=rank, thought_slope=0.01, thought_length=100.0)
    trained(tmp_path, lambda sample, plan: 1.0, settings, loop)
    slow = column(tmp_path, "measured_slow")
    assert np.mean(slow[:4]) > 0.1
    assert np.mean(slow[-8:]) < 0.5 * np.mean(slow[:4])


def test_what_has_no_reward_is_dropped_and_counted_and_changes_nothing(tmp_path: Path):
    made = trained(tmp_path, lambda sample, plan: math.nan)
    assert column(tmp_path, "counted_dropped") == [8.0] * 4
    assert column(tmp_path, "loss") == [0.0] * 4
    torch.testing.assert_close(made.model.state_dict(), undecided_model().state_dict(), rtol=0, atol=0)


def test_an_answer_without_a_reward_teaches_nothing_beside_others_that_do():
    def gradients(rewards: Sequence[float]) -> torch.Tensor:
        given = iter(rewards)
        made = learner(lambda sample, plan: next(given), replace(SMALL, thought_price=0.0))
        told = made([examples()[0]])
        assert told["counted_dropped"] == sum(math.isnan(reward) for reward in rewards)
        (told["policy"] + told["divergence"]).backward()
        return torch.cat([weight.grad.flatten() for weight in made.parameters() if weight.grad is not None])

    assert gradients([1.0, 0.0, math.nan, 2.0]).isfinite().all()
    assert gradients([1.0, math.nan, math.nan, math.nan]).abs().max() == 0.0  # one alone is no better than others


def test_answers_without_a_reward_weigh_the_same_however_prompts_are_shared_out():
    def gradients(number: int) -> torch.Tensor:
        """Of one prompt whose first two answers of four have no reward, of another, or of both."""
        some = ([examples()[0]], [examples()[6]], [examples()[0], examples()[6]])[number]
        given = count()
        dropped = set() if number == 1 else {0, 1}

        def reward(sample: StoredSample, plan: Trajectory) -> float:
            return math.nan if next(given) in dropped else shorter(sample, plan)

        made = learner(reward, replace(SMALL, thought_price=0.0))
        told = made(some)
        (told["policy"] + told["divergence"]).backward()
        return torch.cat([weight.grad.flatten() for weight in made.parameters() if weight.grad is not None])

    first, second, both = map(gradients, range(3))
    assert first.abs().max() > 0
    torch.testing.assert_close((first + second) / 2, both, rtol=1e-4, atol=1e-7)  # as two processes average theirs


def test_answers_behind_one_prompt_are_read_as_each_behind_its_own():
    model = undecided_model()
    language, hidden = model.model.language_model, model.autovla_config.language.hidden_size
    torch.manual_seed(0)
    prompts = [
        SharedPrompt(
            torch.randn(length, hidden),
            torch.stack([torch.arange(length), torch.arange(length) // 2, torch.arange(length) % 3]),
            [torch.randn(count, hidden) for count in counts],
        )
        for length, counts in ((7, (4, 1, 6)), (5, (3,)))
    ]
    packed = pack(prompts)
    together = language(**packed.inputs).last_hidden_state
    for row, prompt in enumerate(prompts):
        for number, answer in enumerate(prompt.answers):
            alone = language(
                inputs_embeds=torch.cat([prompt.embeddings, answer])[None],
                position_ids=following(prompt.positions, len(answer))[:, None],
                use_cache=False,
            ).last_hidden_state[0]
            for place in range(len(answer) + 1):
                found = together[packed.before(row, number, place)]
                torch.testing.assert_close(found, alone[len(prompt.embeddings) + place - 1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rank", [0, 2])
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path, rank: int):
    settings = replace(SMALL, rank=rank)
    straight = trained(tmp_path / "straight", settings=settings)
    cut = tmp_path / "cut"
    calls = count()

    def dies(sample: StoredSample, plan: Trajectory) -> float:
        if next(calls) >= 2.5 * 8:
            raise KeyboardInterrupt
        return shorter(sample, plan)

    with pytest.raises(KeyboardInterrupt):
        trained(cut, dies, settings)
    resumed = trained(cut, settings=settings)
    torch.testing.assert_close(resumed.state_dict(), straight.state_dict(), rtol=0, atol=0)
    assert (cut / "run/metrics.csv").read_bytes() == (tmp_path / "straight/run/metrics.csv").read_bytes()


def test_the_same_seed_gives_the_same_and_another_another():
    def told(seed: int) -> dict[str, torch.Tensor]:
        return learner(seed=seed)([examples()[0], examples()[6]])

    first, again, other = told(1), told(1), told(2)
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.equal(first["measured_reward"], other["measured_reward"])


def test_what_is_drawn_at_a_prompt_does_not_depend_on_what_shares_its_batch():
    seen: list[tuple[str, tuple[float, ...]]] = []

    def noted(sample: StoredSample, plan: Trajectory) -> float:
        seen.append((sample.sample.token, tuple(plan.xy[:, 0])))
        return shorter(sample, plan)

    made = learner(noted)
    made([examples()[0], examples()[6]])
    together = list(seen)
    seen.clear()
    made([examples()[6]])
    made([examples()[0]])
    assert sorted(seen) == sorted(together)


def test_the_first_answers_do_not_diverge_from_the_model_that_they_began_as():
    for rank in (0, 4):
        told = learner(settings=replace(SMALL, rank=rank))([examples()[0]])
        assert float(told["divergence"].detach()) == pytest.approx(0.0, abs=1e-9)
        assert float(told["policy"].detach()) == pytest.approx(0.0, abs=1e-5)


def test_divergence_holds_a_model_back(tmp_path: Path):
    moved = []
    for weight in (0.0, 10.0):
        settings = replace(SMALL, divergence=weight)
        made = trained(tmp_path / str(weight), settings=settings, loop=replace(LOOP, steps=8, learning_rate=3e-3))
        last = made([examples()[0], examples()[6]])
        moved.append(float(last["divergence"].detach()) / max(weight, 1e-9))
    free = column(tmp_path / "0.0", "divergence")
    assert free == [0.0] * 8
    assert moved[1] < 0.5


def test_advantages_are_relative_to_the_group():
    found = advantages([1.0, 3.0, math.nan, 2.0], 0.0)
    assert found == [-1.0, 1.0, None, 0.0]
    assert advantages([2.0, 2.0], 1e-4) == [0.0, 0.0]
    assert advantages([math.nan, 2.0], 1e-4) == [None, None]


def test_only_layers_of_the_language_model_learn():
    made = learner()
    names = {name for name, weight in made.named_parameters() if weight.requires_grad}
    assert names
    assert all(".language_model.layers." in name or name.endswith("language_model.norm.weight") for name in names)
    low = learner(settings=replace(SMALL, rank=2))
    assert {name.split(".")[0] for name, weight in low.named_parameters() if weight.requires_grad} == {"low_rank"}


@cache
def _layer() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.ModuleDict({"q_proj": torch.nn.Linear(6, 5), "other": torch.nn.Linear(5, 6)})


def test_low_rank_changes_have_the_gradients_of_the_changed_matrix():
    layers = _layer()
    low = LowRank(layers, 2, 4.0)
    with torch.no_grad():
        for up in low.up:
            up.normal_()
    start = layers["q_proj"].weight.detach().clone()
    low.write()
    inputs = torch.randn(3, 6, requires_grad=True)
    changed = start + 2.0 * low.up[0] @ low.down[0]
    expected = torch.nn.functional.linear(inputs, changed, layers["q_proj"].bias)
    found = layers["q_proj"](inputs)
    torch.testing.assert_close(found, expected)
    wanted = torch.autograd.grad(expected.square().sum(), [low.up[0], low.down[0], inputs])
    given = torch.autograd.grad(found.square().sum(), [low.up[0], low.down[0], inputs])
    torch.testing.assert_close(given, wanted)


def test_settings_in_which_nothing_can_be_learned_are_refused():
    with pytest.raises(TrainingError, match="a group of 1 answers compares nothing; draw 2 or more"):
        GrpoSettings(group=1)
    with pytest.raises(TrainingError, match="thought_price of reinforcement is -1; give 0 or more"):
        GrpoSettings(thought_price=-1)


@pytest.mark.parametrize("rank", [0, 2])
def test_computing_layers_again_in_place_of_keeping_them_gives_the_same_gradients(rank: int):
    def gradients(again: bool) -> list[torch.Tensor]:
        made = learner(settings=replace(SMALL, rank=rank)).train()
        if made.low_rank is not None:
            for number, up in enumerate(made.low_rank.up):
                torch.nn.init.normal_(up, std=0.1, generator=torch.Generator().manual_seed(number))
        if again:
            use_gradient_checkpointing(made)
        told = made([examples()[6]])
        (told["policy"] + told["divergence"]).backward()
        return [weight.grad for weight in made.parameters() if weight.requires_grad]

    torch.testing.assert_close(gradients(True), gradients(False))
