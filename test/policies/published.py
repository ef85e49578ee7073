"""Tiny checkpoints in the layout in which OpenDriveVLA is published, made of random weights."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from opendrivevla_ros.language.small_tokenizer import build_small_tokenizer
from opendrivevla_ros.perception.config import PerceptionConfig
from opendrivevla_ros.policies.opendrivevla import config as configs
from opendrivevla_ros.policies.opendrivevla.import_published import PERCEPTION_PREFIX
from opendrivevla_ros.policies.opendrivevla.model import OpenDriveVlaModel, random_model

TOKENIZER = build_small_tokenizer()


def tiny_perception(**changes: Any) -> PerceptionConfig:
    return replace(
        configs.small_perception(),
        resnet_width=4,
        resnet_blocks=(1, 1, 1, 1),
        embed_dim=16,
        ffn_dim=16,
        heads=2,
        bev_size=6,
        queries=4,
        feature_levels=4,
        map_queries=4,
        map_attention_levels=4,
        **changes,
    )


def tiny_model(**changes: Any) -> OpenDriveVlaModel:
    config = configs.small(len(TOKENIZER) + 8, TOKENIZER.eos_token_id)
    language = replace(
        config.language, feature_size=16, hidden_size=32, intermediate_size=48, heads=2, layers=2, **changes
    )
    return random_model(replace(config, perception=tiny_perception(), language=language), seed=0)


def published_state(model: OpenDriveVlaModel) -> dict[str, Tensor]:
    """The model's weights under the published names, without a tied head."""
    state = {}
    for name, tensor in model.state_dict().items():
        room, rest = name.split(".", 1)
        if name == "language.lm_head.weight" and model.config.language.tied_embeddings:
            continue
        state[PERCEPTION_PREFIX + rest if room == "perception" else rest] = tensor
    return state


def published_config(model: OpenDriveVlaModel) -> dict[str, Any]:
    language = model.config.language
    return {
        "model_type": "llava_qwen",
        "mm_vision_tower": "uniad_track_map",
        "mm_projector_type": language.projector,
        "hidden_size": language.hidden_size,
        "intermediate_size": language.intermediate_size,
        "num_hidden_layers": language.layers,
        "num_attention_heads": language.heads,
        "num_key_value_heads": language.key_value_heads,
        "rope_theta": language.rope_theta,
        "rms_norm_eps": language.rms_epsilon,
        "tie_word_embeddings": language.tied_embeddings,
        "max_position_embeddings": language.max_positions,
        "tokenizer_model_max_length": 900,
        "eos_token_id": TOKENIZER.eos_token_id,
    }


def write_published(
    folder: Path,
    model: OpenDriveVlaModel,
    *,
    state: Mapping[str, Tensor] | None = None,
    kind: str = "safetensors",
    shards: int = 2,
) -> Path:
    """A published folder with weights of `kind` "safetensors" or "bin" in so many shards (1: one file, no index)."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(published_config(model)))
    generation = {"eos_token_id": [TOKENIZER.eos_token_id, 0], "repetition_penalty": 1.1}
    (folder / "generation_config.json").write_text(json.dumps(generation))
    TOKENIZER.save_pretrained(folder)
    state = dict(published_state(model) if state is None else state)
    whole = "model.safetensors" if kind == "safetensors" else "pytorch_model.bin"
    names = list(state)
    files = [whole] if shards == 1 else [f"part-{index}{Path(whole).suffix}" for index in range(shards)]
    weight_map = {}
    for index, file in enumerate(files):
        part = {name: state[name].contiguous() for name in names[index::shards]}
        weight_map.update(dict.fromkeys(part, file))
        if kind == "safetensors":
            save_file(part, folder / file)
        else:
            torch.save(part, folder / file)
    if shards > 1:
        (folder / f"{whole}.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder
