"""Perception from call to call: it goes on from the last observation, or begins anew where that cannot be."""

import copy
import time
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch

from opendrivevla_ros.core.geometry import Array
from opendrivevla_ros.core.observation import Observation
from opendrivevla_ros.core.plan import PlanError, PlanFailure
from opendrivevla_ros.language.deadline import Deadline
from opendrivevla_ros.perception.network import PerceptionNetwork, PerceptionOutput
from opendrivevla_ros.policies.continuity import follows
from opendrivevla_ros.policies.opendrivevla.perception_input import perception_frame, scene_origin


@dataclass(frozen=True)
class Seen:
    """One observation and what the network made of it."""

    observation: Observation
    output: PerceptionOutput
    stage_times: dict[str, float]


class StreamingPerception:
    """Keeps tracks and the previous bird's-eye view from call to call.

    They are dropped on `reset` and where an observation does not follow the last one (see `continuity.follows`). A
    call that fails leaves them as they were before it.
    """

    def __init__(self, network: PerceptionNetwork, device: torch.device, *, bfloat16: bool) -> None:
        """bfloat16: the network runs under autocast to it."""
        self.network: PerceptionNetwork = network.to(device, torch.float32).eval()
        self.last: Seen | None = None
        self._device = device
        self._bfloat16 = bfloat16
        self._origin: Array = np.zeros(3)
        self._deadline = Deadline()
        for module in _stages(self.network):
            module.register_forward_pre_hook(lambda *_: self._deadline.check())

    def reset(self) -> None:
        """Forgets all temporal state."""
        self.network.reset()
        self.last = None

    def follow(self, observation: Observation, deadline: Deadline) -> Seen:
        """What is seen with all that was seen before, and kept for the next. Raises PlanError."""
        if self.last is not None and self.last.observation is observation:
            return self.last
        if self.last is None or not follows(self.last.observation, observation):
            self.reset()
            self._origin = scene_origin(observation)
        self.network, self.last = self._see(observation, self.network, deadline)
        return self.last

    def glance(self, observation: Observation) -> PerceptionOutput:
        """What is seen, of which nothing is kept. Raises PlanError."""
        if self.last is not None and self.last.observation is observation:
            return self.last.output
        network = _copy_of_state(self.network)
        if self.last is None or not follows(self.last.observation, observation):
            network.reset()
        return self._see(observation, network, Deadline())[1].output

    def _see(
        self, observation: Observation, network: PerceptionNetwork, deadline: Deadline
    ) -> tuple[PerceptionNetwork, Seen]:
        """Runs perception on a copy of the network's temporal state, and returns the copy with what it saw."""
        started = time.perf_counter()
        frame = perception_frame(observation, network.config, self._origin, self._device)
        preprocessed = time.perf_counter() - started
        network = _copy_of_state(network)
        self._deadline = deadline
        try:
            with torch.autocast(self._device.type, torch.bfloat16) if self._bfloat16 else nullcontext():
                output = network(frame)
        finally:
            self._deadline = Deadline()
        tokens = (
            output.scene_tokens,
            output.agent_tokens,
            output.map_tokens,
            output.ego_tokens,
            output.tracks.boxes,
            *(output.proposal or ()),
        )
        if not all(bool(torch.isfinite(block).all()) for block in tokens):
            raise PlanError(PlanFailure.INTERNAL, "perception gave values that are not finite; check the weights")
        return network, Seen(observation, output, {"preprocess": preprocessed, **output.stage_times})


def _copy_of_state(network: PerceptionNetwork) -> PerceptionNetwork:
    """The same network with a temporal state of its own, so that a frame can be tried without being kept."""
    other = copy.copy(network)
    other.tracker, other.ego_motion = copy.copy(network.tracker), copy.copy(network.ego_motion)
    return other


def _stages(network: PerceptionNetwork) -> list[torch.nn.Module]:
    """Modules that run one after the other, between which the deadline is looked at."""
    head = network.pts_bbox_head.transformer
    blocks = [block for stage in range(1, 5) for block in getattr(network.img_backbone, f"layer{stage}")]
    return [*blocks, network.img_neck, *head.encoder.layers, head.decoder, network.seg_head]
