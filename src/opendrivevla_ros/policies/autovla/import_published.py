"""Turns the published AutoVLA weights, with Qwen2.5-VL's tokenizer and their codebook, into a checkpoint folder.

The codebook and the published prompt are under licences of their own: the first is the user's to give, and in place of
the second this package's words stand in the prompt.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

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


def own_name(published: str) -> str:
    """The name in `transformers`' present layout of a published entry. Raises CheckpointError for any other."""
    rest = published.removeprefix(PREFIX)
    if rest == published:
        raise CheckpointError(f"the weights hold {published}, but every entry of AutoVLA's begins with {PREFIX}")
    if rest.startswith("visual."):
        return "model." + rest
    if rest.startswith("model."):
        return "model.language_model." + rest.removeprefix("model.")
    return rest


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

    source: the published file, or a folder of safetensors with the same names. tokenizer: a folder with Qwen2.5-VL's
    tokenizer.json; action tokens are added where it has none. codebook: an .npz file of this package, or an .npy of
    contours [N, 4, 2], or [N, K, 4, 2] of which the last of K counts. config: the dimensions, by default the published
    ones. Everything is checked before anything is written, and one tensor at a time is in memory.
    Raises CheckpointError.
    """
    if not source.exists():
        raise CheckpointError(f"{source} does not exist")
    if folder.exists() and any(folder.iterdir()):
        raise CheckpointError(f"{folder} is not empty; choose a new folder for the imported checkpoint")
    actions = read_codebook(codebook)
    weights = open_published(source)
    names = {own_name(published): published for published in weights.entries}
    tied = _is_tied(weights, names, source)
    described = config or configs.base()
    described = replace(
        described,
        model_id=model_id or source.stem,
        trained=True,
        language=replace(described.language, tied_embeddings=tied),
        signed_acceleration=False,
        tells_history=False,
        codebook_sha256=codebook_hash(actions),
    )
    if tied:
        names.pop(HEAD, None)
    expected = checkpoint.expected_shapes(empty_model(described))
    found = {own: weights.entries[published][1] for own, published in names.items()}
    checkpoint.check_keys(expected, found, str(source))
    notes = [
        "The output head is the embedding." if tied else "The output head is not the embedding, so both are kept.",
        "This package's own words stand in the prompt, which the model was not trained with.",
        "The prompt has the norm of the acceleration and no history, as in training.",
    ]
    with tempfile.TemporaryDirectory() as prepared:
        _prepare_tokenizer(tokenizer, Path(prepared), described, actions, notes)
        with checkpoint.written_whole(folder) as partial:
            weights_hash = write_published(partial, weights, names, dtype=torch.bfloat16, progress=progress)
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
        raise CheckpointError(f"{source} lacks {EMBEDDING}: this is no whole AutoVLA checkpoint")
    if HEAD not in names:
        return True
    return torch.equal(weights.tensor(names[EMBEDDING]), weights.tensor(names[HEAD]))


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
        "AutoVLA, imported from published weights by `odv checkpoint import` and rounded to bfloat16. The licences of"
        " the weights and of the codebook are those of their sources.",
        "",
        *(f"- {note}" for note in notes),
        f"- SHA-256 of model.safetensors: {weights_hash}",
    ]
    return "\n".join(lines) + "\n"
