"""Which parts of the small model each stage trains, by the names of its parameters."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from opendrivevla_ros.policies.opendrivevla.config import small
from opendrivevla_ros.policies.opendrivevla.model import OpenDriveVlaModel
from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.training.stages import STAGES, prepare, stage

# every part of the model, and the stages that train it
EXPECTED = {
    "perception.img_backbone": {"perception"},
    "perception.img_neck": {"perception", "planning"},
    "perception.pts_bbox_head": {"perception", "planning"},
    "perception.query_embedding": {"perception", "planning"},
    "perception.reference_points": {"perception", "planning"},
    "perception.query_interact": {"perception", "planning"},
    "perception.memory_bank": {"perception", "planning"},
    "perception.seg_head": {"perception", "planning"},
    "perception.ego_query": {"perception", "ego", "planning"},
    "language.model.mm_projector_scene": {"schooling", "alignment", "instruction", "interaction", "planning"},
    "language.model.mm_projector_track": {"schooling", "alignment", "instruction", "interaction", "planning"},
    "language.model.mm_projector_map": {"schooling", "alignment", "instruction", "interaction", "planning"},
    "language.model.embed_tokens": {"schooling", "instruction", "interaction", "planning"},
    "language.model.layers": {"schooling", "instruction", "interaction", "planning"},
    "language.model.norm": {"schooling", "instruction", "interaction", "planning"},
}
CONSTANT = "perception.pts_bbox_head.code_weights"


@pytest.fixture(scope="module")
def model() -> OpenDriveVlaModel:
    return OpenDriveVlaModel(small(vocabulary_size=704, eos_id=1))


def part_of(name: str) -> str:
    return ".".join(name.split(".")[: 3 if name.startswith("language.") else 2])


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_trains_its_parts_and_nothing_else(model: OpenDriveVlaModel, name: str):
    groups = prepare(model, stage(name), weight_decay=0.01)
    names = {parameter: key for key, parameter in model.named_parameters()}
    assert {part_of(key) for key in names.values()} == set(EXPECTED)
    expected = {key for key in names.values() if name in EXPECTED[part_of(key)] and key != CONSTANT}
    assert {key for parameter, key in names.items() if parameter.requires_grad} == expected
    handed_over = [names[parameter] for group in groups for parameter in group["params"]]
    assert sorted(handed_over) == sorted(expected)


def test_the_stages_are_the_published_ones_in_their_order_after_the_egos_query_and_a_schooling():
    assert list(STAGES) == ["perception", "ego", "schooling", "alignment", "instruction", "interaction", "planning"]


def test_vectors_do_not_decay(model: OpenDriveVlaModel):
    matrices, vectors = prepare(model, stage("planning"), weight_decay=0.05)
    assert matrices["weight_decay"] == 0.05
    assert min(parameter.dim() for parameter in matrices["params"]) == 2
    assert vectors["weight_decay"] == 0.0
    assert {parameter.dim() for parameter in vectors["params"]} == {1}


def test_a_frozen_backbone_keeps_its_statistics_and_weights(model: OpenDriveVlaModel):
    backbone = model.perception.img_backbone
    prepare(model, stage("planning"), weight_decay=0.01)
    assert not any(module.training for module in backbone.modules())
    assert model.perception.seg_head.training
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    with torch.no_grad():
        backbone(torch.randn(1, 3, 128, 224))
    torch.testing.assert_close(backbone.state_dict(), before, rtol=0, atol=0)


def test_a_trained_backbone_normalises_by_its_batch(model: OpenDriveVlaModel):
    prepare(model, stage("perception"), weight_decay=0.01)
    norms = [m for m in model.perception.img_backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert all(norm.training for norm in norms)


def test_an_unknown_stage_is_refused_with_the_known_ones():
    with pytest.raises(
        TrainingError, match="unknown stage 'aligment'; the stages are, in their order, perception, ego, schooling, al"
    ):
        stage("aligment")


def test_a_model_without_language_cannot_learn_language():
    configuration = replace(small(vocabulary_size=704, eos_id=1), language=None)
    without = OpenDriveVlaModel(configuration)
    prepare(without, stage("perception"), weight_decay=0.01)
    for name in ("alignment", "planning"):
        with pytest.raises(TrainingError, match=f"the stage {name} trains language"):
            prepare(without, stage(name), weight_decay=0.01)
