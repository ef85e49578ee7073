"""Turns the published AutoVLA weights, or Qwen2.5-VL's, with its tokenizer and a codebook, into a checkpoint folder.

The codebook and the prompt of AutoVLA are under licences of their own: the first is the user's to give, and in place
of the second this package's words stand in the prompt. Qwen2.5-VL knows no action yet; `odv train --preset
autovla-base` goes on from it, as the published training did.
"""

import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from opendrivevla_ros.language.action_codebook import ActionCodebook
from opendrivevla_ros.language.action_tokens import ActionTokenError, add_action_tokens, name
from opendrivevla_ros.language.small_tokenizer import load_tokenizer
from opendrivevla_ros.policies import checkpoint
from opendrivevla_ros.policies.autovla import config as configs
from opendrivevla_ros.policies.autovla.config import AutoVlaConfig, save_config
from opendrivevla_ros.policies.autovla.model import (
    CODEBOOK,
    VisionIds,
    action_tokens,
    codebook_hash,
    empty_model,
    load_codebook,
)
from opendrivevla_ros.policies.errors import CheckpointError
from opendrivevla_ros.policies.loading import read_tokenizer
from opendrivevla_ros.policies.published_weights import (
    Imported,
    Progress,
    PublishedWeights,
    open_published,
    write_published,
)

PREFIX = "autovla.vlm."
EMBEDDING, HEAD = "model.language_model.embed_tokens.weight", "lm_head.weight"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)


def own_names(published: Iterable[str]) -> dict[str, str]:
    """By the name in `transformers`' present layout the published one.

    Raises CheckpointError where some are AutoVLA's, which begin with PREFIX, and some are not.
    """
    autovla = any(name.startswith(PREFIX) for name in published)
    if autovla and (others := [name for name in published if not name.startswith(PREFIX)]):
        raise CheckpointError(f"the weights hold {others[0]}, but every entry of AutoVLA's begins with {PREFIX}")
    return {_own_name(name.removeprefix(PREFIX)): name for name in published}


def _own_name(name: str) -> str:
    if name.startswith("visual."):
        return "model." + name
    if name.startswith("model.") and not name.startswith(("model.visual.", "model.language_model.")):
        return "model.language_model." + name.removeprefix("model.")
    return name


def import_published(
    source: Path,
    folder: Path,
    *,
    tokenizer: Path,
    codebook: Path,
    config: AutoVlaConfig | None = None,
    model_id: str = "",
    progress: Progress = lambda done, total: None,
) -> Imported:
    """Writes `folder` with the weights in bfloat16.

    source: the published file or a folder of safetensors with the same names; or such a folder of Qwen2.5-VL, whose
    embedding then gets rows for the actions, each the mean of the others, and `trained` is false. tokenizer: a folder
    with Qwen2.5-VL's tokenizer.json; action tokens are added where it has none. codebook: an .npz file of this
    package, or an .npy of contours [N, 4, 2], or [N, K, 4, 2] of which the last of K counts. config: the dimensions,
    by default the published ones. Everything is checked before anything is written, and one tensor at a time is in
    memory.
    Raises CheckpointError.
    """
    if not source.exists():
        raise CheckpointError(f"{source} does not exist")
    if folder.exists() and any(folder.iterdir()):
        raise CheckpointError(f"{folder} is not empty; choose a new folder for the imported checkpoint")
    actions = read_codebook(codebook)
    weights = open_published(source)
    names = own_names(weights.entries)
    tied = _is_tied(weights, names, source)
    described = config or configs.base()
    described = replace(
        described,
        model_id=model_id or source.stem,
        language=replace(described.language, tied_embeddings=tied),
        codebook_sha256=codebook_hash(actions),
    )
    if tied:
        names.pop(HEAD, None)
    notes = [
        "The output head is the embedding." if tied else "The output head is not the embedding, so both are kept."
    ]
    fills: dict[str, Tensor] = {}
    if any(name.startswith(PREFIX) for name in weights.entries):
        described = replace(described, trained=True, signed_acceleration=False, tells_history=False)
        notes += [
            "This package's own words stand in the prompt, which the model was not trained with.",
            "The prompt has the norm of the acceleration and no history, as in training.",
        ]
    else:
        described = _with_actions(described, tokenizer, len(actions))
        tables = [name for name in (EMBEDDING, HEAD) if name in names]
        fills = {name: _rows(weights.tensor(names.pop(name)), described) for name in tables}
        notes.append("These are weights of Qwen2.5-VL, to which actions mean nothing yet; train it before it drives.")
    expected = checkpoint.expected_shapes(empty_model(described))
    found = {own: weights.entries[published][1] for own, published in names.items()}
    checkpoint.check_keys(expected, found | {own: tuple(table.shape) for own, table in fills.items()}, str(source))
    with tempfile.TemporaryDirectory() as prepared:
        _prepare_tokenizer(tokenizer, Path(prepared), described, actions, notes)
        with checkpoint.written_whole(folder) as partial:
            weights_hash = write_published(
                partial, weights, names, dtype=torch.bfloat16, fills=fills, progress=progress
            )
            checkpoint.copy_files(Path(prepared), partial, TOKENIZER_FILES)
            save_config(described, partial / checkpoint.CONFIG)
            actions.save(partial / CODEBOOK)
            (partial / checkpoint.CARD).write_text(_card(described, weights_hash, notes))
    return Imported(folder, weights_hash, described, tuple(notes))


def read_codebook(path: Path) -> ActionCodebook:
    """See `import_published`. Raises CheckpointError."""
    if path.suffix != ".npy":
        return load_codebook(path)
    try:
        contours = np.load(path, allow_pickle=False)
        return ActionCodebook(contours[:, -1] if contours.ndim == 4 else contours)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read the action codebook {path}: {error}") from error


def _is_tied(weights: PublishedWeights, names: dict[str, str], source: Path) -> bool:
    """Whether the output head is the embedding, or not stored, which means the same."""
    if EMBEDDING not in names:
        raise CheckpointError(f"{source} lacks {EMBEDDING}: this is no whole AutoVLA or Qwen2.5-VL checkpoint")
    if HEAD not in names:
        return True
    return torch.equal(weights.tensor(names[EMBEDDING]), weights.tensor(names[HEAD]))


def _with_actions(config: AutoVlaConfig, tokenizer: Path, count: int) -> AutoVlaConfig:
    """The configuration with so many actions behind all other tokens, untrained."""
    words = read_tokenizer(tokenizer, config.language.vocabulary_size).get_vocab()
    first = words.get(name(0), len(words))
    language = replace(config.language, vocabulary_size=first + count)
    return replace(config, trained=False, language=language, actions=count, first_action_id=first)


def _rows(table: Tensor, config: AutoVlaConfig) -> Tensor:
    """A table's rows of words in bfloat16, and for each action their mean. Raises CheckpointError for too few."""
    words = config.first_action_id
    if len(table) < words:
        raise CheckpointError(f"the embedding has {len(table)} rows, but the tokenizer {words} words; give its own")
    known = table[:words].float()
    return torch.cat([known, known.mean(0).expand(config.actions, -1)]).bfloat16()


def _prepare_tokenizer(
    source: Path, folder: Path, config: AutoVlaConfig, codebook: ActionCodebook, notes: list[str]
) -> None:
    """The tokenizer in `folder`, with the codebook's actions, checked against the configuration."""
    tokenizer = read_tokenizer(source, config.language.vocabulary_size)
    VisionIds.of(tokenizer)
    if name(0) not in tokenizer.get_vocab():
        try:
            add_action_tokens(tokenizer, codebook)
        except ActionTokenError as error:
            raise CheckpointError(str(error)) from error
        notes.append(f"{len(codebook)} action tokens were added to the tokenizer.")
    checkpoint.save_tokenizer(tokenizer, folder)
    action_tokens(config, load_tokenizer(folder), codebook)
    read_tokenizer(folder, config.language.vocabulary_size)


def _card(config: AutoVlaConfig, weights_hash: str, notes: list[str]) -> str:
    lines = [
        f"# {config.model_id}",
        "",
        "Imported from published weights by `odv checkpoint import` and rounded to bfloat16. The licences of the"
        " weights and of the codebook are those of their sources.",
        "",
        *(f"- {note}" for note in notes),
        f"- SHA-256 of model.safetensors: {weights_hash}",
    ]
    return "\n".join(lines) + "\n"
