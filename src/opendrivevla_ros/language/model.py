"""The language model of OpenDriveVLA: Qwen2 (arXiv 2412.15115) that reads scene, agent and map features as tokens.

Its state keys are those of the published checkpoints without the vision tower: `model.embed_tokens.weight`,
`model.layers.*`, `model.norm.weight`, `model.mm_projector_{scene,track,map}.*`, and `lm_head.weight`, which is the
embedding where the configuration ties them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM

from opendrivevla_ros.language.projectors import build_projector
from opendrivevla_ros.language.prompt import MAP_ID, SCENE_ID, TRACK_ID
from opendrivevla_ros.language.quantisation import embed


@dataclass(frozen=True)
class LanguageConfig:
    """Sizes of the language model; the defaults are the published 0.5B model's.

    feature_size: width of perception features. max_prompt_tokens: longer prompts are cut at the end, as the published
    code does with `tokenizer_model_max_length`; None for no limit.
    """

    vocabulary_size: int = 151936
    hidden_size: int = 896
    intermediate_size: int = 4864
    layers: int = 24
    heads: int = 14
    key_value_heads: int = 2
    rope_theta: float = 1e6
    rms_epsilon: float = 1e-6
    tied_embeddings: bool = True
    max_positions: int = 32768
    projector: str = "mlp2x_gelu"
    feature_size: int = 256
    max_prompt_tokens: int | None = None


@dataclass(frozen=True)
class Features:
    """Perception features before projection: scene [S, C], agents [A, C], map elements [M, C]; None for no block.

    proposal: [6, 2] metres, the path that the ego's query proposes (see `prompt.with_proposal`), which becomes words
    and so stays on the CPU; None for none.
    """

    scene: Tensor | None
    agents: Tensor | None
    map_elements: Tensor | None
    proposal: Tensor | None = None

    def to(self, device: torch.device | str) -> "Features":
        """The same on a device."""
        blocks = (self.scene, self.agents, self.map_elements)
        scene, agents, lines = (None if block is None else block.to(device) for block in blocks)
        return Features(scene, agents, lines, self.proposal)

    def led_by(self, egos: Tensor, proposal: Tensor | None) -> "Features":
        """The same with the ego's tokens [E, C] before those of the agents, and what they propose."""
        agents = egos if self.agents is None else torch.cat([egos, self.agents])
        words = None if proposal is None else proposal.detach().cpu()
        return Features(self.scene, agents, self.map_elements, words)


class DrivingLanguageModel(Qwen2ForCausalLM):
    """Qwen2 with three feature projectors; everything of `transformers` works on it."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__(
            Qwen2Config(
                vocab_size=config.vocabulary_size,
                hidden_size=config.hidden_size,
                intermediate_size=config.intermediate_size,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                num_key_value_heads=config.key_value_heads,
                rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
                rms_norm_eps=config.rms_epsilon,
                tie_word_embeddings=config.tied_embeddings,
                max_position_embeddings=config.max_positions,
                bos_token_id=None,
                eos_token_id=None,
            )
        )
        self.language_config = config
        for name in ("scene", "track", "map"):
            projector = build_projector(config.projector, config.feature_size, config.hidden_size)
            self.model.add_module(f"mm_projector_{name}", projector)

    def embed_prompt(self, ids: Sequence[int], features: Features) -> Tensor:
        """Embeddings [L, hidden] of a prompt's ids, with every placeholder replaced by its projected features.

        A missing block inserts nothing. Raises ValueError for a placeholder that no feature belongs to.
        """
        blocks = {SCENE_ID: features.scene, TRACK_ID: features.agents, MAP_ID: features.map_elements}
        projectors = {
            SCENE_ID: self.model.mm_projector_scene,
            TRACK_ID: self.model.mm_projector_track,
            MAP_ID: self.model.mm_projector_map,
        }
        weight = self.model.embed_tokens.weight
        pieces: list[Tensor] = []
        text: list[int] = []

        def flush() -> None:
            if text:
                pieces.append(embed(torch.tensor(text, device=weight.device), weight))
                text.clear()

        for token in ids:
            if token >= 0:
                text.append(token)
                continue
            if token not in blocks:
                raise ValueError(f"the prompt holds placeholder {token}, for which this model has no features")
            flush()
            block = blocks[token]
            if block is not None and len(block):
                pieces.append(projectors[token](block.to(weight.device, weight.dtype)))
        flush()
        return torch.cat(pieces)[: self.language_config.max_prompt_tokens]
