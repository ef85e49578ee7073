"""The whole network of OpenDriveVLA: perception and language, and its checkpoint folder."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from transformers.models.qwen2.modeling_qwen2 import Qwen2RotaryEmbedding

from opendrivevla_ros.core.trajectory import WAYPOINTS
from opendrivevla_ros.language.model import DrivingLanguageModel
from opendrivevla_ros.perception.network import PerceptionNetwork
from opendrivevla_ros.policies import checkpoint
from opendrivevla_ros.policies.opendrivevla.config import OpenDriveVlaConfig, parse_config, save_config


class OpenDriveVlaModel(nn.Module):
    """State keys: `perception.` with the published perception keys, `language.` with the published language keys.

    language: None where the configuration has perception alone.
    """

    def __init__(self, config: OpenDriveVlaConfig) -> None:
        super().__init__()
        language = config.language
        if language is not None and language.feature_size != config.perception.embed_dim:
            raise ValueError(
                f"config.language.feature_size {language.feature_size} is not config.perception.embed_dim"
                f" {config.perception.embed_dim}: the projectors read what perception gives"
            )
        if scales := config.proposal_scales:
            if not config.perception.ego_layers:
                raise ValueError("config.proposal_scales needs a query of the ego; set config.perception.ego_layers")
            if [len(row) for row in scales] != [2] * WAYPOINTS or min(map(min, scales)) <= 0:
                raise ValueError(
                    f"config.proposal_scales must be {WAYPOINTS} pairs above 0, or empty, not {list(scales)}"
                )
        self.config = config
        self.perception = PerceptionNetwork(config.perception)
        self.language = None if language is None else DrivingLanguageModel(language)


def empty_model(config: OpenDriveVlaConfig) -> OpenDriveVlaModel:
    """The model's keys and shapes, without memory for its weights. Raises CheckpointError."""
    return checkpoint.empty_network(lambda: OpenDriveVlaModel(config))


def load_model(folder: Path) -> tuple[OpenDriveVlaModel, str]:
    """The model of a checkpoint folder in the precision of its file, and the SHA-256 of its weights.

    Raises CheckpointError.
    """
    checkpoint.require(folder, checkpoint.CONFIG, checkpoint.WEIGHTS)
    config = load_config(folder)
    weights_hash = checkpoint.verified_hash(folder)
    model = empty_model(config)
    checkpoint.load_strictly(model, folder)
    if model.language is not None:  # its rotary table is no weight, so it is still on the meta device
        model.language.tie_weights()
        model.language.model.rotary_emb = Qwen2RotaryEmbedding(model.language.config)
    return model, weights_hash


def load_config(folder: Path) -> OpenDriveVlaConfig:
    """The configuration of a checkpoint folder. Raises CheckpointError."""
    return checkpoint.load_config(folder, parse_config)


def save_model(model: OpenDriveVlaModel, folder: Path, *, card: str) -> str:
    """Writes config.json, weights with checksum, and the card; returns the weights' SHA-256.

    The tokenizer's files are the caller's to write.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_config(model.config, folder / checkpoint.CONFIG)
    (folder / checkpoint.CARD).write_text(card)
    return checkpoint.save_weights(folder, model)


def random_model(config: OpenDriveVlaConfig, seed: int) -> OpenDriveVlaModel:
    """A model with seeded random weights, marked as not trained.

    Class biases and mask weights are set so that a few tracks and map elements appear and everything behind them is
    exercised.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = OpenDriveVlaModel(replace(config, trained=False)).eval()
        torch.manual_seed(seed)  # again, so that what is seen does not depend on the size of the vocabulary
        _show_some(model.perception)
    return model


@torch.no_grad()
def _show_some(perception: PerceptionNetwork) -> None:
    for branch in perception.pts_bbox_head.cls_branches:
        _redraw(branch.get_submodule("6"), weight=0.2, bias=-2.9)
    for branch in perception.seg_head.cls_branches:
        _redraw(branch, weight=0.1, bias=-1.0)
    for head in (perception.seg_head.things_mask_head, perception.seg_head.stuff_mask_head):
        _redraw(head.attnen.linear_l1.get_submodule("0"), weight=1.0, bias=0.0)
        _redraw(head.attnen.linear.get_submodule("0"), weight=1.0, bias=0.0)


def _redraw(layer: nn.Module, *, weight: float, bias: float) -> None:
    assert isinstance(layer, nn.Linear)
    nn.init.normal_(layer.weight, std=weight)
    nn.init.constant_(layer.bias, bias)
