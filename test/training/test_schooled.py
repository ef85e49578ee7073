"""Weights that cannot drive by the truth; that those of schooling do is in test_recipe_run."""

from pathlib import Path

import pytest
import torch

from opendrivevla_ros.language.small_tokenizer import build_small_tokenizer
from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.training.schooled import Schooled


def test_weights_of_another_kind_of_step_are_refused(tmp_path: Path):
    build_small_tokenizer().save_pretrained(str(tmp_path / "tokenizer"))
    torch.save({"perception.x": torch.zeros(1)}, tmp_path / "weights.pt")
    with pytest.raises(TrainingError, match="holds no language; only a stage that reads the truth can drive by it"):
        Schooled.load(tmp_path / "weights.pt", tmp_path / "tokenizer")
