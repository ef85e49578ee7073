"""Projector kinds and their key names; their numbers are compared in test_golden_language.py."""

import pytest
import torch

from opendrivevla_ros.language.projectors import build_projector


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        ("linear", {"weight", "bias"}),
        ("mlp2x_gelu", {"0.weight", "0.bias", "2.weight", "2.bias"}),
        ("qwen2_5_rms", {"0.weight", "1.0.weight", "1.0.bias", "1.2.weight", "1.2.bias"}),
    ],
)
def test_key_names_are_the_published_ones(kind: str, keys: set[str]) -> None:
    projector = build_projector(kind, 8, 16)
    assert set(projector.state_dict()) == keys
    assert projector(torch.zeros(3, 8)).shape == (3, 16)


def test_residual_blocks_follow_the_layers() -> None:
    keys = build_projector("mlp3x_res2x_gelu", 8, 16).state_dict()
    assert "4.weight" in keys
    assert {"5.pre_norm.weight", "6.proj.2.bias"} <= set(keys)


@pytest.mark.parametrize("kind", ["", "mlp0x_gelu", "mlp2x", "pooler", "identity", "mlp2x_gelu\n"])
def test_an_unknown_kind_is_refused_by_name(kind: str) -> None:
    with pytest.raises(ValueError, match="unknown projector type"):
        build_projector(kind, 8, 16)
