"""A tiny AutoVLA with random weights, its tokenizer and its codebook, as a checkpoint folder or a policy."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from opendrivevla_ros.core.policy import ThinkingLimits
from opendrivevla_ros.language.action_codebook import ActionCodebook
from opendrivevla_ros.language.action_lattice import MotionLimits, lattice
from opendrivevla_ros.language.action_tokens import ActionTokens
from opendrivevla_ros.policies.autovla.config import AutoVlaConfig, TextConfig, VisionConfig
from opendrivevla_ros.policies.autovla.model import AutoVlaModel, VisionIds, codebook_hash, random_model, save_model
from opendrivevla_ros.policies.autovla.policy import AutoVlaPolicy
from opendrivevla_ros.policies.autovla.tokenizer import build_tokenizer

PROPOSING = {"sight_width": 16, "proposal_scales": ((0.1, 0.05),) * 6}  # of a configuration with sight


@cache
def tiny_codebook() -> ActionCodebook:
    return lattice(MotionLimits(forward=12.0, backward=0.0))


@cache
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer(tiny_codebook(), words=500)


def tiny_config(**changes: Any) -> AutoVlaConfig:
    tokenizer, codebook = tiny_tokenizer(), tiny_codebook()
    config = AutoVlaConfig(
        model_id="autovla-tiny",
        vision=VisionConfig(depth=2, hidden_size=16, intermediate_size=24, heads=2, full_attention_blocks=(1,)),
        language=TextConfig(
            vocabulary_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=48,
            layers=2,
            heads=2,
            key_value_heads=1,
            mrope_section=(2, 3, 3),
            max_positions=2048,
        ),
        image_size=(112, 56),
        system_text="You drive.",
        actions=len(codebook),
        first_action_id=ActionTokens(tokenizer, codebook).first_id,
        codebook_sha256=codebook_hash(codebook),
        eos_ids=(int(tokenizer.eos_token_id),),
        max_new_tokens=24,
    )
    return replace(config, **changes)


def tiny_model(seed: int = 0, **changes: Any) -> AutoVlaModel:
    """Random weights that are large enough to make the model's text and plans lively."""
    model = random_model(tiny_config(**changes), seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                scale = 0.5 if "embed_tokens" in name else 1.5 / parameter[0].numel() ** 0.5
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return model


def embed_prompt(
    model: AutoVlaModel, ids: list[int], videos: torch.Tensor, own: VisionIds
) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings of a prompt with its videos in them, and rotary positions."""
    return model.embed_seen(ids, model.seen([videos]).tokens[0], own)


def tiny_policy(
    model: AutoVlaModel | None = None, *, thinking: ThinkingLimits | None = None, **options: Any
) -> AutoVlaPolicy:
    policy = AutoVlaPolicy(model or tiny_model(), tiny_tokenizer(), tiny_codebook(), **options)
    if thinking is not None:
        policy.set_thinking_limits(thinking)
    return policy


def write_folder(folder: Path, model: AutoVlaModel | None = None) -> Path:
    save_model(model or tiny_model(), tiny_codebook(), folder, card="tiny")
    tiny_tokenizer().save_pretrained(str(folder))
    return folder


def ticking(step_ms: int) -> Callable[[], int]:
    """A clock on which every look takes so long."""
    now_ns = 0

    def look() -> int:
        nonlocal now_ns
        now_ns += step_ms * 1_000_000
        return now_ns

    return look
