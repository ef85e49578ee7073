"""End-to-end training: what it sees is what a vehicle sees, and the plan's words reach the perception."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from perception.test_network import CONFIG, frame
from transformers import PreTrainedTokenizerFast

from opendrivevla_ros.language.model import Features, LanguageConfig
from opendrivevla_ros.language.prompt import PromptFields, user_message
from opendrivevla_ros.language.small_tokenizer import build_small_tokenizer
from opendrivevla_ros.language.trajectory_text import format_trajectory
from opendrivevla_ros.policies.opendrivevla.config import OpenDriveVlaConfig
from opendrivevla_ros.policies.opendrivevla.model import OpenDriveVlaModel
from opendrivevla_ros.policies.opendrivevla.thinking import words_before_plan
from opendrivevla_ros.training.answer_losses import answer_loss, read
from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.training.language_batches import LanguageBatches, Saying, Turn
from opendrivevla_ros.training.loop import LoopSettings, train
from opendrivevla_ros.training.metrics import read_metrics
from opendrivevla_ros.training.planning_step import PlanningExample, PlanningTraining
from opendrivevla_ros.training.stages import prepare, stage

FIELDS = PromptFields(
    velocity=(0.0, 2.0),
    yaw_rate=0.0,
    history=np.array([[0.0, -4.0], [0.0, -3.0], [0.0, -2.0], [0.0, -1.0]]),
    measured_acceleration=(0.0, 0.0),
    speed=2.0,
    steering=0.0,
)
EXAMPLE = PlanningExample(
    frames=[frame(0), frame(1)],
    user=user_message(FIELDS),
    answer=format_trajectory([[0.0, float(step)] for step in range(1, 7)]),
)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_small_tokenizer()


@pytest.fixture
def model(tokenizer: PreTrainedTokenizerFast) -> OpenDriveVlaModel:
    language = LanguageConfig(
        vocabulary_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        layers=1,
        heads=2,
        key_value_heads=1,
        feature_size=CONFIG.embed_dim,
    )
    configuration = OpenDriveVlaConfig(
        perception=CONFIG, language=language, system_text="You drive.", eos_ids=(tokenizer.eos_token_id,)
    )
    torch.manual_seed(0)
    return OpenDriveVlaModel(configuration)


def test_the_loss_is_that_of_what_inference_sees(model: OpenDriveVlaModel, tokenizer: PreTrainedTokenizerFast):
    training = PlanningTraining(model.eval(), tokenizer)
    model.perception.reset()
    with torch.inference_mode():
        seen = [model.perception(each) for each in EXAMPLE.frames][-1]
    assert len(seen.agent_tokens) > 0
    agents = torch.cat([seen.ego_tokens, seen.agent_tokens])
    features = Features(seen.scene_tokens.clone(), agents, seen.map_tokens.clone())
    batches = LanguageBatches(model.language, tokenizer, system_text="You drive.", end_id=tokenizer.eos_token_id)
    with torch.no_grad():
        for before in ("", words_before_plan("The bus stops.")):
            batch = batches([Turn(features, (Saying(EXAMPLE.user, EXAMPLE.answer, before=before),))])
            expected = answer_loss(model.language, batch, read(model.language, batch)[-1])
            torch.testing.assert_close(training([replace(EXAMPLE, before=before)])["answer"], expected)


def test_the_words_reach_the_perception_but_not_its_frozen_backbone(
    model: OpenDriveVlaModel, tokenizer: PreTrainedTokenizerFast
):
    training = PlanningTraining(model, tokenizer)
    prepare(model, stage("planning"), weight_decay=0.01)
    training([EXAMPLE])["answer"].backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    for part in ("img_neck.fpn_convs.0.conv", "pts_bbox_head.bev_embedding", "seg_head.transformer.encoder"):
        assert any(name.startswith(f"perception.{part}") for name in reached), part
    for part in ("mm_projector_scene", "mm_projector_track", "mm_projector_map", "layers"):
        assert any(name.startswith(f"language.model.{part}") for name in reached), part
    assert not any(name.startswith("perception.img_backbone") for name in reached)


def test_the_loop_teaches_a_plan_end_to_end_and_leaves_the_backbone_alone(
    model: OpenDriveVlaModel, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
):
    groups = prepare(model, stage("planning"), weight_decay=0.01)
    before = {name: value.clone() for name, value in model.perception.img_backbone.state_dict().items()}
    settings = LoopSettings(steps=25, learning_rate=5e-3, batch_size=2, warmup_steps=3)
    train(PlanningTraining(model, tokenizer), [EXAMPLE] * 2, list, groups, settings, tmp_path)
    rows = read_metrics(tmp_path)
    assert rows[-1]["answer"] < rows[0]["answer"] / 2
    torch.testing.assert_close(model.perception.img_backbone.state_dict(), before, rtol=0, atol=0)


def test_a_model_without_language_is_refused(model: OpenDriveVlaModel, tokenizer: PreTrainedTokenizerFast):
    with pytest.raises(TrainingError, match="needs a language model"):
        PlanningTraining(OpenDriveVlaModel(replace(model.config, language=None)), tokenizer)
