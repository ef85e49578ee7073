"""Reinforcement fine-tuning of AutoVLA by GRPO (arXiv 2402.03300, section 4.1; AutoVLA, 2506.13757, section 3.4).

For every prompt a group of answers is drawn and each rewarded; an answer's advantage is its reward against those of
its own group, so no value is learned. What was drawn is trained on once, with the weights that drew it: the ratio of
probabilities is 1 and nothing is to be clipped.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from opendrivevla_ros.core.trajectory import Trajectory
from opendrivevla_ros.datasets.drive_store import StoredSample
from opendrivevla_ros.language.action_prior import ActionPrior
from opendrivevla_ros.language.action_tokens import ActionTokens
from opendrivevla_ros.policies.autovla.model import AutoVlaModel, VisionIds
from opendrivevla_ros.policies.autovla.policy import TIMES
from opendrivevla_ros.training.autovla.examples import PlanExample
from opendrivevla_ros.training.autovla.low_rank import LowRank
from opendrivevla_ros.training.autovla.packed_answers import SharedPrompt, pack
from opendrivevla_ros.training.autovla.rollouts import Decision, Rollout, Rollouts
from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.training.loop import COUNTED, MEASURED

Reward = Callable[[StoredSample, Trajectory], float]  # of a plan at a moment, such as its driver score; NaN: unknown


@dataclass(frozen=True)
class GrpoSettings:
    """group: answers to a prompt. most_thought: tokens of one's thought. divergence: weight of the KL term.

    thought_price, thought_length, thought_slope: a thought costs price * sigmoid(slope * (characters of the whole
    answer - length)). rank, alpha: of the low-rank changes; rank 0 trains the layers of the language model whole.
    spread: what a group's deviation is raised by. The defaults are the published ones.
    Raises TrainingError for a group in which nothing can be compared, and for a negative weight, price or rank.
    """

    group: int = 8
    most_thought: int = 256
    divergence: float = 0.04
    thought_price: float = 0.3
    thought_length: float = 400.0
    thought_slope: float = 0.002
    rank: int = 8
    alpha: float = 8.0
    spread: float = 1e-4

    def __post_init__(self) -> None:
        if self.group < 2:
            raise TrainingError(f"a group of {self.group} answers compares nothing; draw 2 or more")
        for name in ("divergence", "thought_price", "rank"):
            if getattr(self, name) < 0:
                raise TrainingError(f"{name} of reinforcement is {getattr(self, name)}; give 0 or more")


class Reinforcement(nn.Module):
    """What the loop trains: a list of examples, answered anew, to the loss of the answers.

    A group belongs to one example and so to one process, whatever their number, and what is drawn depends on the
    weights, the seed and the example's own seed alone. The model is taken as it is for the reference of the KL term.
    Pictures and words are read as before: of the model only layers of the language model learn.
    """

    def __init__(
        self,
        model: AutoVlaModel,
        tokenizer: Any,
        actions: ActionTokens,
        reward: Reward,
        settings: GrpoSettings,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.model, self.settings = model, settings
        self._tokenizer, self._actions, self._reward, self._seed = tokenizer, actions, reward, seed
        self._vision_ids = VisionIds.of(tokenizer)
        self._rollouts: Rollouts | None = None  # made where the weights are by then
        language = model.model.language_model
        self.low_rank: LowRank | None = None
        model.requires_grad_(False)
        if settings.rank:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                self.low_rank = LowRank(language, settings.rank, settings.alpha)
            self._start = self.low_rank.start
        else:
            language.layers.requires_grad_(True)
            language.norm.requires_grad_(True)
            learned = {name: weight for name, weight in language.named_parameters() if weight.requires_grad}
            self._start = {name: weight.detach().clone() for name, weight in learned.items()}

    def forward(self, examples: Sequence[PlanExample]) -> dict[str, Tensor]:
        """{"policy", "divergence"}, measured the mean reward, the share of slow answers and the mean length in tokens,
        and counted how many answers were dropped because their reward was no number.
        """
        if self.low_rank is not None:
            self.low_rank.write()
        groups = [self._group(example) for example in examples]
        losses = self._losses(groups)
        rollouts = [rollout for group in groups for rollout in group.rollouts]
        rewards = [reward for group in groups for reward in group.rewards]
        known = [reward for reward in rewards if math.isfinite(reward)]
        measured = {
            MEASURED + "reward": sum(known) / max(len(known), 1),
            MEASURED + "slow": sum(rollout.slow for rollout in rollouts) / len(rollouts),
            MEASURED + "tokens": sum(len(rollout.ids) for rollout in rollouts) / len(rollouts),
            COUNTED + "dropped": float(len(rewards) - len(known)),
        }
        device = losses["policy"].device
        return {**losses, **{name: torch.tensor(value, device=device) for name, value in measured.items()}}

    def _group(self, example: PlanExample) -> "_Group":
        """The answers to an example's prompt and their rewards."""
        settings = self.settings
        if self._rollouts is None:
            self._rollouts = Rollouts(
                self.model, self._tokenizer, self._actions, rows=settings.group, most_thought=settings.most_thought
            )
        with torch.no_grad():
            seen = self.model.seen([example.videos])
            prompt, positions = self.model.embed_seen(list(example.ids), seen.tokens[0], self._vision_ids)
            priors = self.model.priors(self._actions.codebook, seen, [example.sample.sample.observation])
        prior = None if priors is None else priors[0]
        (state,) = np.random.SeedSequence([self._seed, example.seed]).generate_state(1)
        generator = torch.Generator().manual_seed(int(state))
        rollouts = self._rollouts.draw(prompt, positions, settings.group, generator, prior)
        return _Group(prompt, positions, rollouts, [self._rewarded(example, rollout) for rollout in rollouts], prior)

    def _rewarded(self, example: PlanExample, rollout: Rollout) -> float:
        """The plan's reward less the price of its thought."""
        sample, settings = example.sample, self.settings
        waypoints = self._actions.codebook.decode(rollout.actions)[:, :2]
        plan = Trajectory.from_waypoints(TIMES, waypoints, sample.sample.observation.ego.speed)
        longer = settings.thought_slope * (len(rollout.text) - settings.thought_length)
        price = settings.thought_price / (1 + math.exp(-longer)) if rollout.slow else 0.0
        return self._reward(sample, plan) - price

    def _losses(self, groups: Sequence["_Group"]) -> dict[str, Tensor]:
        """Means over all answers of the means over what was decided in each; one without an advantage adds nothing."""
        device = self.model.lm_head.weight.device
        compared = [(group, *_compared(group, self.settings.spread)) for group in groups]
        compared = [one for one in compared if one[1]]
        if not compared:
            nothing = torch.stack([weight.sum() for weight in self.parameters() if weight.requires_grad]).sum() * 0.0
            return {"policy": nothing, "divergence": nothing}
        embed = self.model.model.language_model.embed_tokens
        packed = pack(
            [
                SharedPrompt(
                    group.prompt,
                    group.positions,
                    [embed(torch.tensor(rollout.ids[:-1], device=device)) for rollout in rollouts],
                )
                for group, rollouts, _ in compared
            ]
        )
        answers = len(groups) * self.settings.group
        decided = [
            _Decided(packed.before(row, number, place), rollout, index, advantage, 1 / (len(rollout.places) * answers))
            for row, (_, rollouts, gains) in enumerate(compared)
            for number, (rollout, advantage) in enumerate(zip(rollouts, gains, strict=True))
            for index, place in enumerate(rollout.places)
        ]
        priors = [group.prior for group, rollouts, _ in compared for rollout in rollouts for _ in rollout.places]
        assert self._rollouts is not None  # they were drawn
        known = self._rollouts.known([one.kind for one in decided], [one.actions for one in decided], priors)
        row_of, asked = torch.tensor([one.at for one in decided], device=device).T
        drawn = torch.tensor([one.token for one in decided], device=device)
        gains = torch.tensor([one.advantage for one in decided], device=device)
        shares = torch.tensor([one.share for one in decided], device=device)

        def told(states: Tensor) -> Tensor:
            """Log probabilities of what was drawn, from a language model's states [G, L, hidden]."""
            logits = F.linear(states[row_of, asked], self.model.lm_head.weight).float() + known
            return logits.log_softmax(-1).gather(-1, drawn[:, None])[:, 0]

        language = self.model.model.language_model
        own = told(language(**packed.inputs).last_hidden_state)
        self._start = {name: weight.to(device) for name, weight in self._start.items()}
        with torch.no_grad():
            reference = told(functional_call(language, self._start, kwargs=packed.inputs).last_hidden_state)
        ratio = (own - own.detach()).exp()  # 1, and its gradient that of the logarithm
        further = reference - own
        divergence = further.exp() - further - 1  # of the Kullback-Leibler divergence (2402.03300, equation 4)
        return {
            "policy": -(shares * gains * ratio).sum(),
            "divergence": self.settings.divergence * (shares * divergence).sum(),
        }


@dataclass(frozen=True)
class _Group:
    """A prompt's embeddings [L, hidden] and rotary positions [3, L], the answers to it, and their rewards.

    prior: what was known of their actions.
    """

    prompt: Tensor
    positions: Tensor
    rollouts: Sequence[Rollout]
    rewards: Sequence[float]
    prior: ActionPrior | None


@dataclass(frozen=True)
class _Decided:
    """Number `index` of what was decided in an answer. at: sequence and position of the state that decided. share: of
    the loss.
    """

    at: tuple[int, int]
    rollout: Rollout
    index: int
    advantage: float
    share: float

    @property
    def kind(self) -> Decision:
        return self.rollout.kinds[self.index]

    @property
    def token(self) -> int:
        return self.rollout.ids[self.rollout.places[self.index]]

    @property
    def actions(self) -> list[int]:
        """The ids of the actions before it."""
        before = zip(self.rollout.places[: self.index], self.rollout.kinds, strict=False)
        return [self.rollout.ids[place] for place, kind in before if kind is Decision.ACTION]


def _compared(group: _Group, spread: float) -> tuple[list[Rollout], list[float]]:
    """The answers of a group that have an advantage, and that."""
    gains = advantages(group.rewards, spread)
    known = [(rollout, gain) for rollout, gain in zip(group.rollouts, gains, strict=True) if gain is not None]
    return [rollout for rollout, _ in known], [gain for _, gain in known]


def advantages(rewards: Sequence[float], spread: float) -> list[float | None]:
    """(reward - mean) / (deviation + spread) of a group; None for a reward that is no number, and for one alone."""
    known = np.array([reward for reward in rewards if math.isfinite(reward)])
    if len(known) < 2:
        return [None] * len(rewards)
    mean, deviation = float(known.mean()), float(known.std(ddof=1))
    return [(reward - mean) / (deviation + spread) if math.isfinite(reward) else None for reward in rewards]
