"""Turns a published OpenDriveVLA folder, or a UniAD stage-1 file for perception alone, into a checkpoint folder."""

import re
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from opendrivevla_ros.language.model import LanguageConfig
from opendrivevla_ros.language.prompt import STRUCTURE_TOKENS
from opendrivevla_ros.language.system_text import SystemTextError, system_text_from_conversation
from opendrivevla_ros.perception.config import PerceptionConfig
from opendrivevla_ros.policies import checkpoint
from opendrivevla_ros.policies.errors import CheckpointError
from opendrivevla_ros.policies.loading import read_tokenizer
from opendrivevla_ros.policies.opendrivevla import config as configs
from opendrivevla_ros.policies.opendrivevla.config import OpenDriveVlaConfig, save_config
from opendrivevla_ros.policies.opendrivevla.model import empty_model
from opendrivevla_ros.policies.published_weights import (
    Imported,
    Progress,
    PublishedWeights,
    open_published,
    write_published,
)

PERCEPTION_PREFIX = "model.vision_tower.vision_tower.vision_model."
MAP_OFFSETS = "perception.seg_head.transformer.encoder.layers.0.attentions.0.sampling_offsets.weight"
UNUSED = re.compile(r".*rotary_emb\.inv_freq|model\.image_newline")  # tables, and a token of another LLaVA mode
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)
HUB_PATTERNS = ["*.json", "*.safetensors", "*.bin", "merges.txt"]


def import_published(
    source: Path,
    folder: Path,
    *,
    system_text: Path | None = None,
    perception_only: bool = False,
    perception: PerceptionConfig | None = None,
    model_id: str = "",
    progress: Progress = lambda done, total: None,
) -> Imported:
    """Writes `folder` from a published folder or a UniAD stage-1 .pth file.

    system_text: a file that holds the published system text (llava/conversation.py or plain text).
    perception: the dimensions of the perception weights, by default the published ones. model_id: by default the
    source's name. Everything is checked before anything is written, and one tensor at a time is in memory.
    Raises CheckpointError.
    """
    if not source.exists():
        raise CheckpointError(f"{source} does not exist")
    if folder.exists() and any(folder.iterdir()):
        raise CheckpointError(f"{folder} is not empty; choose a new folder for the imported checkpoint")
    perception = perception or configs.base().perception
    alone = perception_only or source.is_file()
    notes: list[str] = []
    # the description is checked before the weights, which take longer
    description = {} if source.is_file() else _description(source)
    weights = open_published(source)
    names = {own: name for name in weights.entries if (own := _own_name(name, source.is_file())) is not None}
    if alone:
        names = {own: name for own, name in names.items() if own.startswith("perception.")}
    config = OpenDriveVlaConfig(
        model_id=model_id or source.stem,
        perception=_map_levels(perception, weights, names, notes),
        language=None,
    )
    if not alone:
        config = _with_language(config, description, weights, names, notes)
        config = _with_system_text(config, system_text, notes)
    fills = _check(config, weights, names, source, notes)
    with tempfile.TemporaryDirectory() as prepared:
        if not alone:
            _prepare_tokenizer(source, Path(prepared), config, notes)
        with checkpoint.written_whole(folder) as partial:
            weights_hash = write_published(partial, weights, names, fills=fills, progress=progress)
            checkpoint.copy_files(Path(prepared), partial, TOKENIZER_FILES)
            save_config(config, partial / checkpoint.CONFIG)
            (partial / checkpoint.CARD).write_text(_card(config, weights_hash, notes))
    return Imported(folder, weights_hash, config, tuple(notes))


def download(hub_id: str) -> Path:
    """A local copy of a Hugging Face repository's weights, configuration and tokenizer. Raises CheckpointError.

    Not tested against the real service.
    """
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", hub_id):
        raise CheckpointError(f"{hub_id!r} is neither an existing path nor a Hugging Face id like owner/name")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(hub_id, allow_patterns=HUB_PATTERNS))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise CheckpointError(f"cannot download {hub_id} from Hugging Face: {str(error).splitlines()[0]}") from error


def _own_name(name: str, perception_alone: bool) -> str | None:
    """This package's name of a published entry; None for one that no network here needs."""
    if perception_alone:
        return "perception." + name
    if name.startswith(PERCEPTION_PREFIX):
        return "perception." + name.removeprefix(PERCEPTION_PREFIX)
    return None if UNUSED.fullmatch(name) else "language." + name


def _description(source: Path) -> dict[str, Any]:
    """The published config.json with the generation's defaults under "generation"."""
    checkpoint.require(source, checkpoint.CONFIG)
    description = checkpoint.read_json(source / checkpoint.CONFIG)
    if not isinstance(description, dict) or description.get("model_type") != "llava_qwen":
        found = description.get("model_type") if isinstance(description, dict) else description
        raise CheckpointError(f"{source}: config.json says model_type {found!r}, but OpenDriveVLA is 'llava_qwen'")
    if "uniad_track_map" not in str(description.get("mm_vision_tower")):
        tower = description.get("mm_vision_tower")
        raise CheckpointError(f"{source}: config.json says mm_vision_tower {tower!r}, not uniad_track_map")
    generation = source / "generation_config.json"
    description["generation"] = checkpoint.read_json(generation) if generation.is_file() else {}
    return description


def _map_levels(
    perception: PerceptionConfig, weights: PublishedWeights, names: dict[str, str], notes: list[str]
) -> PerceptionConfig:
    """Decides by shape whether the map head was built for four levels (UniAD's known error) or for its one (T1)."""
    if MAP_OFFSETS not in names:
        raise CheckpointError(f"the weights lack {MAP_OFFSETS}: this is no checkpoint with a UniAD map head")
    rows = weights.entries[names[MAP_OFFSETS]][1][0]
    per_level = perception.heads * perception.map_points * 2
    levels = rows // per_level
    if levels * per_level != rows or levels not in (1, perception.feature_levels):
        raise CheckpointError(
            f"{MAP_OFFSETS} has {rows} rows; {per_level} (one level) or"
            f" {per_level * perception.feature_levels} ({perception.feature_levels} levels) are known"
        )
    notes.append(f"The map head's attention was built for {levels} level{'s' if levels > 1 else ''}.")
    quirks = replace(perception.quirks, misstrided_map_attention=levels > 1)
    return replace(perception, map_attention_levels=levels, quirks=quirks)


def _with_language(
    config: OpenDriveVlaConfig,
    description: dict[str, Any],
    weights: PublishedWeights,
    names: dict[str, str],
    notes: list[str],
) -> OpenDriveVlaConfig:
    embedding = "language.model.embed_tokens.weight"
    if embedding not in names:
        raise CheckpointError(f"the weights lack {embedding.removeprefix('language.')}: there is no language model")
    generation = description["generation"]
    limit = description.get("tokenizer_model_max_length")
    eos = generation.get("eos_token_id", description.get("eos_token_id"))
    try:
        language = LanguageConfig(
            vocabulary_size=weights.entries[names[embedding]][1][0],
            hidden_size=int(description["hidden_size"]),
            intermediate_size=int(description["intermediate_size"]),
            layers=int(description["num_hidden_layers"]),
            heads=int(description["num_attention_heads"]),
            key_value_heads=int(description["num_key_value_heads"]),
            rope_theta=float(description["rope_theta"]),
            rms_epsilon=float(description["rms_norm_eps"]),
            tied_embeddings=bool(description["tie_word_embeddings"]),
            max_positions=int(description["max_position_embeddings"]),
            projector=str(description["mm_projector_type"]),
            feature_size=config.perception.embed_dim,
            max_prompt_tokens=None if limit is None else int(limit),
        )
        eos_ids = tuple(int(token) for token in (eos if isinstance(eos, list) else [eos]))
        penalty = float(generation.get("repetition_penalty", 1.0))
    except KeyError as error:
        raise CheckpointError(f"the published config.json lacks {error.args[0]}") from error
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"the published config.json or generation_config.json is not usable: {error}") from error
    if language.tied_embeddings and names.pop("language.lm_head.weight", ""):
        notes.append("The stored output head was left out: the configuration ties it to the embedding.")
    if not generation:
        notes.append("There is no generation_config.json: repetition penalty 1, end tokens from config.json.")
    notes.append(
        f"Projectors {language.projector}, {language.vocabulary_size} vocabulary rows, repetition penalty {penalty:g},"
        f" end tokens {list(eos_ids)}, prompt limit {language.max_prompt_tokens}."
    )
    return replace(config, language=language, eos_ids=eos_ids, repetition_penalty=penalty)


def _with_system_text(config: OpenDriveVlaConfig, file: Path | None, notes: list[str]) -> OpenDriveVlaConfig:
    if file is None:
        notes.append(
            "No system text was given, so this package's own stands in the prompt, which the model was not trained"
            " with: give llava/conversation.py of the published repository for the right one."
        )
        return config
    try:
        text = system_text_from_conversation(file)
    except SystemTextError as error:
        raise CheckpointError(str(error)) from error
    notes.append("The system text is the published one (its SHA-256 was checked).")
    return replace(config, system_text=text)


def _check(
    config: OpenDriveVlaConfig, weights: PublishedWeights, names: dict[str, str], source: Path, notes: list[str]
) -> dict[str, Tensor]:
    """Compares names and shapes with the network; returns entries to fill in, which files may omit."""
    expected = checkpoint.expected_shapes(empty_model(config))
    fills: dict[str, Tensor] = {}
    for name in sorted(set(expected) - set(names)):
        if name.endswith(".num_batches_tracked"):
            fills[name] = torch.zeros((), dtype=torch.int64)
    if fills:
        notes.append(f"{len(fills)} batch counters, which inference never reads, were missing and are 0.")
    found = {own: weights.entries[name][1] for own, name in names.items()}
    found.update({name: tuple(tensor.shape) for name, tensor in fills.items()})
    checkpoint.check_keys(expected, found, str(source))
    return fills


def _prepare_tokenizer(source: Path, folder: Path, config: OpenDriveVlaConfig, notes: list[str]) -> None:
    """Copies the tokenizer's files to `folder`, with a tokenizer.json in any case, and checks them."""
    copied = checkpoint.copy_files(source, folder, TOKENIZER_FILES)
    if "tokenizer.json" not in copied:
        if not {"vocab.json", "merges.txt"} <= set(copied):
            raise CheckpointError(f"{source} lacks a tokenizer: tokenizer.json, or vocab.json with merges.txt")
        from transformers import Qwen2TokenizerFast

        Qwen2TokenizerFast.from_pretrained(str(source), local_files_only=True).save_pretrained(str(folder))
    rows = config.language.vocabulary_size if config.language else 0
    tokenizer = read_tokenizer(folder, rows)
    if outside := [token for token in config.eos_ids if not 0 <= token < rows]:
        raise CheckpointError(f"{source}: end token {outside[0]} is outside the {rows} rows of the embedding")
    vocabulary = tokenizer.get_vocab()
    single = sum(token in vocabulary for token in STRUCTURE_TOKENS)
    notes.append(f"{single} of the {len(STRUCTURE_TOKENS)} structure tokens are single tokens of the tokenizer.")


def _card(config: OpenDriveVlaConfig, weights_hash: str, notes: list[str]) -> str:
    kind = "OpenDriveVLA" if config.language else "Perception alone of a UniAD-style checkpoint"
    lines = [
        f"# {config.model_id}",
        "",
        f"{kind}, imported from published weights by `odv checkpoint import`. The weights are unchanged; their licence"
        " is that of their source.",
        "",
        *(f"- {note}" for note in notes),
        f"- SHA-256 of model.safetensors: {weights_hash}",
    ]
    return "\n".join(lines) + "\n"
