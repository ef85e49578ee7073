"""`odv checkpoint import` and `inspect`."""

from pathlib import Path

import pytest
import torch
from policies.autovla.published import published_state
from policies.autovla.tiny import tiny_codebook, tiny_config, tiny_tokenizer
from policies.published import TOKENIZER, tiny_model, tiny_perception, write_published
from typer.testing import CliRunner

from opendrivevla_ros.cli.checkpoint import app
from opendrivevla_ros.policies import checkpoint
from opendrivevla_ros.policies.autovla import config as autovla_configs
from opendrivevla_ros.policies.opendrivevla import config as configs
from opendrivevla_ros.policies.opendrivevla import import_published as importing
from opendrivevla_ros.policies.opendrivevla.model import random_model, save_model

run = CliRunner().invoke


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(random_model(configs.small(len(TOKENIZER), TOKENIZER.eos_token_id), 0), tmp_path / "small", card="")
    TOKENIZER.save_pretrained(tmp_path / "small")
    return tmp_path / "small"


def test_import_then_inspect_tells_what_was_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = configs.OpenDriveVlaConfig(perception=tiny_perception())
    monkeypatch.setattr(importing.configs, "base", lambda: base)
    source = write_published(tmp_path / "OpenDriveVLA-tiny", tiny_model())
    result = run(app, ["import", str(source), "-o", str(tmp_path / "own")])
    assert result.exit_code == 0, result.output
    assert "repetition penalty 1.1" in result.output
    digest = checkpoint.sha256(tmp_path / "own" / checkpoint.WEIGHTS)
    assert digest in result.output
    result = run(app, ["inspect", str(tmp_path / "own")])
    assert result.exit_code == 0, result.output
    assert "OpenDriveVLA-tiny: trained" in result.output
    assert digest in result.output


def test_inspect_prints_sizes_types_and_parameters_by_room(folder: Path) -> None:
    result = run(app, ["inspect", str(folder)])
    assert result.exit_code == 0, result.output
    assert "NOT trained" in result.output
    for word in ("model.safetensors", "float32", "perception", "projectors", "language"):
        assert word in result.output
    assert f"{(folder / 'model.safetensors').stat().st_size:,}" in result.output


def test_inspect_names_everything_that_is_wrong_and_exits_1(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "model.safetensors").write_bytes(b"short")
    result = run(app, ["inspect", str(folder)])
    assert result.exit_code == 1
    assert "lacks tokenizer.json" in result.output
    assert "truncated or was changed" in result.output


@pytest.mark.parametrize(
    "arguments",
    [["inspect", "no/such/folder/here"], ["import", "no such thing", "-o", "out"]],
)
def test_a_path_that_leads_nowhere_is_one_sentence_and_exit_1(arguments: list[str]) -> None:
    result = run(app, arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_file_that_is_no_checkpoint_is_refused_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(b"not weights")
    result = run(app, ["import", str(tmp_path / "weights.pth"), "-o", str(tmp_path / "own")])
    assert result.exit_code == 1
    assert "not a whole PyTorch file" in result.stderr
    assert not (tmp_path / "own").exists()


def test_autovla_is_imported_with_its_codebook_and_inspected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config()
    monkeypatch.setattr(autovla_configs, "base", lambda: config)
    state = published_state()
    torch.save(state, tmp_path / "AutoVLA.ckpt")
    tiny_tokenizer().save_pretrained(str(tmp_path / "tokenizer"))
    tiny_codebook().save(tmp_path / "codebook.npz")
    given = ["import", str(tmp_path / "AutoVLA.ckpt"), "-o", str(tmp_path / "own")]
    alone = run(app, [*given, "--codebook", str(tmp_path / "codebook.npz")])
    assert alone.exit_code == 1
    assert "give --codebook and --tokenizer" in alone.stderr
    both = ["--codebook", str(tmp_path / "codebook.npz"), "--tokenizer", str(tmp_path / "tokenizer")]
    result = run(app, [*given, *both])
    assert result.exit_code == 0, result.output
    assert "not the embedding" in result.output
    result = run(app, ["inspect", str(tmp_path / "own")])
    assert result.exit_code == 0, result.output
    assert "AutoVLA: trained" in result.output
    for word in ("vision", "head", "bfloat16", "action_codebook.npz"):
        assert word in result.output
