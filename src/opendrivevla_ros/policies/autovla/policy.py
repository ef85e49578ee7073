"""AutoVLA as a driving policy: an observation in, a plan of five seconds with what was thought on the way out."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from opendrivevla_ros.core.observation import Observation
from opendrivevla_ros.core.plan import Plan, PlanError, PlanFailure, Reasoning, ThinkingMode
from opendrivevla_ros.core.policy import PolicyInfo, ThinkingLimits
from opendrivevla_ros.core.rig import CameraRig
from opendrivevla_ros.core.trajectory import Trajectory
from opendrivevla_ros.language.action_codebook import ActionCodebook
from opendrivevla_ros.language.action_generation import ActionWriter
from opendrivevla_ros.language.deadline import Deadline
from opendrivevla_ros.language.decoder import Decoder
from opendrivevla_ros.language.generation import generate_text
from opendrivevla_ros.language.quantisation import quantise, weight_bytes
from opendrivevla_ros.language.thinking import Thinker, Thought
from opendrivevla_ros.policies.autovla.config import ACTIONS_PER_PLAN
from opendrivevla_ros.policies.autovla.model import AutoVlaModel, Seen, VisionIds, action_tokens
from opendrivevla_ros.policies.autovla.prompt import ANSWER_END, FAST_WORDS, TEMPLATE
from opendrivevla_ros.policies.autovla.reading import Memory, PromptReader
from opendrivevla_ros.policies.checks import check_observation
from opendrivevla_ros.policies.failures import as_plan_errors
from opendrivevla_ros.policies.loading import PlanningOptions, WeightBytes
from opendrivevla_ros.policies.uncertainty import doubt, token_probability, waypoint_covariance
from opendrivevla_ros.safety.uncertainty import Calibration
from opendrivevla_ros.safety.uncertainty import score as score_of

TIMES = np.arange(1, ACTIONS_PER_PLAN + 1) * 0.5  # seconds after t0


class AutoVlaPolicy:
    """Keeps the pictures of the last seconds from call to call, as its cameras took them.

    They are dropped on `reset` and where an observation does not follow the last one (see `continuity.follows`). A
    call whose observation is refused leaves them as they were.
    """

    def __init__(
        self,
        model: AutoVlaModel,
        tokenizer: Any,
        codebook: ActionCodebook,
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

        clock: nanoseconds, of the thinking budget. Raises CheckpointError for a tokenizer or codebook that does not
        belong to the model.
        """
        config = model.autovla_config
        self.config, self.tokenizer = config, tokenizer
        self._limits = ThinkingLimits()
        self._actions = action_tokens(config, tokenizer, codebook)
        self._vision_ids = VisionIds.of(tokenizer)
        self._options = options or PlanningOptions()
        self._calibration = calibration
        self._device = torch.device(device)
        dtype = torch.float32 if precision == "float32" else torch.bfloat16
        if precision == "int8":
            quantise(model.model.language_model, model.lm_head)
        self._model = model.to(self._device, dtype).eval()
        if self._model.sight is not None:
            self._model.sight.float()  # a bfloat16 of 40 m is off by 0.2 m
        self._positions = config.positions
        self._decoder = Decoder(self._model, max_length=self._positions, rows=1 + self._options.samples)
        self._thinker = Thinker(
            self._decoder,
            tokenizer,
            TEMPLATE,
            stop_ids=frozenset(config.eos_ids),
            barred=(self._actions.first_id, self._actions.stop_id),
            clock=clock,
        )
        self._writer = ActionWriter(self._decoder, self._actions, ACTIONS_PER_PLAN)
        self._answerer: Decoder | None = None
        self._random = torch.Generator(self._device)
        self._seed = seed
        self._random.manual_seed(seed)
        self._fit_rig: CameraRig | None = None
        self._requested_mode = ThinkingMode.FAST
        self._saves = False
        self._deadline = Deadline()
        self._reader = PromptReader(config, tokenizer)
        self._memory = Memory()
        for block in self._model.model.visual.blocks:
            block.register_forward_pre_hook(lambda *_: self._deadline.check())
        self._info = PolicyInfo(
            model_id=config.model_id,
            weights_hash=weights_hash,
            trained=config.trained,
            image_size=config.image_size,
            device=device,
            thinks=True,
        )

    @property
    def info(self) -> PolicyInfo:
        return self._info

    @property
    def weight_bytes(self) -> WeightBytes:
        """What the weights take in memory."""
        language = weight_bytes(self._model.model.language_model, self._model.lm_head)
        return WeightBytes(language, weight_bytes(self._model))

    def reset(self) -> None:
        """Forgets all temporal state, and what was drawn: the same pictures then give the same plans again."""
        self._memory = Memory()
        self._random.manual_seed(self._seed)

    def set_thinking_mode(self, mode: ThinkingMode) -> None:
        """From the next plan on: FAST and SLOW are forced, AUTO leaves it to the model and the threshold."""
        self._requested_mode = mode

    def set_thinking_limits(self, limits: ThinkingLimits) -> None:
        """The threshold of AUTO and the budget of a thought, from the next plan on."""
        self._limits = limits

    def set_economy(self, saves: bool) -> None:
        """While it saves, nothing is thought and no samples are drawn; see `OpenDriveVlaPolicy.set_economy`."""
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
            prompt = self._reader.plan_prompt(observation)
            room = self._positions - len(TEMPLATE.slow) - len(TEMPLATE.answer) - ACTIONS_PER_PLAN
            ids = self._tokenize(prompt, room)
            self._memory = self._reader.followed(self._memory, observation)
            videos = self._reader.videos(self._memory, self._device)
            preprocessed = time.perf_counter()
            found = self._see(videos, deadline)
            embeddings, positions = self._model.embed_seen(ids, found.tokens[0], self._vision_ids)
            priors = self._model.priors(self._actions.codebook, found, [observation])
            seen = time.perf_counter()
            hidden = self._prefill(ids, embeddings, positions, deadline)
            prefilled = time.perf_counter()
            hidden, thought = self._thinker.think(
                hidden,
                ThinkingMode.FAST if self._saves else self._requested_mode,
                self._limits,
                room=ACTIONS_PER_PLAN,
                deadline=deadline,
                on_thought=on_thought,
            )
            written = self._writer.write(
                hidden,
                samples=0 if self._saves else self._options.samples,
                temperature=self._options.temperature,
                generator=self._random,
                deadline=deadline,
                prior=None if priors is None else priors[0],
            )
            waypoints = self._actions.codebook.decode(written.actions)[..., :2]  # of base_link, as the tokens are
            errors = None if priors is None else priors[0].errors
            covariance = waypoint_covariance(waypoints, TIMES, token_probability(written.log_probabilities), errors)
            trajectory = Trajectory.from_waypoints(TIMES, waypoints[0], observation.ego.speed, covariance)
            doubted = doubt(waypoints, written.log_probabilities, errors)
            deadline.check()
            stage_times = {
                "preprocess": preprocessed - started,
                "vision": seen - preprocessed,
                "language_prefill": prefilled - seen,
                "thinking": thought.seconds,
                "language_decode": written.seconds,
            }
            stage_times["rest"] = max(0.0, time.perf_counter() - started - sum(stage_times.values()))
            return Plan(
                stamp_ns=observation.stamp_ns,
                trajectory=trajectory,
                confidence=score_of(doubted) if self._calibration is None else self._calibration.confidence(doubted),
                doubt=doubted,
                reasoning=self._reasoning(thought),
                stage_times=stage_times,
                token_counts={
                    "prompt": len(ids),
                    "video": len(self.config.cameras) * self.config.video_tokens,
                    "thought": thought.generated,
                    "forced": thought.forced,
                    "generated": ACTIONS_PER_PLAN,
                },
                prompt=prompt,
                raw_text=thought.written + self._actions.text(written.actions[0].tolist()) + ANSWER_END,
            )

    def answer(self, observation: Observation, question: str) -> Iterator[str]:
        """The answer in pieces; PlanError for a question or observation that cannot be taken, or an empty answer."""
        with as_plan_errors():
            with torch.inference_mode():
                self._check(observation)
                prompt = self._reader.question_prompt(observation, question)
                ids = self._tokenize(prompt, self._positions - self.config.max_new_tokens)
                videos = self._reader.videos(self._reader.followed(self._memory, observation), self._device)
                found = self._see(videos, Deadline())
                embeddings, positions = self._model.embed_seen(ids, found.tokens[0], self._vision_ids)
            if self._answerer is None:  # of its own, so that a plan between two pieces does no harm
                self._answerer = Decoder(self._model, max_length=self._positions)
            empty = True
            for piece in generate_text(
                self._answerer,
                self.tokenizer,
                embeddings,
                prefix=self._text_prefix(ids),
                positions=positions,
                stop_tokens=frozenset(self.config.eos_ids),
                max_tokens=self.config.max_new_tokens,
            ):
                empty = False
                yield piece
            if empty:
                raise PlanError(PlanFailure.BAD_TEXT, "the model ended its answer without a word of text")

    def _check(self, observation: Observation) -> None:
        rig = observation.rig
        if rig is not self._fit_rig:
            if problems := rig.problems():
                raise PlanError(PlanFailure.BAD_OBSERVATION, f"the calibration does not fit: {problems[0]}")
            self._fit_rig = rig
        named = {camera.name: camera for camera in rig.cameras}
        pictures = {frame.camera: frame for frame in observation.frames}
        if missing := [name for name in self.config.cameras if name not in pictures]:
            needed = ", ".join(self.config.cameras)
            raise PlanError(
                PlanFailure.BAD_OBSERVATION,
                f"there is no picture of {missing[0]}; the model needs one of each of {needed}",
            )
        # what it does not look at need not be fit to look at
        watched = replace(
            observation,
            frames=tuple(pictures[name] for name in self.config.cameras),
            rig=replace(rig, cameras=tuple(named[name] for name in self.config.cameras)),
        )
        check_observation(watched, self.config.image_size)

    def _tokenize(self, prompt: str, room: int) -> list[int]:
        ids = self._reader.tokens(prompt)
        if len(ids) > room:
            raise PlanError(
                PlanFailure.BAD_INSTRUCTION, f"the prompt has {len(ids)} positions, the model takes {room}: shorten it"
            )
        return ids

    def _see(self, videos: Tensor, deadline: Deadline) -> Seen:
        self._deadline = deadline
        try:
            return self._model.seen([videos])
        finally:
            self._deadline = Deadline()

    def _prefill(self, ids: list[int], embeddings: Tensor, positions: Tensor, deadline: Deadline) -> Tensor:
        """The hidden state [1, hidden] after the prompt and the words that every answer begins with."""
        opening = self._thinker.opening
        following = positions.max() + 1 + torch.arange(len(opening), device=positions.device)
        return self._decoder.prefill(
            torch.cat([embeddings, self._decoder.embed(opening)]),
            prefix=self._text_prefix(ids),
            positions=torch.cat([positions, following.expand(3, -1)], dim=1),
            check=deadline.check,
        )

    def _text_prefix(self, ids: list[int]) -> list[int]:
        """The ids before the first video's pixels: what stays the same from plan to plan."""
        return ids[: ids.index(self._vision_ids.video)]

    def _reasoning(self, thought: Thought) -> Reasoning:
        return Reasoning(
            text=thought.text if thought.mode is ThinkingMode.SLOW else FAST_WORDS,
            requested_mode=self._requested_mode,
            actual_mode=thought.mode,
            slow_probability=thought.slow_probability,
        )
