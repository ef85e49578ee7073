"""Splicing features into a prompt's embeddings."""

from dataclasses import replace

import pytest
import torch

from opendrivevla_ros.language.model import DrivingLanguageModel, Features, LanguageConfig


def test_features_stand_where_their_placeholders_stood(small_model: DrivingLanguageModel, features: Features) -> None:
    with torch.inference_mode():
        embeddings = small_model.embed_prompt([1, -203, 2, 3, -201], features)
        text = small_model.model.embed_tokens(torch.tensor([1, 2, 3]))
        elements = small_model.model.mm_projector_map(features.map_elements)
        scene = small_model.model.mm_projector_scene(features.scene)
    assert torch.equal(embeddings, torch.cat([text[:1], elements, text[1:], scene]))


@pytest.mark.parametrize("nothing", [None, torch.zeros(0, 256)])
def test_a_missing_block_inserts_nothing(
    small_model: DrivingLanguageModel, features: Features, nothing: torch.Tensor | None
) -> None:
    with torch.inference_mode():
        embeddings = small_model.embed_prompt([1, -202, 2], replace(features, agents=nothing))
        expected = small_model.model.embed_tokens(torch.tensor([1, 2]))
    assert torch.equal(embeddings, expected)


@pytest.mark.parametrize("placeholder", [-200, -204, -1])
def test_a_placeholder_without_features_is_refused(
    small_model: DrivingLanguageModel, features: Features, placeholder: int
) -> None:
    with pytest.raises(ValueError, match=f"placeholder {placeholder}"):
        small_model.embed_prompt([1, placeholder], features)


def test_tied_embeddings_are_one_parameter(small_model: DrivingLanguageModel, small_config: LanguageConfig) -> None:
    assert small_model.lm_head.weight is small_model.model.embed_tokens.weight
    untied = DrivingLanguageModel(replace(small_config, tied_embeddings=False))
    assert untied.lm_head.weight is not untied.model.embed_tokens.weight
    assert set(untied.state_dict()) == set(small_model.state_dict())
