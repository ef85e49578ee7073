"""The published weights into a checkpoint folder: every name in its place, strictly, or one sentence and no folder."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from full_disk import files_limited_to
from policies.autovla.published import published_state
from policies.autovla.tiny import tiny_codebook, tiny_config, tiny_model, tiny_tokenizer
from policies.observations import make_observation
from safetensors.torch import save_file
from torch import Tensor

from opendrivevla_ros.language.action_codebook import ActionCodebook
from opendrivevla_ros.language.small_tokenizer import END_OF_TEXT, train_tokenizer
from opendrivevla_ros.policies.autovla.import_published import Imported, import_published
from opendrivevla_ros.policies.autovla.model import load_model
from opendrivevla_ros.policies.errors import CheckpointError
from opendrivevla_ros.policies.registry import load_policy


@pytest.fixture
def parts(tmp_path: Path) -> dict[str, Path]:
    """The published file, a tokenizer with actions, and their codebook."""
    torch.save({"state_dict": published_state()}, tmp_path / "AutoVLA-tiny.ckpt")
    tiny_tokenizer().save_pretrained(str(tmp_path / "tokenizer"))
    tiny_codebook().save(tmp_path / "codebook.npz")
    return {
        "source": tmp_path / "AutoVLA-tiny.ckpt",
        "tokenizer": tmp_path / "tokenizer",
        "codebook": tmp_path / "codebook.npz",
    }


def convert(parts: dict[str, Path], folder: Path, **changes: object) -> Imported:
    given = {"config": tiny_config(), **parts, **changes}
    return import_published(given.pop("source"), folder, **given)


def refused(parts: dict[str, Path], folder: Path, message: str, **changes: object) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        convert(parts, folder, **changes)
    assert "\n" not in str(caught.value)
    assert not folder.exists()


def rewritten(parts: dict[str, Path], state: dict[str, Tensor]) -> dict[str, Path]:
    torch.save({"state_dict": state}, parts["source"])
    return parts


def test_every_published_entry_finds_its_place_in_bfloat16(parts: dict[str, Path], tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    imported = convert(parts, tmp_path / "own", progress=lambda done, total: seen.append((done, total)))
    model, weights_hash = load_model(tmp_path / "own")
    assert weights_hash == imported.weights_hash
    expected = tiny_model().state_dict()
    assert set(model.state_dict()) == set(expected)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, expected[name].to(torch.bfloat16)), name
    assert seen[-1][0] == seen[-1][1] > 0


def test_an_imported_checkpoint_plans_with_the_fields_it_was_trained_with(parts, tmp_path: Path) -> None:
    config = convert(parts, tmp_path / "own").config
    assert config.model_id == "AutoVLA-tiny"
    assert config.trained
    assert not config.signed_acceleration
    assert not config.tells_history
    assert not config.language.tied_embeddings
    plan = load_policy(tmp_path / "own", samples=0).plan(make_observation())
    assert len(plan.trajectory) == 10
    assert "not trained with" in (tmp_path / "own" / "README.md").read_text()


def test_safetensors_with_the_same_names_are_taken_too(parts: dict[str, Path], tmp_path: Path) -> None:
    save_file(published_state(), tmp_path / "AutoVLA.safetensors")
    convert({**parts, "source": tmp_path / "AutoVLA.safetensors"}, tmp_path / "safe")
    convert(parts, tmp_path / "pickled")
    safe, pickled = (load_model(tmp_path / name)[0].state_dict() for name in ("safe", "pickled"))
    assert all(torch.equal(safe[name], tensor) for name, tensor in pickled.items())


@pytest.mark.parametrize("stored", [True, False], ids=["stored", "left_out"])
def test_a_head_that_is_the_embedding_is_tied_to_it(parts: dict[str, Path], stored: bool, tmp_path: Path) -> None:
    state = published_state()
    state["autovla.vlm.lm_head.weight"] = state["autovla.vlm.model.embed_tokens.weight"].clone()
    if not stored:
        del state["autovla.vlm.lm_head.weight"]
    assert convert(rewritten(parts, state), tmp_path / "own").config.language.tied_embeddings
    model, _ = load_model(tmp_path / "own")
    assert model.lm_head.weight is model.model.language_model.embed_tokens.weight


def test_action_tokens_are_added_to_a_tokenizer_without(parts: dict[str, Path], tmp_path: Path) -> None:
    vision = ["<|vision_start|>", "<|vision_end|>", "<|video_pad|>", "<|im_start|>", "<|im_end|>"]
    bare = train_tokenizer(["a road", "The final output"] * 9, [END_OF_TEXT, *vision], 500)
    bare.save_pretrained(str(tmp_path / "bare"))
    first_id = len(bare)
    config = tiny_config()
    assert first_id < config.first_action_id
    refused({**parts, "tokenizer": tmp_path / "bare"}, tmp_path / "own", f"actions begin at id {first_id}")
    # the same checkpoint, had it been trained on that tokenizer
    moved = tiny_config(first_action_id=first_id)
    imported = convert({**parts, "tokenizer": tmp_path / "bare"}, tmp_path / "own", config=moved)
    assert any(f"{config.actions} action tokens were added" in note for note in imported.notes)


def test_contours_of_every_tenth_of_a_second_are_taken_at_their_end(parts: dict[str, Path], tmp_path: Path) -> None:
    ends = tiny_codebook().contours
    np.save(tmp_path / "steps.npy", np.stack([ends * share for share in (0.2, 0.4, 0.6, 0.8, 1.0)], axis=1))
    found = convert({**parts, "codebook": tmp_path / "steps.npy"}, tmp_path / "own")
    assert found.config.codebook_sha256 == tiny_config().codebook_sha256


def plain_state(rows: int) -> dict[str, Tensor]:
    """The weights as Qwen2.5-VL's own, with an embedding of so many rows."""
    state = {name.removeprefix("autovla.vlm."): tensor for name, tensor in published_state().items()}
    for table in ("model.embed_tokens.weight", "lm_head.weight"):
        state[table] = state[table][:rows].clone()
    return state


def test_qwens_weights_get_rows_for_actions_and_count_as_untrained(parts: dict[str, Path], tmp_path: Path) -> None:
    config = tiny_config()
    first, count = config.first_action_id, config.actions
    save_file(plain_state(first + 3), tmp_path / "Qwen.safetensors")  # as published, with more rows than words
    given = {**parts, "source": tmp_path / "Qwen.safetensors"}
    unaware = replace(config, language=replace(config.language, vocabulary_size=5000), actions=7, first_action_id=9)
    imported = convert(given, tmp_path / "own", config=unaware)
    assert not imported.config.trained
    assert imported.config.signed_acceleration
    assert imported.config.tells_history
    assert (imported.config.first_action_id, imported.config.actions) == (first, count)
    assert any("train it before it drives" in note for note in imported.notes)
    model, _ = load_model(tmp_path / "own")
    for own, published in (
        (model.lm_head.weight, "lm_head"),
        (model.get_input_embeddings().weight, "model.embed_tokens"),
    ):
        words = plain_state(first)[f"{published}.weight"]
        assert torch.equal(own[:first], words.bfloat16())
        torch.testing.assert_close(own[first:].float(), words.mean(0).expand(count, -1), atol=1e-2, rtol=1e-2)
    assert load_policy(tmp_path / "own", samples=0).plan(make_observation()).trajectory.xy.shape == (10, 2)
    save_file(plain_state(first - 1), tmp_path / "Qwen.safetensors")
    refused(given, tmp_path / "short", f"has {first - 1} rows, but the tokenizer {first} words", config=unaware)


# ------------------------------------------------------------------ refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("autovla.vlm.model.norm.weight"), "lacks the entry model.language_model.norm.weight"),
        (lambda s: s.pop("autovla.vlm.model.embed_tokens.weight"), "no whole AutoVLA or Qwen2.5-VL checkpoint"),
        (lambda s: s.update({"autovla.vlm.model.extra": torch.zeros(1)}), "no place"),
        (lambda s: s.update({"visual.extra": torch.zeros(1)}), "begins with autovla.vlm."),
        (
            lambda s: s.update({"autovla.vlm.lm_head.weight": s["autovla.vlm.lm_head.weight"][:-1].clone()}),
            "lm_head.weight has shape",
        ),
    ],
    ids=["missing", "no_embedding", "unexpected", "no_prefix", "vocabulary"],
)
def test_weights_that_are_not_exactly_the_models_are_refused(parts, change, message: str, tmp_path: Path) -> None:
    state = published_state()
    change(state)
    refused(rewritten(parts, state), tmp_path / "own", message)


@pytest.mark.parametrize("part", ["source", "tokenizer", "codebook"])
def test_a_part_that_is_not_there_is_named(parts: dict[str, Path], part: str, tmp_path: Path) -> None:
    refused({**parts, part: tmp_path / "nowhere.npz"}, tmp_path / "own", "nowhere.npz")


def test_a_codebook_of_another_size_is_refused(parts: dict[str, Path], tmp_path: Path) -> None:
    ActionCodebook(tiny_codebook().contours[:100]).save(parts["codebook"])
    refused(parts, tmp_path / "own", "the codebook has 100 actions")


def test_a_codebook_that_holds_code_is_not_read(parts: dict[str, Path], tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([print], dtype=object), allow_pickle=True)
    refused({**parts, "codebook": tmp_path / "objects.npy"}, tmp_path / "own", "cannot read the action codebook")


def test_a_disk_that_fills_leaves_nothing_of_an_import(parts: dict[str, Path], tmp_path: Path) -> None:
    convert(parts, tmp_path / "whole")
    size = (tmp_path / "whole" / "model.safetensors").stat().st_size
    with files_limited_to(size - 1):
        refused(parts, tmp_path / "own", r"own cannot be written \(File too large\); free disk space and run the")
    assert not list(tmp_path.glob("own*"))
    convert(parts, tmp_path / "own")


def test_a_folder_in_use_is_left_alone(parts: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "thesis.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="is not empty"):
        convert(parts, tmp_path / "own")
    assert [path.name for path in (tmp_path / "own").iterdir()] == ["thesis.txt"]
