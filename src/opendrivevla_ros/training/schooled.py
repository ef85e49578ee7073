"""A language model that was schooled on the truth, at the wheel: what it meets and gets wrong is what it learns next.

It reads the truth of a world that is recorded as it drives, and writes its plans as the trained model will.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from opendrivevla_ros.core.geometry import Array
from opendrivevla_ros.core.observation import Observation
from opendrivevla_ros.core.policy import PolicyInfo
from opendrivevla_ros.datasets.drive_store import StoredSample
from opendrivevla_ros.language.decoder import Decoder
from opendrivevla_ros.language.generation import TrajectoryGenerator
from opendrivevla_ros.language.grammar import trajectory_grammar
from opendrivevla_ros.language.model import DrivingLanguageModel
from opendrivevla_ros.language.prompt import chat_prompt, text_prefix, tokenize_prompt, user_message
from opendrivevla_ros.language.small_tokenizer import load_tokenizer
from opendrivevla_ros.policies.baselines import BlindPolicy
from opendrivevla_ros.policies.opendrivevla.config import OpenDriveVlaConfig, small
from opendrivevla_ros.policies.opendrivevla.frames import lidar_path_to_base
from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.training.language_samples import true_features
from opendrivevla_ros.training.text_tasks import prompt_fields
from opendrivevla_ros.training.truth_encoder import TruthEncoder


@dataclass(frozen=True)
class Schooled:
    """What schooling leaves: the language model, the encoder of the truth, and how prompts are written."""

    config: OpenDriveVlaConfig
    tokenizer: Any
    model: DrivingLanguageModel
    encoder: TruthEncoder
    writer: TrajectoryGenerator

    @classmethod
    def load(cls, weights: Path, tokenizer_folder: Path) -> "Schooled":
        """Of a step's weights file and the run's tokenizer. Raises TrainingError for another kind of step."""
        tokenizer = load_tokenizer(tokenizer_folder)
        config = small(len(tokenizer), int(tokenizer.eos_token_id))
        assert config.language is not None
        parts: dict[str, Tensor] = torch.load(weights, weights_only=True)
        model = DrivingLanguageModel(config.language)
        encoder = TruthEncoder(config.language.feature_size)
        for module, prefix in ((model, "language."), (encoder, "encoder.")):
            own = {name.removeprefix(prefix): part for name, part in parts.items() if name.startswith(prefix)}
            if not own:
                raise TrainingError(
                    f"{weights} holds no {prefix[:-1]}; only a stage that reads the truth can drive by it"
                )
            module.load_state_dict(own)
            module.eval()
        decoder = Decoder(model, max_length=config.language.max_positions, rows=1)
        grammar = trajectory_grammar(tokenizer, decimals=config.decimals)
        writer = TrajectoryGenerator(decoder, grammar, median_digits=config.median_digits)
        return cls(config, tokenizer, model, encoder, writer)

    @torch.inference_mode()
    def path(self, stored: StoredSample, instruction: str) -> Array:
        """Positions [6, 2] of the lidar origin every 0.5 s, lidar frame, metres, as it writes them."""
        (features,) = self.encoder([true_features(stored, self.config.perception)])
        message = user_message(prompt_fields(stored.sample, self.config), instruction)
        ids = tokenize_prompt(chat_prompt(self.config.system_text, message), self.tokenizer)
        written = self.writer.generate(self.model.embed_prompt(ids, features), prefix=text_prefix(ids))
        path: Array = written.waypoints[0]
        return path


class SchooledPolicy(BlindPolicy):
    """At the wheel of a world whose truth is recorded: it reads the last sample of `record`."""

    info = PolicyInfo(model_id="schooled", weights_hash="", trained=True, image_size=(1, 1))
    name = "schooled"
    explanation = "This model reads the truth of the world, not the pictures."

    def __init__(self, schooled: Schooled, record: Sequence[StoredSample]) -> None:
        super().__init__()
        self._schooled, self._record = schooled, record

    def waypoints(self, observation: Observation) -> tuple[Array, Array | None]:
        """What it writes about the recorded moment."""
        path = self._schooled.path(self._record[-1], observation.command.text)
        return lidar_path_to_base(path, np.asarray(observation.rig.lidar_to_base)), None
