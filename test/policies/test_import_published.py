"""Published folders into checkpoint folders: complete, or refused with the reason and nothing written."""

import hashlib
import json
import os
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from policies.observations import make_observation
from policies.published import TOKENIZER, published_state, tiny_model, tiny_perception, write_published

from opendrivevla_ros.language import system_text
from opendrivevla_ros.language.small_tokenizer import load_tokenizer
from opendrivevla_ros.policies.errors import CheckpointError
from opendrivevla_ros.policies.opendrivevla.import_published import Imported, download, import_published
from opendrivevla_ros.policies.opendrivevla.model import OpenDriveVlaModel, load_model
from opendrivevla_ros.policies.registry import load_policy


@pytest.fixture(scope="module")
def model() -> OpenDriveVlaModel:
    return tiny_model()


def convert(source: Path, folder: Path, **options: object) -> Imported:
    return import_published(source, folder, perception=tiny_perception(), **options)


def refused(source: Path, folder: Path, message: str, **options: object) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        convert(source, folder, **options)
    assert "\n" not in str(caught.value)
    assert not folder.exists() or [path.name for path in folder.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(("kind", "shards"), [("safetensors", 1), ("safetensors", 3), ("bin", 1), ("bin", 2)])
def test_every_published_layout_gives_the_same_weights(model, kind: str, shards: int, tmp_path: Path) -> None:
    source = write_published(tmp_path / "published", model, kind=kind, shards=shards)
    seen = []
    imported = convert(source, tmp_path / "own", progress=lambda done, total: seen.append((done, total)))
    loaded, weights_hash = load_model(tmp_path / "own")
    assert weights_hash == imported.weights_hash
    state = loaded.state_dict()
    assert set(state) == set(model.state_dict())
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    assert seen[-1][0] == seen[-1][1] > 0


def test_what_only_the_checkpoint_tells_is_read_from_it(model: OpenDriveVlaModel, tmp_path: Path) -> None:
    config = convert(write_published(tmp_path / "published", model), tmp_path / "own").config
    assert config.trained
    assert config.language.vocabulary_size == model.config.language.vocabulary_size
    assert config.language.projector == "mlp2x_gelu"
    assert config.language.max_prompt_tokens == 900
    assert config.eos_ids == (model.config.eos_ids[0], 0)
    assert config.repetition_penalty == 1.1
    assert config.perception.map_attention_levels == 4
    assert config.perception.quirks.misstrided_map_attention


def test_an_imported_checkpoint_plans(model: OpenDriveVlaModel, tmp_path: Path) -> None:
    convert(write_published(tmp_path / "published", model), tmp_path / "own")
    policy = load_policy(tmp_path / "own", samples=0)
    assert policy.info.trained
    assert len(policy.plan(make_observation()).trajectory) == 6
    assert "not trained with" in (tmp_path / "own" / "README.md").read_text()


def test_a_map_head_built_for_one_level_gets_ordinary_attention(tmp_path: Path) -> None:
    config = tiny_model().config
    one_level = OpenDriveVlaModel(replace(config, perception=replace(config.perception, map_attention_levels=1)))
    perception = convert(write_published(tmp_path / "published", one_level), tmp_path / "own").config.perception
    assert perception.map_attention_levels == 1
    assert not perception.quirks.misstrided_map_attention


@pytest.mark.parametrize("projector", ["linear", "qwen2_5_rms", "mlp2x_res1x_gelu"])
def test_every_projector_type_is_imported(projector: str, tmp_path: Path) -> None:
    source = write_published(tmp_path / "published", tiny_model(projector=projector))
    assert convert(source, tmp_path / "own").config.language.projector == projector


def test_a_stored_head_is_left_out_when_tied_and_kept_when_not(model: OpenDriveVlaModel, tmp_path: Path) -> None:
    state = published_state(model)
    state["lm_head.weight"] = state["model.embed_tokens.weight"].clone()
    tied = convert(write_published(tmp_path / "tied", model, state=state), tmp_path / "own_tied")
    assert any("tied" in note or "ties" in note for note in tied.notes)
    untied_model = tiny_model(tied_embeddings=False)
    convert(write_published(tmp_path / "untied", untied_model), tmp_path / "own_untied")
    loaded, _ = load_model(tmp_path / "own_untied")
    assert torch.equal(loaded.language.lm_head.weight, untied_model.language.lm_head.weight)


def test_batch_counters_that_were_dropped_are_filled_in_and_said_so(model, tmp_path: Path) -> None:
    state = {name: t for name, t in published_state(model).items() if not name.endswith("num_batches_tracked")}
    imported = convert(write_published(tmp_path / "published", model, state=state), tmp_path / "own")
    assert any("batch counters" in note for note in imported.notes)
    load_model(tmp_path / "own")


@pytest.mark.parametrize("perception_only", [True, False])
def test_a_uniad_file_gives_perception_alone(model, perception_only: bool, tmp_path: Path) -> None:
    state = {name.removeprefix("perception."): t for name, t in model.state_dict().items() if "perception." in name}
    source = tmp_path / "stage1.pth"
    torch.save({"meta": {"epoch": 6}, "state_dict": state, "optimizer": {"state": {}}}, source)
    imported = convert(source, tmp_path / "own", perception_only=perception_only)
    assert imported.config.language is None
    loaded, _ = load_model(tmp_path / "own")
    assert loaded.language is None
    assert all(torch.equal(loaded.perception.state_dict()[name], tensor) for name, tensor in state.items())
    with pytest.raises(CheckpointError, match="perception alone"):
        load_policy(tmp_path / "own")


def test_perception_alone_can_be_taken_from_a_whole_checkpoint(model, tmp_path: Path) -> None:
    imported = convert(write_published(tmp_path / "published", model), tmp_path / "own", perception_only=True)
    assert imported.config.language is None
    assert not (tmp_path / "own" / "tokenizer.json").exists()


def test_a_tokenizer_in_vocab_and_merges_files_is_converted(model: OpenDriveVlaModel, tmp_path: Path) -> None:
    source = write_published(tmp_path / "published", model)
    data = json.loads((source / "tokenizer.json").read_text())
    (source / "tokenizer.json").unlink()
    (source / "vocab.json").write_text(json.dumps(data["model"]["vocab"]))
    (source / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, data["model"]["merges"])]))
    added = {str(token.pop("id")): token for token in data["added_tokens"]}
    settings = {"tokenizer_class": "Qwen2Tokenizer", "added_tokens_decoder": added, "eos_token": "<|im_end|>"}
    (source / "tokenizer_config.json").write_text(json.dumps(settings))
    convert(source, tmp_path / "own")
    text = "Steering: (1.93)<traj_start>[(0.01,-2.20)"
    assert load_tokenizer(tmp_path / "own").encode(text) == TOKENIZER.encode(text)


# ------------------------------------------------------------------ refused


class Code:
    """What an attacker's pickle does when it is loaded."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ('touch "$MARKER"',)


def test_a_pickle_with_code_is_refused_by_name_and_never_run(model, tmp_path: Path, monkeypatch) -> None:
    marker = tmp_path / "pickle_ran"
    monkeypatch.setenv("MARKER", str(marker))
    source = write_published(tmp_path / "published", model, kind="bin", shards=1)
    torch.save({"model.norm.weight": torch.zeros(3), "payload": Code()}, source / "pytorch_model.bin")
    refused(source, tmp_path / "own", r"asks for \w+\.system, which is code")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Code()))
    refused(tmp_path / "plain.pth", tmp_path / "own2", "not a whole PyTorch file")
    torch.save({"state_dict": {}, "meta": Code()}, tmp_path / "stage1.pth")
    refused(tmp_path / "stage1.pth", tmp_path / "own3", r"asks for \w+\.system, which is code")
    assert not marker.exists()


def test_a_truncated_safetensors_shard_is_refused(model: OpenDriveVlaModel, tmp_path: Path) -> None:
    source = write_published(tmp_path / "published", model)
    shard = source / "part-1.safetensors"
    shard.write_bytes(shard.read_bytes()[:-100])
    refused(source, tmp_path / "own", "part-1.safetensors is not a whole safetensors file")


def test_a_truncated_pytorch_file_is_refused(model: OpenDriveVlaModel, tmp_path: Path) -> None:
    source = write_published(tmp_path / "published", model, kind="bin")
    shard = source / "part-0.bin"
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    refused(source, tmp_path / "own", "part-0.bin is not a whole PyTorch file")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04"])
def test_a_file_that_is_no_checkpoint_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file.pth").write_bytes(content)
    refused(tmp_path / "file.pth", tmp_path / "own", "file.pth is not a whole PyTorch file")


def test_a_pytorch_file_without_named_tensors_is_refused(tmp_path: Path) -> None:
    for content in ([torch.zeros(2)], {"state_dict": {"step": 3}}, {}):
        torch.save(content, tmp_path / "file.pth")
        refused(tmp_path / "file.pth", tmp_path / "own", "holds no dictionary of named tensors")


def test_a_zip_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "file.pth", "w") as archive:
        archive.writestr("readme.txt", "hello")
    refused(tmp_path / "file.pth", tmp_path / "own", "not a whole PyTorch file")


def test_a_missing_entry_is_named(model: OpenDriveVlaModel, tmp_path: Path) -> None:
    state = published_state(model)
    del state["model.layers.1.mlp.up_proj.weight"]
    source = write_published(tmp_path / "published", model, state=state)
    refused(source, tmp_path / "own", "lacks the entry language.model.layers.1.mlp.up_proj.weight")


def test_an_unexpected_entry_is_named(model: OpenDriveVlaModel, tmp_path: Path) -> None:
    state = {**published_state(model), "model.layers.9.extra": torch.zeros(1)}
    source = write_published(tmp_path / "published", model, state=state)
    refused(source, tmp_path / "own", "holds the entry language.model.layers.9.extra")


def test_a_wrong_shape_is_named_with_both_shapes(model: OpenDriveVlaModel, tmp_path: Path) -> None:
    state = published_state(model)
    state["model.norm.weight"] = torch.zeros(31)
    source = write_published(tmp_path / "published", model, state=state)
    refused(source, tmp_path / "own", r"language.model.norm.weight has shape \[31\], .* needs \[32\]")


def edit_config(source: Path, **changes: object) -> None:
    data = json.loads((source / "config.json").read_text())
    data.update(changes)
    (source / "config.json").write_text(json.dumps({k: v for k, v in data.items() if v is not None}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "llama"}, "model_type 'llama', but OpenDriveVLA is 'llava_qwen'"),
        ({"mm_vision_tower": "clip"}, "mm_vision_tower 'clip', not uniad_track_map"),
        ({"mm_projector_type": "resampler"}, "unknown projector type 'resampler'"),
        ({"mm_projector_type": None}, "lacks mm_projector_type"),
        ({"hidden_size": "wide"}, "not usable"),
        ({"num_hidden_layers": 3}, "lacks 12 entries"),
        ({"num_attention_heads": 5}, "describes no network|has shape"),
    ],
)
def test_a_published_config_that_does_not_fit_is_refused(model, changes: dict, message: str, tmp_path: Path) -> None:
    source = write_published(tmp_path / "published", model)
    edit_config(source, **changes)
    refused(source, tmp_path / "own", message)


def test_an_end_token_outside_the_embedding_is_refused(model: OpenDriveVlaModel, tmp_path: Path) -> None:
    source = write_published(tmp_path / "published", model)
    (source / "generation_config.json").write_text('{"eos_token_id": 151645}')
    refused(source, tmp_path / "own", "end token 151645 is outside")


def test_a_folder_without_tokenizer_or_weights_or_shards_is_refused(model: OpenDriveVlaModel, tmp_path: Path) -> None:
    source = write_published(tmp_path / "published", model)
    (source / "tokenizer.json").rename(tmp_path / "kept")
    refused(source, tmp_path / "own", "lacks a tokenizer")
    (source / "part-0.safetensors").unlink()
    refused(source, tmp_path / "own2", "lacks the shard part-0.safetensors")
    (source / "model.safetensors.index.json").unlink()
    refused(source, tmp_path / "own3", "holds none of model.safetensors, pytorch_model.bin")
    (source / "config.json").unlink()
    refused(source, tmp_path / "own4", "lacks config.json")
    refused(tmp_path / "nowhere", tmp_path / "own5", "does not exist")


def test_an_index_that_leads_out_of_its_folder_is_refused(model: OpenDriveVlaModel, tmp_path: Path) -> None:
    source = write_published(tmp_path / "published", model)
    index = source / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"model.norm.weight": "../../secret.safetensors"}}))
    refused(source, tmp_path / "own", "not a file name in its own folder")


def test_a_system_text_that_is_not_the_published_one_is_refused(model: OpenDriveVlaModel, tmp_path: Path) -> None:
    source = write_published(tmp_path / "published", model)
    (tmp_path / "conversation.py").write_text('conv_qwen_planning_oriented_vlm = Conversation(system="hello")\n')
    refused(source, tmp_path / "own", "SHA-256", system_text=tmp_path / "conversation.py")


def test_the_published_system_text_goes_into_the_configuration(model, tmp_path: Path, monkeypatch) -> None:
    text = "You drive.\nAnswer with waypoints."
    monkeypatch.setattr(
        system_text, "PUBLISHED_SHA256", hashlib.sha256((system_text.HEADER + text).encode()).hexdigest()
    )
    conversation = tmp_path / "conversation.py"
    conversation.write_text(f"conv_qwen_planning_oriented_vlm = Conversation(system={system_text.HEADER + text!r})\n")
    source = write_published(tmp_path / "published", model)
    imported = convert(source, tmp_path / "own", system_text=conversation)
    assert imported.config.system_text == text
    assert not any("own stands in the prompt" in note for note in imported.notes)


def test_an_output_folder_in_use_is_not_written_to(model: OpenDriveVlaModel, tmp_path: Path) -> None:
    source = write_published(tmp_path / "published", model)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "thesis.txt").write_text("mine")
    refused(source, tmp_path / "own", "is not empty")


@pytest.mark.parametrize("hub_id", ["no_such_folder", "a/b/c", "../escape", "owner/na me"])
def test_what_is_neither_a_path_nor_a_hub_id_is_refused(hub_id: str) -> None:
    with pytest.raises(CheckpointError, match="neither an existing path nor a Hugging Face id"):
        download(hub_id)
