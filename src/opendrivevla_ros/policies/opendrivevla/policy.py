"""OpenDriveVLA as a driving policy: an observation in, a plan with everything seen on the way out."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from opendrivevla_ros.core.geometry import Array
from opendrivevla_ros.core.observation import Observation
from opendrivevla_ros.core.plan import Agent, Plan, PlanError, PlanFailure, Reasoning, ThinkingMode
from opendrivevla_ros.core.policy import PolicyInfo, ThinkingLimits
from opendrivevla_ros.core.rig import CameraRig
from opendrivevla_ros.core.trajectory import FUTURE_TIMES_S, Trajectory
from opendrivevla_ros.language.deadline import Deadline
from opendrivevla_ros.language.decoder import Decoder
from opendrivevla_ros.language.generation import TrajectoryGeneration, TrajectoryGenerator, generate_text
from opendrivevla_ros.language.grammar import trajectory_grammar
from opendrivevla_ros.language.model import DrivingLanguageModel, Features
from opendrivevla_ros.language.number_prior import NumberPrior
from opendrivevla_ros.language.prompt import (
    PromptFields,
    chat_prompt,
    question_message,
    text_prefix,
    tokenize_prompt,
    user_message,
    with_proposal,
)
from opendrivevla_ros.language.quantisation import quantise, weight_bytes
from opendrivevla_ros.language.thinking import Thinker, Thought
from opendrivevla_ros.language.trajectory_text import TRAJECTORY_START
from opendrivevla_ros.perception.config import PerceptionConfig
from opendrivevla_ros.perception.ego_query import Proposal
from opendrivevla_ros.perception.map_head import MapResult
from opendrivevla_ros.perception.network import PerceptionOutput
from opendrivevla_ros.policies import loading
from opendrivevla_ros.policies.checks import check_observation, check_rig
from opendrivevla_ros.policies.errors import CheckpointError
from opendrivevla_ros.policies.failures import as_plan_errors
from opendrivevla_ros.policies.opendrivevla import frames
from opendrivevla_ros.policies.opendrivevla.findings import agents_of, map_elements_of
from opendrivevla_ros.policies.opendrivevla.model import OpenDriveVlaModel
from opendrivevla_ros.policies.opendrivevla.streaming import StreamingPerception
from opendrivevla_ros.policies.opendrivevla.thinking import TEMPLATE
from opendrivevla_ros.policies.uncertainty import doubt, token_probability, waypoint_covariance
from opendrivevla_ros.safety.uncertainty import Calibration
from opendrivevla_ros.safety.uncertainty import score as score_of

POSITIONS = 2048  # of prompt and answer, where the model has as many


@dataclass(frozen=True)
class PlanningOptions(loading.PlanningOptions):
    """blind: the language model gets no scene, track or map tokens; what is left when words alone must do."""

    blind: bool = False


class OpenDriveVlaPolicy:
    """Goes on from call to call as its perception does, see `StreamingPerception`."""

    def __init__(
        self,
        model: OpenDriveVlaModel,
        tokenizer: Any,
        *,
        weights_hash: str = "",
        device: str = "cpu",
        precision: str = "float32",
        seed: int = 0,
        options: PlanningOptions | None = None,
        calibration: Calibration | None = None,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """calibration: of the plans' confidence; without one it is `safety.uncertainty.score`.

        clock: nanoseconds, of the thinking budget. precision: of the language model; but for "float32", perception
        runs under autocast to bfloat16.
        """
        config = model.config
        if model.language is None:
            raise CheckpointError(f"{config.model_id} holds perception alone, which cannot plan")
        self.config = config
        self.tokenizer = tokenizer
        self._options = options or PlanningOptions()
        self._calibration = calibration
        self._device = torch.device(device)
        self._dtype = torch.float32 if precision == "float32" else torch.bfloat16
        if precision == "int8":
            quantise(model.language)
        self.perception = StreamingPerception(model.perception, self._device, bfloat16=self._dtype is torch.bfloat16)
        self._language: DrivingLanguageModel = model.language.to(self._device, self._dtype).eval()
        self._positions = min(POSITIONS, self._language.language_config.max_positions)
        self._decoder = Decoder(self._language, max_length=self._positions, rows=1 + self._options.samples)
        grammar = trajectory_grammar(tokenizer, decimals=config.decimals)
        self._writer = TrajectoryGenerator(self._decoder, grammar, median_digits=config.median_digits)
        self._limits = ThinkingLimits()
        self._thinker: Thinker | None = None
        self._answer_positions = config.max_new_tokens  # that a prompt must leave
        if config.thinks:
            start = tokenizer.get_vocab().get(TRAJECTORY_START)  # who begins a plan has ended the thought
            stops = frozenset([*config.eos_ids, *([] if start is None else [start])])
            self._thinker = Thinker(self._decoder, tokenizer, TEMPLATE, stop_ids=stops, clock=clock)
            self._answer_positions = max(
                config.max_new_tokens, self._thinker.least_positions + self._writer.grammar.longest
            )
        self._answerer: Decoder | None = None
        self._random = torch.Generator(self._device)
        self._seed = seed
        self._random.manual_seed(seed)
        self._trained_mount: Array = np.array(config.lidar_to_base)
        self._fit_rig: CameraRig | None = None
        self._requested_mode = ThinkingMode.FAST
        self._saves = False
        self._info = PolicyInfo(
            model_id=config.model_id,
            weights_hash=weights_hash,
            trained=config.trained,
            image_size=config.perception.image_size,
            device=device,
            thinks=config.thinks,
        )

    @property
    def info(self) -> PolicyInfo:
        return self._info

    @property
    def weight_bytes(self) -> loading.WeightBytes:
        """What the weights take in memory."""
        return loading.WeightBytes(weight_bytes(self._language), weight_bytes(self._language, self.perception.network))

    @property
    def map_grid(self) -> PerceptionConfig:
        """Range and size of the BEV grid."""
        return self.config.perception

    @property
    def map_result(self) -> MapResult | None:
        """The map of the last plan on the BEV grid; None before the first."""
        last = self.perception.last
        return None if last is None else last.output.map

    @property
    def detections(self) -> tuple[Agent, ...]:
        """What the last plan's look detected (see `tracker.detections`), in base_link; () before the first."""
        last = self.perception.last
        return () if last is None else agents_of(last.output.detections, last.observation.rig.lidar_to_base)

    def reset(self) -> None:
        """Forgets all temporal state, and what was drawn: the same pictures then give the same plans again."""
        self.perception.reset()
        self._random.manual_seed(self._seed)

    def set_thinking_mode(self, mode: ThinkingMode) -> None:
        """From the next plan on; one that does not think plans FAST whatever is asked for (`PolicyInfo.objection`)."""
        self._requested_mode = mode

    def set_thinking_limits(self, limits: ThinkingLimits) -> None:
        """The threshold of AUTO and the budget of a thought, from the next plan on."""
        self._limits = limits

    def set_economy(self, saves: bool) -> None:
        """While it saves, nothing is thought and no samples are drawn.

        The covariance is then of the plan's own probabilities alone.
        """
        self._saves = saves

    def plan(
        self,
        observation: Observation,
        deadline_ns: int | None = None,
        on_thought: Callable[[Reasoning], None] | None = None,
    ) -> Plan:
        """The plan from one observation, or PlanError; see `DrivingPolicy`."""
        with as_plan_errors(), torch.inference_mode():
            deadline = Deadline(deadline_ns)
            deadline.check()
            self._check(observation)
            started = time.perf_counter()
            prompt = chat_prompt(
                self.config.system_text, user_message(self._fields(observation), observation.command.text)
            )
            seen = self.perception.follow(observation, deadline)
            proposal = None if self._options.blind else seen.output.proposal
            prompt = with_proposal(prompt, None if proposal is None else proposal.path.cpu())
            ids, agents = self._read(prompt, seen.output)
            features = self._features(seen.output, agents)
            embeddings = self._language.embed_prompt(ids, features)
            expected = self._expected_errors(proposal)
            prior = None
            if proposal is not None and expected is not None:
                prior = NumberPrior(proposal.path.cpu(), expected, decimals=self.config.decimals)
            written, thought = self._write(embeddings, text_prefix(ids), prior, deadline, on_thought)
            log_probabilities = written.log_probabilities[0]
            covariance = waypoint_covariance(
                written.waypoints, FUTURE_TIMES_S, token_probability(log_probabilities), expected
            )
            mount = observation.rig.lidar_to_base
            trajectory = Trajectory.from_waypoints(
                FUTURE_TIMES_S,
                frames.lidar_path_to_base(written.waypoints[0], mount),
                observation.ego.speed,
                frames.covariance_to_base(covariance, mount),
            )
            stage_times = {
                **seen.stage_times,
                "language_prefill": written.prefill_s,
                **({} if thought is None else {"thinking": thought.seconds}),
                "language_decode": written.decode_s,
            }
            doubted = doubt(written.waypoints, log_probabilities, expected)
            deadline.check()
            stage_times["rest"] = max(0.0, time.perf_counter() - started - sum(stage_times.values()))
            return Plan(
                stamp_ns=observation.stamp_ns,
                trajectory=trajectory,
                confidence=score_of(doubted) if self._calibration is None else self._calibration.confidence(doubted),
                doubt=doubted,
                reasoning=self._reasoning(written, thought),
                agents=agents_of(seen.output.tracks, mount),
                map_elements=map_elements_of(seen.output, self.config.perception, mount),
                stage_times=stage_times,
                token_counts={
                    **written.token_counts,
                    "scene": _count(features.scene),
                    "agents": 0 if features.agents is None else agents,
                    "map": _count(features.map_elements),
                },
                prompt=prompt,
                raw_text=written.text if thought is None else thought.written + written.text,
            )

    def answer(self, observation: Observation, question: str) -> Iterator[str]:
        """The answer in pieces; PlanError for a question or observation that cannot be taken, or an empty answer."""
        with as_plan_errors():
            with torch.inference_mode():
                self._check(observation)
                message = question_message(self._fields(observation), question)
                prompt = chat_prompt(self.config.system_text, message)
                output = self.perception.glance(observation)
                ids, agents = self._read(prompt, output)
                embeddings = self._language.embed_prompt(ids, self._features(output, agents))
            if self._answerer is None:  # of its own, so that a plan between two pieces does no harm
                self._answerer = Decoder(self._language, max_length=self._positions)
            empty = True
            for piece in generate_text(
                self._answerer,
                self.tokenizer,
                embeddings,
                prefix=text_prefix(ids),
                stop_tokens=frozenset(self.config.eos_ids),
                max_tokens=self.config.max_new_tokens,
                repetition_penalty=self.config.repetition_penalty,
            ):
                empty = False
                yield piece
            if empty:
                raise PlanError(PlanFailure.BAD_TEXT, "the model ended its answer without a word of text")

    def _check(self, observation: Observation) -> None:
        if observation.rig is not self._fit_rig:
            check_rig(observation.rig, self._trained_mount)
            self._fit_rig = observation.rig
        check_observation(observation, self.config.perception.image_size)

    def _fields(self, observation: Observation) -> PromptFields:
        return PromptFields.from_ego(
            observation.ego,
            observation.command.command,
            lidar_to_base=observation.rig.lidar_to_base,
            heading_as_trained=self.config.heading_as_trained,
            tells_past=self.config.tells_past,
            tells_proposal=bool(self.config.proposal_scales),
        )

    def _write(
        self,
        embeddings: torch.Tensor,
        prefix: list[int],
        prior: NumberPrior | None,
        deadline: Deadline,
        on_thought: Callable[[Reasoning], None] | None,
    ) -> tuple[TrajectoryGeneration, Thought | None]:
        """The plan for a prompt [L, hidden], and what a model that thinks said before it."""
        how: dict[str, Any] = {
            "prior": prior,
            "samples": 0 if self._saves else self._options.samples,
            "temperature": self._options.temperature,
            "generator": self._random,
            "repetition_penalty": self.config.repetition_penalty,
            "deadline": deadline,
        }
        if self._thinker is None:
            return self._writer.generate(embeddings, prefix=prefix, **how), None
        started = time.perf_counter()
        opening = self._decoder.embed(self._thinker.opening)
        hidden = self._decoder.prefill(torch.cat([embeddings, opening]), prefix=prefix, check=deadline.check)
        prefill_s = time.perf_counter() - started
        hidden, thought = self._thinker.think(
            hidden,
            ThinkingMode.FAST if self._saves else self._requested_mode,
            self._limits,
            room=self._writer.grammar.longest,
            deadline=deadline,
            on_thought=on_thought,
        )
        written = self._writer.go_on(hidden, **how)
        counts = {
            **written.token_counts,
            "prompt": len(embeddings),
            "thought": thought.generated,
            "forced": thought.forced + written.token_counts["forced"],
        }
        return replace(written, prefill_s=prefill_s, token_counts=counts), thought

    def _expected_errors(self, proposal: Proposal | None) -> Array | None:
        """How far off [6, 2] a proposal is on average, metres; None where there is none, or none is weighed."""
        if proposal is None or not self.config.proposal_scales:
            return None
        return np.array(self.config.proposal_scales) * proposal.errors.cpu().double().numpy()

    def _reasoning(self, written: TrajectoryGeneration, thought: Thought | None) -> Reasoning:
        """The thought, or the plan where there is none."""
        if thought is None:
            return Reasoning(written.text, self._requested_mode, ThinkingMode.FAST)
        text = thought.text if thought.mode is ThinkingMode.SLOW else written.text
        return Reasoning(text, self._requested_mode, thought.mode, thought.slow_probability)

    def _read(self, prompt: str, output: PerceptionOutput) -> tuple[list[int], int]:
        """The prompt's ids, and how many agents fit beside them: where not all do, the lowest-scoring are left out."""
        ids = tokenize_prompt(prompt, self.tokenizer)
        room = self._positions - self._answer_positions
        blocks = (output.scene_tokens, output.map_tokens, output.ego_tokens)
        others = sum(token >= 0 for token in ids) + sum(len(block) for block in blocks)
        if others > room:
            raise PlanError(
                PlanFailure.BAD_INSTRUCTION, f"the prompt has {others} positions, the model takes {room}: shorten it"
            )
        return ids, min(len(output.agent_tokens), room - others)

    def _features(self, output: PerceptionOutput, agents: int) -> Features:
        if self._options.blind:
            return Features(None, None, None)
        seen = Features(output.scene_tokens, output.agent_tokens[:agents], output.map_tokens)
        return seen.led_by(output.ego_tokens, output.path)


def _count(block: torch.Tensor | None) -> int:
    return 0 if block is None else len(block)
