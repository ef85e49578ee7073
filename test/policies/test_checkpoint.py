"""Checkpoint folders: written and read back strictly."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from policies.observations import make_observation
from policies.published import TOKENIZER
from safetensors.torch import load_file, save_file

from opendrivevla_ros.policies import checkpoint
from opendrivevla_ros.policies.errors import CheckpointError
from opendrivevla_ros.policies.opendrivevla import config as configs
from opendrivevla_ros.policies.opendrivevla.config import save_config
from opendrivevla_ros.policies.opendrivevla.model import OpenDriveVlaModel, load_model, random_model, save_model
from opendrivevla_ros.policies.registry import load_policy


@pytest.fixture(scope="module")
def model() -> OpenDriveVlaModel:
    return random_model(configs.small(len(TOKENIZER), TOKENIZER.eos_token_id), seed=3)


@pytest.fixture
def folder(model: OpenDriveVlaModel, tmp_path: Path) -> Path:
    save_model(model, tmp_path / "small", card="# small\n")
    TOKENIZER.save_pretrained(tmp_path / "small")
    return tmp_path / "small"


def refused(folder: Path, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        load_policy(folder)
    assert "\n" not in str(caught.value)


def rewrite(folder: Path, change) -> None:
    """Changes the weights and writes a checksum that fits them."""
    state = load_file(folder / checkpoint.WEIGHTS)
    change(state)
    save_file(state, folder / checkpoint.WEIGHTS)
    digest = checkpoint.sha256(folder / checkpoint.WEIGHTS)
    (folder / checkpoint.CHECKSUM).write_text(f"{digest}  {checkpoint.WEIGHTS}\n")


def test_a_saved_folder_drives_as_the_model_that_was_saved(model: OpenDriveVlaModel, folder: Path) -> None:
    policy = load_policy(folder, samples=0)
    assert policy.info.weights_hash == checkpoint.sha256(folder / checkpoint.WEIGHTS)
    assert not policy.info.trained
    again = load_policy(folder, samples=0)
    observation = make_observation()
    np.testing.assert_array_equal(policy.plan(observation).trajectory.xy, again.plan(observation).trajectory.xy)
    loaded, _ = load_model(folder)
    state = loaded.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())


def test_the_weights_file_is_plain_safetensors_with_a_tied_head_stored_once(model, folder: Path) -> None:
    state = load_file(folder / checkpoint.WEIGHTS)
    assert set(model.state_dict()) - set(state) == {"language.lm_head.weight"}


def test_weights_in_half_precision_are_loaded_too(folder: Path) -> None:
    rewrite(folder, lambda state: state.update({k: t.bfloat16() for k, t in state.items() if t.is_floating_point()}))
    policy = load_policy(folder, samples=0, precision="bfloat16")
    assert len(policy.plan(make_observation()).trajectory) == 6


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "model.safetensors.sha256", "tokenizer.json"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    refused(folder, f"lacks {name}")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "nowhere.* is neither a checkpoint folder nor a policy name")


def test_a_truncated_weights_file_is_refused_by_its_hash(folder: Path) -> None:
    weights = folder / checkpoint.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1])
    refused(folder, "has SHA-256 .* truncated or was changed")


def test_a_file_that_was_truncated_before_it_was_hashed_is_refused(folder: Path) -> None:
    weights = folder / checkpoint.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:5000])
    (folder / checkpoint.CHECKSUM).write_text(checkpoint.sha256(weights))
    refused(folder, "is not a whole safetensors file")


def test_a_changed_byte_is_noticed(folder: Path) -> None:
    weights = folder / checkpoint.WEIGHTS
    data = bytearray(weights.read_bytes())
    data[-10] ^= 1
    weights.write_bytes(data)
    refused(folder, "was changed")


def test_a_missing_entry_of_a_folder_is_named(folder: Path) -> None:
    rewrite(folder, lambda state: state.pop("perception.reference_points.weight"))
    refused(folder, "lacks the entry perception.reference_points.weight")


def test_an_entry_without_a_place_is_named(folder: Path) -> None:
    rewrite(folder, lambda state: state.update(surprise=torch.zeros(1)))
    refused(folder, "holds the entry surprise, for which the configuration has no place")


def test_an_entry_of_another_shape_is_named(folder: Path) -> None:
    rewrite(folder, lambda state: state.update({"perception.reference_points.bias": torch.zeros(4)}))
    refused(folder, r"reference_points.bias has shape \[4\], but the configuration needs \[3\]")


def test_a_configuration_of_another_size_does_not_fit_the_weights(model: OpenDriveVlaModel, folder: Path) -> None:
    config = replace(model.config, perception=replace(model.config.perception, queries=41))
    save_config(config, folder / "config.json")
    refused(folder, r"query_embedding.weight has shape \[201, 128\], but the configuration needs \[42, 128\]")


def test_a_configuration_that_contradicts_itself_is_refused(model: OpenDriveVlaModel, folder: Path) -> None:
    config = replace(model.config, perception=replace(model.config.perception, embed_dim=48))
    save_config(config, folder / "config.json")
    refused(folder, "feature_size 64 is not config.perception.embed_dim 48")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"policy": "other"}', "\xff"])
def test_a_broken_configuration_is_refused(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text, encoding="latin-1")
    refused(folder, "config.json")


def test_a_broken_tokenizer_is_refused(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")
    refused(folder, "the tokenizer in .* cannot be read")


def test_a_tokenizer_with_more_tokens_than_the_embedding_has_rows_is_refused(model, tmp_path: Path) -> None:
    config = configs.small(len(TOKENIZER) - 1, TOKENIZER.eos_token_id)
    save_model(random_model(config, 0), tmp_path, card="")
    TOKENIZER.save_pretrained(tmp_path)
    refused(tmp_path, f"has {len(TOKENIZER)} tokens, but the embedding {len(TOKENIZER) - 1} rows")
