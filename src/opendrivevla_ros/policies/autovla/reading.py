"""From observations to what the model reads: the text of a prompt, its tokens, and the videos of the last seconds.

Driving and training read by this code alone, so that a model is trained on the very prompts that it will be given.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from opendrivevla_ros.core.observation import Observation
from opendrivevla_ros.policies.autovla import prompt as prompts
from opendrivevla_ros.policies.autovla.config import AutoVlaConfig
from opendrivevla_ros.policies.autovla.images import CameraHistory, patches, resized
from opendrivevla_ros.policies.autovla.prompt import PromptFields
from opendrivevla_ros.policies.continuity import follows


@dataclass(frozen=True)
class Memory:
    """pictures: of the last seconds, by camera, as the cameras took them. last: the observation they go up to."""

    pictures: Mapping[str, CameraHistory] = field(default_factory=dict)
    last: Observation | None = None


class PromptReader:
    """Reads observations as the model of a configuration sees them."""

    def __init__(self, config: AutoVlaConfig, tokenizer: Any) -> None:
        self.config, self._tokenizer = config, tokenizer

    def plan_prompt(self, observation: Observation) -> str:
        """The whole prompt that asks for a plan. Raises InstructionError for a driver's words that it cannot carry."""
        message = prompts.plan_message(self._fields(observation), self.config.cameras, observation.command.text)
        return prompts.chat_prompt(self.config.system_text, message)

    def question_prompt(self, observation: Observation, question: str) -> str:
        """The whole prompt that asks a question. Raises InstructionError."""
        message = prompts.question_message(self._fields(observation), self.config.cameras, question)
        return prompts.chat_prompt(self.config.system_text, message)

    def tokens(self, prompt: str) -> list[int]:
        """The ids of a prompt, with those that the videos stand in place of."""
        return prompts.tokenize(prompt, self._tokenizer, self.config.video_tokens)

    def followed(self, memory: Memory, observation: Observation) -> Memory:
        """The pictures up to this observation; those before it only where it goes on from the last one."""
        goes_on = memory.last is not None and follows(memory.last, observation)
        pictures = {}
        for frame in observation.frames:
            if frame.camera in self.config.cameras:
                seen = memory.pictures.get(frame.camera, CameraHistory()) if goes_on else CameraHistory()
                if not frame.blank:
                    picture = resized(frame.image, self.config.image_size)
                    seen = seen.with_picture(frame.stamp_ns, picture, self.config.frames)
                pictures[frame.camera] = seen
        return Memory(pictures, observation)

    def videos(self, memory: Memory, device: torch.device | str = "cpu") -> Tensor:
        """Patches of all videos up to the last observation of a memory, one video after the other (`images.patches`).

        A camera that is blank now ends in a black frame, whatever it saw before. Raises ValueError for an empty
        memory.
        """
        if memory.last is None:
            raise ValueError("a memory without an observation has no videos; let it follow one first")
        observation, vision, found = memory.last, self.config.vision, []
        blank = {frame.camera: frame.blank for frame in observation.frames}
        for camera in self.config.cameras:
            seen = memory.pictures[camera]
            if blank[camera]:
                width, height = self.config.image_size
                black = torch.zeros((3, height, width), dtype=torch.uint8)
                stamp_ns = max([observation.stamp_ns, *(stamp + 1 for stamp in seen.stamps[-1:])])
                seen = seen.with_picture(stamp_ns, black, self.config.frames)
            video = seen.video(observation.stamp_ns, self.config.frames).to(device)
            found.append(patches(video, patch=vision.patch, temporal_patch=vision.temporal_patch, merge=vision.merge))
        return torch.cat(found)

    def _fields(self, observation: Observation) -> PromptFields:
        return PromptFields.from_ego(
            observation.ego,
            observation.command.command,
            signed_acceleration=self.config.signed_acceleration,
            tells_history=self.config.tells_history,
        )
