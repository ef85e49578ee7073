"""The texts of AutoVLA: the prompt in Qwen2.5-VL's chat layout with numbered videos, and both forms of an answer."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from opendrivevla_ros.core.ego import Command, EgoState
from opendrivevla_ros.language.prompt import InstructionError, checked_text
from opendrivevla_ros.language.thinking import ThinkingTemplate

CHAT_TOKENS = ("<|im_start|>", "<|im_end|>")
VISION_START, VISION_END, VIDEO_PAD = "<|vision_start|>", "<|vision_end|>", "<|video_pad|>"

TEMPLATE = ThinkingTemplate(
    fast=(
        "<think>\nThis is a straightforward scenario, and a direct decision can be made.\n</think>\n"
        "<answer>\nThe final output action is: "
    ),
    slow="<think>\nThis is a complex scenario requiring additional reasoning.\n",
    end="</think>",
    answer="\n<answer>\nThe final output action is: ",
)
ANSWER_END = "\n</answer>"
FAST_WORDS = "This is a straightforward scenario, and a direct decision can be made."

# The published words; a fourth, "go straight", is of commands that this package does not have.
INSTRUCTIONS = {
    Command.TURN_LEFT: "turn left",
    Command.KEEP_FORWARD: "keep forward",
    Command.TURN_RIGHT: "turn right",
}


@dataclass(frozen=True)
class PromptFields:
    """The ego motion as the prompt tells it.

    speed: m/s. acceleration: m/s^2. history: x, y of base_link 2.0, 1.5, 1.0 and 0.5 s ago, in base_link now, metres;
    none where it is not told.
    """

    speed: float
    acceleration: float
    command: Command
    history: tuple[tuple[float, float], ...] = ()

    @classmethod
    def from_ego(
        cls, ego: EgoState, command: Command, *, signed_acceleration: bool, tells_history: bool
    ) -> "PromptFields":
        """signed_acceleration: along the vehicle, braking below 0; else the norm in the plane, as published."""
        along, across = (float(value) for value in ego.acceleration[:2])
        return cls(
            speed=ego.speed,
            acceleration=along if signed_acceleration else float(np.hypot(along, across)),
            command=command,
            history=tuple((float(x), float(y)) for x, y, _ in ego.history) if tells_history else (),
        )


def plan_message(fields: PromptFields, cameras: tuple[str, ...], instruction: str = "") -> str:
    """The message that asks for a plan; a driver's `instruction` adds a line. Raises InstructionError."""
    instruction = checked_text(instruction, "instruction")
    lines = _context_lines(fields, cameras)
    if instruction:
        lines.append(f"The driver says: {instruction}")
    return _videos(cameras) + "\n".join([*lines, "Plan the next five seconds."])


def question_message(fields: PromptFields, cameras: tuple[str, ...], question: str) -> str:
    """The message that asks a question about the scene. Raises InstructionError, also for an empty question."""
    question = checked_text(question, "question")
    if not question:
        raise InstructionError("the question is empty; write what you want to know about the scene")
    return _videos(cameras) + "\n".join([*_context_lines(fields, cameras), f"Answer in short sentences: {question}"])


def _videos(cameras: tuple[str, ...]) -> str:
    """As Qwen2.5-VL's chat template writes videos with `add_vision_id`."""
    return "".join(
        f"Video {number}: {VISION_START}{VIDEO_PAD}{VISION_END}" for number, _ in enumerate(cameras, start=1)
    )


def _context_lines(fields: PromptFields, cameras: tuple[str, ...]) -> list[str]:
    names = [name.removeprefix("cam_").replace("_", " ") for name in cameras]
    lines = [
        "The videos show the last 1.5 seconds of these cameras: " + ", ".join(names) + ".",
        f"The current speed is {fields.speed + 0.0:.3f} m/s.",
        f"The current acceleration is {fields.acceleration + 0.0:.3f} m/s².",
    ]
    if fields.history:
        points = ", ".join(f"({x + 0.0:.2f}, {y + 0.0:.2f})" for x, y in fields.history)
        lines.append(f"The positions of the last two seconds are {points}.")
    return [*lines, f"The driving instruction is: {INSTRUCTIONS[fields.command]}."]


def chat_prompt(system_text: str, user: str) -> str:
    """The whole prompt up to where the assistant's answer begins; every video is one VIDEO_PAD."""
    return f"<|im_start|>system\n{system_text}<|im_end|>\n<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n"


def answer_text(actions: str, thought: str | None = None) -> str:
    """What the assistant says: `actions` as text, after a thought or none."""
    before = TEMPLATE.fast if thought is None else f"{TEMPLATE.slow}{thought}\n{TEMPLATE.end}{TEMPLATE.answer}"
    return before + actions + ANSWER_END


def tokenize(prompt: str, tokenizer: Any, video_tokens: int) -> list[int]:
    """The ids of a prompt, in which every VIDEO_PAD is repeated `video_tokens` times."""
    pad = tokenizer.convert_tokens_to_ids(VIDEO_PAD)
    ids: list[int] = []
    for token in tokenizer.encode(prompt, add_special_tokens=False):
        ids.extend([token] * (video_tokens if token == pad else 1))
    return ids
