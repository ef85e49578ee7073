"""Everything that makes one OpenDriveVLA checkpoint, and the presets `base` (0.5B, 3B, 7B) and `small`."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from opendrivevla_ros.core.geometry import NUSCENES_LIDAR_TO_BASE
from opendrivevla_ros.core.trajectory import WAYPOINTS
from opendrivevla_ros.language.model import LanguageConfig
from opendrivevla_ros.language.system_text import SMALL_SYSTEM_TEXT, SYSTEM_TEXT
from opendrivevla_ros.perception.config import PerceptionConfig, PublishedQuirks
from opendrivevla_ros.policies import checkpoint

POLICY = "opendrivevla"


@dataclass(frozen=True)
class OpenDriveVlaConfig:
    """One checkpoint. Defaults: the published 0.5B as it is right on a vehicle.

    trained: False where the weights are random. language: None for perception alone (a UniAD stage-1 checkpoint).
    system_text: of the chat prompt. heading_as_trained: the prompt has velocity along y only and no yaw rate, as the
    published training data (see `PromptFields.from_ego`). tells_past: the prompt has the motion history and what is
    measured beside velocity and yaw rate, as published. That tells what the driver has begun to do; a small model
    reads its plan there, does not look at the street, and at the wheel never begins (the copycat problem, arXiv
    2010.14876). proposal_scales: [6][2], how many times as far off as it expects the paths are that perception's query
    of the ego proposes, to the side and ahead. With them a proposal stands in the prompt, and the plan's digits are
    weighed by it (see `NumberPrior`); () for neither. decimals: of the trajectories that it learns to write. eos_ids:
    tokens that end an answer. repetition_penalty: over generated tokens, 1 for none. median_digits: of the greedy
    plan, see `TrajectoryGenerator`. max_new_tokens: of one answer to a question. lidar_to_base: [4][4], where the
    training vehicle carried the model's lidar frame; a rig whose frame stands or points otherwise is refused. thinks:
    it has learned to say before a plan whether it thinks first, and to do so (see `thinking.TEMPLATE`).
    """

    model_id: str = "opendrivevla-0.5b"
    trained: bool = True
    perception: PerceptionConfig = field(default_factory=lambda: PerceptionConfig(quirks=PublishedQuirks.as_trained()))
    language: LanguageConfig | None = field(default_factory=LanguageConfig)
    system_text: str = SYSTEM_TEXT
    heading_as_trained: bool = True
    tells_past: bool = True
    proposal_scales: tuple[tuple[float, ...], ...] = ()
    decimals: int = 2
    eos_ids: tuple[int, ...] = (151645, 151643)
    repetition_penalty: float = 1.0
    median_digits: bool = False
    max_new_tokens: int = 512
    lidar_to_base: tuple[tuple[float, ...], ...] = tuple(tuple(row) for row in NUSCENES_LIDAR_TO_BASE.tolist())
    thinks: bool = False


def save_config(config: OpenDriveVlaConfig, path: Path) -> None:
    """Writes config.json."""
    checkpoint.save_config(POLICY, config, path)


def parse_config(data: Any) -> OpenDriveVlaConfig:
    """The configuration from the content of a config.json. Raises ValueError naming the key that is wrong."""
    if isinstance(data, dict):
        # files from before there were these keys are of models that neither think nor are told a proposal
        data = {"thinks": False, "proposal_scales": [], **data}
    return checkpoint.parse_config(POLICY, OpenDriveVlaConfig, data)


def base() -> OpenDriveVlaConfig:
    """OpenDriveVLA-0.5B, every dimension as published."""
    return OpenDriveVlaConfig()


def base_3b() -> OpenDriveVlaConfig:
    """The published perception with Qwen2.5-3B-Instruct's public dimensions."""
    language = replace(LanguageConfig(), hidden_size=2048, layers=36, heads=16, intermediate_size=11008)
    return replace(base(), model_id="opendrivevla-3b", language=language)


def base_7b() -> OpenDriveVlaConfig:
    """The published perception with Qwen2.5-7B-Instruct's public dimensions."""
    language = LanguageConfig(
        vocabulary_size=152064,
        hidden_size=3584,
        layers=28,
        heads=28,
        key_value_heads=4,
        intermediate_size=18944,
        tied_embeddings=False,
    )
    return replace(base(), model_id="opendrivevla-7b", language=language)


def small_perception() -> PerceptionConfig:
    """The same classes with numbers that two CPU cores can drive with: 224x126 pictures, 2 m cells over +-40 m."""
    return PerceptionConfig(
        image_size=(224, 126),
        resnet_blocks=(2, 2, 2, 2),
        resnet_width=16,
        deformable_stages=(False, False, False, False),
        feature_levels=1,
        embed_dim=64,
        ffn_dim=128,
        heads=4,
        range_metres=(-40.0, -40.0, -5.0, 40.0, 40.0, 3.0),
        bev_size=40,
        spatial_points=4,
        encoder_layers=1,
        queries=200,
        decoder_layers=3,
        birth_score=0.25,  # focal loss leaves scores low: above 0.4, half as many cars were found as above 0.2
        keep_score=0.2,
        max_tracks=64,
        same_object_metres=2.0,
        centre_range=(-45.0, -45.0, -10.0, 45.0, 45.0, 10.0),
        map_queries=24,
        map_layers=1,
        map_attention_levels=1,
        map_masks=12,
        thing_blocks=2,
        stuff_blocks=2,
        mask_mlp_ratio=2,
        scene_grid=(1, 3),
        ego_layers=2,
        quirks=PublishedQuirks.none(),
    )


def small(vocabulary_size: int, eos_id: int) -> OpenDriveVlaConfig:
    """The preset that this package trains on its own world; its tokenizer gives the vocabulary size and `eos_id`."""
    perception = small_perception()
    language = LanguageConfig(
        vocabulary_size=vocabulary_size,
        hidden_size=128,
        intermediate_size=384,
        layers=6,
        heads=4,
        key_value_heads=2,
        max_positions=1024,
        feature_size=perception.embed_dim,
    )
    return OpenDriveVlaConfig(
        model_id="opendrivevla-small",
        perception=perception,
        language=language,
        system_text=SMALL_SYSTEM_TEXT,
        heading_as_trained=False,
        tells_past=False,
        proposal_scales=((1.0, 1.0),) * WAYPOINTS,  # until they are measured
        decimals=1,
        eos_ids=(eos_id,),
        median_digits=True,
        max_new_tokens=128,
    )
