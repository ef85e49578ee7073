"""Everything that makes one AutoVLA checkpoint, and the presets `base` (3B) and `small`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from opendrivevla_ros.core.rig import CAMERA_NAMES
from opendrivevla_ros.core.trajectory import WAYPOINTS
from opendrivevla_ros.policies import checkpoint

POLICY = "autovla"
FRONT_CAMERAS = ("cam_front", "cam_front_left", "cam_front_right")
ALL_CAMERAS = (*FRONT_CAMERAS, "cam_back", "cam_back_left", "cam_back_right")
ACTIONS_PER_PLAN = 10  # of half a second each
TEXT_POSITIONS = 1536  # of prompt, thought and answer beside the videos, where the model has as many

SYSTEM_TEXT = """You drive a car. You see videos of its cameras, and are told how it moves and where to go.
You plan the next five seconds. In a straightforward scenario you decide at once; in a complex one you first write \
down what matters in the scene, how others will behave and what you intend.
The plan is ten action tokens, each the motion of half a second."""
# Of the `small` preset, which learns its task from examples alone: every token of the prompt costs time.
SMALL_SYSTEM_TEXT = "You drive a car and plan five seconds."


@dataclass(frozen=True)
class VisionConfig:
    """The vision tower; the defaults are Qwen2.5-VL-3B's.

    patch: pixels on a side. temporal_patch: frames in a patch. merge: patches on a side of one token of the language
    model. window: pixels on a side within which a block attends, but for full_attention_blocks. tokens_per_second:
    rotary positions of a second of video.
    """

    depth: int = 32
    hidden_size: int = 1280
    intermediate_size: int = 3420
    heads: int = 16
    patch: int = 14
    temporal_patch: int = 2
    merge: int = 2
    window: int = 112
    full_attention_blocks: tuple[int, ...] = (7, 15, 23, 31)
    tokens_per_second: int = 2


@dataclass(frozen=True)
class TextConfig:
    """The language model; the defaults are Qwen2.5-VL-3B's with 2048 action tokens.

    mrope_section: pairs of a head's numbers that turn by time, row and column; together half the head.
    """

    vocabulary_size: int = 153713
    hidden_size: int = 2048
    intermediate_size: int = 11008
    layers: int = 36
    heads: int = 16
    key_value_heads: int = 2
    rope_theta: float = 1e6
    mrope_section: tuple[int, ...] = (16, 24, 24)
    rms_epsilon: float = 1e-6
    tied_embeddings: bool = False
    max_positions: int = 128000


@dataclass(frozen=True)
class AutoVlaConfig:
    """One checkpoint. Defaults: the published 3B with what this package tells its model.

    trained: False where the weights are random. cameras: in the order of the videos; three or six. frames: of each
    video, half a second apart, the last at t0. image_size: (width, height) of a frame, pixels. signed_acceleration:
    False for its norm, with which braking looks like speeding up, as the published code feeds it. tells_history: the
    prompt has the positions of the last two seconds. actions: tokens of the codebook; first_action_id: of the first;
    codebook_sha256: of the codebook that belongs to the weights, see `model.codebook_hash`. eos_ids: tokens that end
    a text. max_new_tokens: of one answer to a question. sight_width: features of the ground ahead that `Sight` reads
    from the pictures; 0 for no such part, as published. proposal_scales: [6][2], how many times as far off as it
    expects the paths are that it proposes, to the side and ahead, by which the actions are weighed (see
    `ActionPrior`); empty where it proposes nothing.
    """

    model_id: str = "autovla-3b"
    trained: bool = True
    vision: VisionConfig = field(default_factory=VisionConfig)
    language: TextConfig = field(default_factory=TextConfig)
    cameras: tuple[str, ...] = FRONT_CAMERAS
    frames: int = 4
    image_size: tuple[int, int] = (420, 224)
    system_text: str = SYSTEM_TEXT
    signed_acceleration: bool = True
    tells_history: bool = True
    actions: int = 2048
    first_action_id: int = 151665
    codebook_sha256: str = ""
    eos_ids: tuple[int, ...] = (151645, 151643)
    max_new_tokens: int = 512
    sight_width: int = 0
    proposal_scales: tuple[tuple[float, ...], ...] = ()

    def __post_init__(self) -> None:
        """Raises ValueError for what no model can be made of."""
        if unknown := [name for name in self.cameras if name not in CAMERA_NAMES]:
            raise ValueError(f"config.cameras names {unknown[0]!r}; the cameras are {', '.join(CAMERA_NAMES)}")
        if len(self.cameras) not in (3, 6) or len(set(self.cameras)) != len(self.cameras):
            raise ValueError(f"config.cameras must be three or six different ones, not {list(self.cameras)}")
        side = self.vision.patch * self.vision.merge
        if any(length <= 0 or length % side for length in self.image_size):
            raise ValueError(
                f"config.image_size {list(self.image_size)} is not made of whole tokens; give multiples of {side}"
            )
        if self.frames <= 0 or self.frames % self.vision.temporal_patch:
            raise ValueError(f"config.frames {self.frames} must be a multiple of {self.vision.temporal_patch}")
        stop = self.first_action_id + self.actions
        if self.actions <= 0 or not 0 <= self.first_action_id < stop <= self.language.vocabulary_size:
            raise ValueError(
                f"config has action ids {self.first_action_id} to {stop - 1}, outside the vocabulary of"
                f" {self.language.vocabulary_size}; give the tokenizer's own"
            )

        if scales := self.proposal_scales:
            if not self.sight_width:
                raise ValueError("config.proposal_scales needs a part that proposes; set config.sight_width")
            pairs = [pair for pair in scales if len(pair) == 2 and min(pair) > 0]
            if len(pairs) != WAYPOINTS or len(scales) != WAYPOINTS:
                raise ValueError(
                    f"config.proposal_scales must be {WAYPOINTS} pairs above 0, or empty, not {list(scales)}"
                )

    @property
    def video_tokens(self) -> int:
        """Tokens of one camera's video in the prompt."""
        side = self.vision.patch * self.vision.merge
        width, height = self.image_size
        return self.frames // self.vision.temporal_patch * (height // side) * (width // side)

    @property
    def positions(self) -> int:
        """Tokens that a prompt, a thought and an answer may have together."""
        return min(len(self.cameras) * self.video_tokens + TEXT_POSITIONS, self.language.max_positions)


def save_config(config: AutoVlaConfig, path: Path) -> None:
    """Writes config.json."""
    checkpoint.save_config(POLICY, config, path)


def parse_config(data: Any) -> AutoVlaConfig:
    """The configuration from the content of a config.json. Raises ValueError naming the key that is wrong."""
    return checkpoint.parse_config(POLICY, AutoVlaConfig, data)


def base() -> AutoVlaConfig:
    """AutoVLA on Qwen2.5-VL-3B, every dimension as published."""
    return AutoVlaConfig()


def small(
    vocabulary_size: int, eos_id: int, *, actions: int, first_action_id: int, codebook_sha256: str
) -> AutoVlaConfig:
    """The same classes with numbers that two CPU cores can drive with. No trained weights of it exist yet.

    Its tokenizer gives the vocabulary size, `eos_id` and `first_action_id`, its codebook the rest.
    """
    return AutoVlaConfig(
        model_id="autovla-small",
        vision=VisionConfig(depth=4, hidden_size=128, intermediate_size=384, heads=4, full_attention_blocks=(1, 3)),
        language=TextConfig(
            vocabulary_size=vocabulary_size,
            hidden_size=160,
            intermediate_size=448,
            layers=6,
            heads=4,
            key_value_heads=2,
            mrope_section=(6, 7, 7),
            tied_embeddings=True,
            max_positions=2048,
        ),
        image_size=(224, 112),  # no larger than the pictures that the small recipes draw, and whole tokens
        system_text=SMALL_SYSTEM_TEXT,
        actions=actions,
        first_action_id=first_action_id,
        codebook_sha256=codebook_sha256,
        eos_ids=(eos_id,),
        max_new_tokens=128,
        sight_width=64,
        proposal_scales=((1.0, 1.0),) * WAYPOINTS,  # until they are measured
    )
