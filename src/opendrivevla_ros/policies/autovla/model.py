"""The network of AutoVLA, `transformers`' Qwen2.5-VL with action tokens in its vocabulary, and its checkpoint folder.

State keys are those of `transformers`: `model.visual.*`, `model.language_model.*`, and `lm_head.weight`, which is the
embedding where the configuration ties them. Beside the weights lies the codebook of their action tokens.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from opendrivevla_ros.core.observation import Observation
from opendrivevla_ros.core.rig import CameraRig
from opendrivevla_ros.language.action_codebook import ActionCodebook
from opendrivevla_ros.language.action_prior import ActionPrior
from opendrivevla_ros.language.action_tokens import ActionTokenError, ActionTokens
from opendrivevla_ros.language.quantisation import embed
from opendrivevla_ros.policies import checkpoint
from opendrivevla_ros.policies.autovla.config import AutoVlaConfig, parse_config, save_config
from opendrivevla_ros.policies.autovla.images import FRAME_STEP_NS
from opendrivevla_ros.policies.autovla.prompt import VIDEO_PAD, VISION_END, VISION_START
from opendrivevla_ros.policies.autovla.sight import Sight, base_errors, base_path, ego_of, places_in
from opendrivevla_ros.policies.errors import CheckpointError

CODEBOOK = "action_codebook.npz"


class AutoVlaModel(Qwen2_5_VLForConditionalGeneration):
    """Qwen2.5-VL from this package's configuration, which stands in `autovla_config`."""

    def __init__(self, config: AutoVlaConfig) -> None:
        vision, text = config.vision, config.language
        described = Qwen2_5_VLConfig(
            vision_config={
                "depth": vision.depth,
                "hidden_size": vision.hidden_size,
                "intermediate_size": vision.intermediate_size,
                "num_heads": vision.heads,
                "patch_size": vision.patch,
                "temporal_patch_size": vision.temporal_patch,
                "spatial_merge_size": vision.merge,
                "window_size": vision.window,
                "fullatt_block_indexes": list(vision.full_attention_blocks),
                "tokens_per_second": vision.tokens_per_second,
                "out_hidden_size": text.hidden_size,
            },
            text_config={
                "vocab_size": text.vocabulary_size,
                "hidden_size": text.hidden_size,
                "intermediate_size": text.intermediate_size,
                "num_hidden_layers": text.layers,
                "num_attention_heads": text.heads,
                "num_key_value_heads": text.key_value_heads,
                "rms_norm_eps": text.rms_epsilon,
                "max_position_embeddings": text.max_positions,
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": text.rope_theta,
                    "mrope_section": list(text.mrope_section),
                },
                "bos_token_id": None,
                "eos_token_id": None,
                "tie_word_embeddings": text.tied_embeddings,
            },
            tie_word_embeddings=text.tied_embeddings,
        )
        if 2 * sum(text.mrope_section) * text.heads != text.hidden_size:
            raise ValueError(
                f"config.language.mrope_section {list(text.mrope_section)} must add up to half of a head's"
                f" {text.hidden_size // text.heads} numbers"
            )
        super().__init__(described)
        self.autovla_config = config
        self.model.visual.patch_embed = _PatchEmbedding(self.model.visual.patch_embed.proj)
        self.sight = Sight(config) if config.sight_width else None

    def seen(self, videos: Sequence[Tensor]) -> "Seen":
        """What the tower makes of the videos of B prompts: patches of each, one video after the other.

        See `images.patches`.
        """
        weights, vision = self.lm_head.weight, self.autovla_config.vision
        grid = self._grid(weights.device)
        found = self.model.visual(torch.cat(list(videos)).to(weights), grid_thw=grid.repeat(len(videos), 1))
        tokens = found.pooler_output.unflatten(0, (len(videos), -1))
        if self.sight is None:
            return Seen(tokens, None)
        times, rows, columns = (int(count) for count in grid[0])
        merged = times, rows // vision.merge, columns // vision.merge
        states = found.last_hidden_state.unflatten(0, (len(videos), len(grid), -1, vision.merge**2))
        states = states[:, :, _places_of_tokens(*merged, vision.window // (vision.merge * vision.patch))]
        states = states.unflatten(2, merged).unflatten(5, (vision.merge, vision.merge))
        return Seen(tokens, states.transpose(4, 5).flatten(5, 6).flatten(3, 4))

    def embed_seen(self, ids: list[int], seen: Tensor, vision_ids: "VisionIds") -> tuple[Tensor, Tensor]:
        """Embeddings [L, hidden] of a prompt's ids with its videos in them, and rotary positions [3, L].

        seen: the tokens [V, hidden] of the videos.
        """
        config = self.autovla_config
        device = self.lm_head.weight.device
        tokens = torch.tensor([ids], device=device)
        is_video = tokens == vision_ids.video
        grid = self._grid(device)
        embeddings = embed(tokens, self.model.language_model.embed_tokens.weight).masked_scatter(
            is_video[..., None], seen.to(self.lm_head.weight.dtype)
        )
        seconds = config.vision.temporal_patch * FRAME_STEP_NS / 1e9
        positions, _ = self.model.get_rope_index(
            tokens,
            mm_token_type_ids=2 * is_video.int(),  # 0 text, 1 image, 2 video
            video_grid_thw=grid,
            second_per_grid_ts=torch.full((len(grid),), seconds, device=device),
        )
        return embeddings[0], positions[:, 0]

    def ground(self, seen: "Seen", rigs: Sequence[CameraRig]) -> Tensor:
        """The ground ahead [B, rows, columns, width], see `Sight`."""
        assert self.sight is not None
        assert seen.patches is not None
        places = torch.stack([places_in(rig, self.autovla_config.cameras) for rig in rigs])
        weights = self.sight.read.weight
        found: Tensor = self.sight(seen.patches.to(weights), places.to(weights))
        return found

    @torch.no_grad()
    def priors(
        self, codebook: ActionCodebook, seen: "Seen", observations: Sequence[Observation]
    ) -> list[ActionPrior] | None:
        """What the paths that sight proposes say of the actions at each observation; None for a model without."""
        if self.sight is None or not self.autovla_config.proposal_scales:
            return None
        ground = self.ground(seen, [observation.rig for observation in observations])
        egos = torch.stack([ego_of(observation) for observation in observations]).to(ground)
        answer = self.sight.proposed(ground, egos)
        errors = answer.errors * answer.errors.new_tensor(self.autovla_config.proposal_scales)
        return [
            ActionPrior(codebook, base_path(path, observation), base_errors(off))
            for path, off, observation in zip(answer.paths, errors, observations, strict=True)
        ]

    def _grid(self, device: torch.device) -> Tensor:
        """[cameras, 3] patches of each video by time, height and width."""
        config = self.autovla_config
        width, height = config.image_size
        patch, times = config.vision.patch, config.frames // config.vision.temporal_patch
        return torch.tensor([(times, height // patch, width // patch)] * len(config.cameras), device=device)


def _places_of_tokens(times: int, rows: int, columns: int, window: int) -> Tensor:
    """Where each token of a video, by time, row and column, stands among the blocks' states, which are by windows."""
    time, row, column = np.indices((times, rows, columns)).reshape(3, -1)
    order = np.lexsort((column % window, row % window, column // window, row // window, time))
    return torch.from_numpy(np.argsort(order))


class Seen(NamedTuple):
    """What the tower makes of B videos.

    tokens: [B, V, hidden], of the language model. patches: [B, cameras, times, rows, columns, vision hidden], what
    they were merged from, for a model with `Sight`.
    """

    tokens: Tensor
    patches: Tensor | None


class _PatchEmbedding(nn.Module):
    """`transformers`' own, whose 3-D convolution sees each patch alone, as the product that it is.

    On one core, float32, 5 to 9 times as fast forwards and 5 to 11 times backwards, in both presets' widths.
    """

    def __init__(self, convolution: nn.Conv3d) -> None:
        super().__init__()
        self.proj = convolution

    def forward(self, patches: Tensor) -> Tensor:
        """Patches [N, 3 * times * height * width] to [N, hidden]."""
        weight = self.proj.weight.flatten(1)
        return F.linear(patches.to(weight.dtype), weight)


@dataclass(frozen=True)
class VisionIds:
    """The ids of the tokens around a video and in its place. Raises CheckpointError for a tokenizer without them."""

    start: int
    end: int
    video: int

    @classmethod
    def of(cls, tokenizer: Any) -> "VisionIds":
        vocabulary = tokenizer.get_vocab()
        if missing := [token for token in (VISION_START, VISION_END, VIDEO_PAD) if token not in vocabulary]:
            raise CheckpointError(f"the tokenizer lacks {missing[0]}; take that of Qwen2.5-VL, or of this checkpoint")
        return cls(vocabulary[VISION_START], vocabulary[VISION_END], vocabulary[VIDEO_PAD])


def codebook_hash(codebook: ActionCodebook) -> str:
    """SHA-256 in hex of a codebook's contours, rounded to micrometres, and box."""
    digest = hashlib.sha256()
    for values in (codebook.contours, np.array([codebook.length, codebook.width])):
        digest.update(np.round(values * 1e6).astype("<i8").tobytes())
    return digest.hexdigest()


def action_tokens(config: AutoVlaConfig, tokenizer: Any, codebook: ActionCodebook) -> ActionTokens:
    """The actions of a checkpoint whose three parts belong together. Raises CheckpointError where they do not."""
    if len(codebook) != config.actions:
        raise CheckpointError(
            f"the codebook has {len(codebook)} actions, but the checkpoint was trained with {config.actions}; give the"
            " codebook that it was trained with"
        )
    if (found := codebook_hash(codebook)) != config.codebook_sha256:
        raise CheckpointError(
            f"the codebook's hash is {found[:12]}, but the checkpoint was trained with"
            f" {config.codebook_sha256[:12] or 'none'}: its actions would mean other motions; give the codebook that"
            " it was trained with"
        )
    try:
        actions = ActionTokens(tokenizer, codebook)
    except ActionTokenError as error:
        raise CheckpointError(str(error)) from error
    if actions.first_id != config.first_action_id:
        raise CheckpointError(
            f"the tokenizer's actions begin at id {actions.first_id}, but the checkpoint's at"
            f" {config.first_action_id}; take both of one checkpoint"
        )
    return actions


def empty_model(config: AutoVlaConfig) -> AutoVlaModel:
    """The model's keys and shapes, without memory for its weights. Raises CheckpointError."""
    return checkpoint.empty_network(lambda: AutoVlaModel(config))


def load_model(folder: Path) -> tuple[AutoVlaModel, str]:
    """The model of a checkpoint folder in the precision of its file, and the SHA-256 of its weights.

    Raises CheckpointError.
    """
    checkpoint.require(folder, checkpoint.CONFIG, checkpoint.WEIGHTS)
    config = load_config(folder)
    weights_hash = checkpoint.verified_hash(folder)
    model = empty_model(config)
    checkpoint.load_strictly(model, folder)
    model.tie_weights()
    # the rotary tables are no weights, so they are still on the meta device
    for part in (model.model.visual, model.model.language_model):
        name = "rotary_pos_emb" if part is model.model.visual else "rotary_emb"
        table = getattr(part, name)
        setattr(part, name, type(table)(table.config))
    return model, weights_hash


def load_config(folder: Path) -> AutoVlaConfig:
    """The configuration of a checkpoint folder. Raises CheckpointError."""
    return checkpoint.load_config(folder, parse_config)


def load_codebook(path: Path) -> ActionCodebook:
    """The codebook in an .npz file. Raises CheckpointError."""
    try:
        return ActionCodebook.load(path)
    except (ValueError, OSError) as error:
        raise CheckpointError(f"cannot read the action codebook {path}: {error}") from error


def save_model(model: AutoVlaModel, codebook: ActionCodebook, folder: Path, *, card: str) -> str:
    """Writes config.json, codebook, weights with checksum, and the card; returns the weights' SHA-256.

    The tokenizer's files are the caller's to write. Raises CheckpointError for a codebook that is not the model's.
    """
    if codebook_hash(codebook) != model.autovla_config.codebook_sha256:
        raise CheckpointError("the codebook is not the one of the model's configuration; save the one it learned with")
    folder.mkdir(parents=True, exist_ok=True)
    save_config(model.autovla_config, folder / checkpoint.CONFIG)
    codebook.save(folder / CODEBOOK)
    (folder / checkpoint.CARD).write_text(card)
    return checkpoint.save_weights(folder, model)


def random_model(config: AutoVlaConfig, seed: int) -> AutoVlaModel:
    """A model with seeded random weights, marked as not trained."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoVlaModel(replace(config, trained=False)).eval()
