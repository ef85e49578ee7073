"""The network: videos in the prompt as `transformers` reads them, presets, and checkpoint folders that fit or not."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from policies.autovla.tiny import embed_prompt, tiny_codebook, tiny_config, tiny_model, tiny_tokenizer, write_folder
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionPatchEmbed

from opendrivevla_ros.core.ego import Command
from opendrivevla_ros.language.action_codebook import ActionCodebook
from opendrivevla_ros.language.action_lattice import lattice
from opendrivevla_ros.language.decoder import Decoder
from opendrivevla_ros.policies import checkpoint
from opendrivevla_ros.policies.autovla import config as configs
from opendrivevla_ros.policies.autovla.config import ALL_CAMERAS, parse_config
from opendrivevla_ros.policies.autovla.inspection import inspect
from opendrivevla_ros.policies.autovla.loading import small_config
from opendrivevla_ros.policies.autovla.model import (
    CODEBOOK,
    VisionIds,
    empty_model,
    load_model,
    save_model,
)
from opendrivevla_ros.policies.autovla.prompt import PromptFields, chat_prompt, plan_message, tokenize
from opendrivevla_ros.policies.autovla.tokenizer import build_tokenizer
from opendrivevla_ros.policies.errors import CheckpointError
from opendrivevla_ros.policies.registry import load_policy
from opendrivevla_ros.policies.strict_json import to_plain


def prompt_ids(cameras: tuple[str, ...], video_tokens: int) -> list[int]:
    fields = PromptFields(5.0, -1.0, Command.KEEP_FORWARD)
    return tokenize(chat_prompt("You drive.", plan_message(fields, cameras)), tiny_tokenizer(), video_tokens)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"proposal_scales": ((0.1, 0.1),) * 6}, "needs a part that proposes; set config.sight_width"),
        ({"sight_width": 8, "proposal_scales": ((0.1, 0.1),) * 5}, "must be 6 pairs above 0, or empty"),
        ({"sight_width": 8, "proposal_scales": ((0.1, 0.0),) * 6}, "must be 6 pairs above 0, or empty"),
    ],
)
def test_errors_of_proposals_that_nothing_or_nobody_makes_are_refused(changes: dict, complaint: str):
    with pytest.raises(ValueError, match=complaint):
        tiny_config(**changes)


def video_patches(config, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    count = len(config.cameras) * config.video_tokens * config.vision.merge**2
    return torch.randn(count, 3 * 2 * 14 * 14, generator=generator)


@pytest.mark.parametrize("cameras", [configs.FRONT_CAMERAS, ALL_CAMERAS], ids=["three", "six"])
def test_the_fast_decoder_says_what_transformers_says_after_prompt_and_text(cameras: tuple[str, ...]) -> None:
    model = tiny_model(cameras=cameras)
    config, ids = model.autovla_config, prompt_ids(cameras, model.autovla_config.video_tokens)
    patches, vision = video_patches(config), VisionIds.of(tiny_tokenizer())
    following = [7, 300, 12, 45, 9]
    with torch.inference_mode():
        embeddings, positions = embed_prompt(model, ids, patches, vision)
        decoder = Decoder(model, max_length=512, rows=3)
        first = decoder.prefill(embeddings, prefix=ids[:5], positions=positions)
        decoder.step([following[:3]])
        decoder.fork(3)
        forked = decoder.step([following[3:], following[3:4], []])
        tokens = torch.tensor([[*ids, *following]])
        model.config.video_token_id = vision.video
        reference = model(
            input_ids=tokens,
            pixel_values_videos=patches,
            video_grid_thw=model._grid(tokens.device),
            mm_token_type_ids=2 * (tokens == vision.video).int(),
            second_per_grid_ts=torch.ones(len(cameras)),
        ).logits[0]
    found = torch.cat([first, forked[:2]]) @ model.lm_head.weight.detach().T
    expected = reference[[len(ids) - 1, -1, -2]]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert float((expected[1] - expected[2]).abs().max()) > 0.1  # or the comparison would say little


def test_a_prompt_with_pictures_does_not_shift_the_next_one_without() -> None:
    model = tiny_model()
    config, ids = model.autovla_config, prompt_ids(configs.FRONT_CAMERAS, model.autovla_config.video_tokens)
    decoder = Decoder(model, max_length=512)
    text = torch.randn(6, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        decoder.prefill(text)
        alone = decoder.step([[5]])
        embeddings, positions = embed_prompt(model, ids, video_patches(config), VisionIds.of(tiny_tokenizer()))
        decoder.prefill(embeddings, positions=positions)
        decoder.prefill(text)
        assert torch.equal(decoder.step([[5]]), alone)


def test_patches_are_embedded_as_transformers_convolves_them():
    model = tiny_model()
    vision, embedding = model.autovla_config.vision, model.model.visual.patch_embed
    patches = torch.randn(7, 3 * vision.temporal_patch * vision.patch**2)
    theirs = Qwen2_5_VisionPatchEmbed(vision.patch, vision.temporal_patch, 3, vision.hidden_size)
    assert not isinstance(embedding, type(theirs))
    theirs.load_state_dict(embedding.state_dict())
    torch.testing.assert_close(embedding(patches), theirs(patches))


# ------------------------------------------------------------------ presets


def test_base_has_the_published_entries_and_tokens() -> None:
    config = configs.base()
    shapes = checkpoint.expected_shapes(empty_model(config))
    assert len(shapes) == 825
    assert shapes["lm_head.weight"] == shapes["model.language_model.embed_tokens.weight"] == (153713, 2048)
    assert config.first_action_id + config.actions == 153713
    assert config.video_tokens == 240
    assert sum(name.startswith("model.visual.blocks.") for name in shapes) == 32 * 12


def test_small_fits_into_sixteen_megabytes() -> None:
    codebook = lattice()
    shapes = checkpoint.expected_shapes(empty_model(small_config(build_tokenizer(codebook), codebook)))
    assert 4 * sum(int(np.prod(shape)) for shape in shapes.values()) < 16e6


def test_a_configuration_comes_back_from_its_json() -> None:
    for config in (configs.base(), tiny_config(cameras=ALL_CAMERAS)):
        assert parse_config(json.loads(json.dumps({"policy": "autovla", **to_plain(config)}))) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cameras": ("cam_front",)}, "three or six"),
        ({"cameras": ("cam_front", "cam_front", "cam_back")}, "three or six different"),
        ({"cameras": ("cam_front", "cam_left", "cam_back")}, "'cam_left'"),
        ({"image_size": (400, 225)}, "multiples of 28"),
        ({"frames": 3}, "frames 3 must be a multiple of 2"),
        ({"first_action_id": 10**6}, "outside the vocabulary"),
    ],
)
def test_a_configuration_that_makes_no_model_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_config(**changes)


def test_sections_that_do_not_fill_half_a_head_are_refused() -> None:
    config = tiny_config()
    with pytest.raises(CheckpointError, match="half of a head's 16 numbers"):
        empty_model(replace(config, language=replace(config.language, mrope_section=(2, 3, 4))))


# ------------------------------------------------------------------ checkpoint folders


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "tiny")


def test_what_is_saved_is_loaded_and_drives(folder: Path) -> None:
    model, weights_hash = load_model(folder)
    assert model.autovla_config == replace(tiny_config(), trained=False)
    for name, tensor in tiny_model().state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    policy = load_policy(folder, samples=0)
    assert policy.info.weights_hash == weights_hash == checkpoint.sha256(folder / checkpoint.WEIGHTS)
    assert not policy.info.trained


def test_a_tied_head_is_stored_once_and_tied_again(tmp_path: Path) -> None:
    tied = tiny_model(language=replace(tiny_config().language, tied_embeddings=True))
    write_folder(tmp_path / "tied", tied)
    assert "lm_head.weight" not in checkpoint.shapes(tmp_path / "tied" / checkpoint.WEIGHTS)
    model, _ = load_model(tmp_path / "tied")
    assert model.lm_head.weight is model.model.language_model.embed_tokens.weight


def test_inspect_counts_by_room_and_finds_nothing_wrong(folder: Path) -> None:
    found = inspect(folder)
    assert found.problems == ()
    assert set(found.parameters) == {"vision", "language", "head"}
    assert found.parameters["head"] == 32 * len(tiny_tokenizer())


def other_codebook(count: int) -> ActionCodebook:
    return ActionCodebook(tiny_codebook().contours[:count] + 0.001 * (count == len(tiny_codebook())))


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (100, "has 100 actions, but the checkpoint was trained with"),
        (len(tiny_codebook()), "would mean other motions"),
    ],
    ids=["shorter", "moved"],
)
def test_a_codebook_of_another_checkpoint_is_refused(folder: Path, count: int, message: str) -> None:
    other_codebook(count).save(folder / CODEBOOK)
    with pytest.raises(CheckpointError, match=message):
        load_policy(folder)
    assert any(message in problem for problem in inspect(folder).problems)


def test_a_codebook_of_another_model_is_not_saved_with_it(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not the one of the model's configuration"):
        save_model(tiny_model(), other_codebook(100), tmp_path / "tiny", card="")
    assert not (tmp_path / "tiny").exists()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / CODEBOOK).unlink(), "lacks action_codebook.npz"),
        (lambda folder: (folder / CODEBOOK).write_bytes(b"none"), "cannot read the action codebook"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "lacks tokenizer.json"),
        (lambda folder: (folder / checkpoint.WEIGHTS).write_bytes(b"short"), "truncated or was changed"),
        (lambda folder: build_tokenizer(other_codebook(100), words=500).save_pretrained(folder), "do not belong"),
    ],
    ids=["no_codebook", "no_archive", "no_tokenizer", "short_weights", "other_tokenizer"],
)
def test_a_folder_with_a_broken_part_is_refused_in_one_sentence(folder: Path, spoil, message: str) -> None:
    spoil(folder)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_policy(folder)
    assert "\n" not in str(caught.value)
    assert inspect(folder).problems


def test_actions_at_other_ids_than_the_checkpoints_are_refused(folder: Path) -> None:
    build_tokenizer(tiny_codebook(), words=480).save_pretrained(folder)
    with pytest.raises(CheckpointError, match="the tokenizer's actions begin at id"):
        load_policy(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.pop("cameras"), "lacks the keys"),
        (lambda data: data.update(wings=2), "unknown keys"),
        (lambda data: data.update(image_size=[400, 225]), "multiples of 28"),
        (lambda data: data["language"].update(layers=3), "lacks"),
    ],
)
def test_a_configuration_that_does_not_fit_the_weights_is_refused(folder: Path, change, message: str) -> None:
    data = json.loads((folder / "config.json").read_text())
    change(data)
    (folder / "config.json").write_text(json.dumps(data))
    with pytest.raises(CheckpointError, match=message):
        load_policy(folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"cameras": 4}, "3 or 6"), ({"blind": True}, "no option 'blind'"), ({"samples": -1}, "0 to 64")],
)
def test_options_that_the_policy_does_not_have_are_refused(folder: Path, options: dict, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_policy(folder, **options)
