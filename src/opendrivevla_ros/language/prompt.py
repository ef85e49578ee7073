"""The prompt of OpenDriveVLA: ego fields, user message, chat layout, and tokens with placeholders for the features.

Numbers in the prompt are in the lidar frame at t0 (x right, y forward), with the units of the published training
data: velocities are metres per half second, and "Acceleration" is a difference of displacements per half second.
"""

import re
import unicodedata
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from opendrivevla_ros.core.ego import HISTORY_POINTS, HISTORY_STEP_NS, Command, EgoState
from opendrivevla_ros.core.geometry import Array, apply, invert, planar_transform
from opendrivevla_ros.language.trajectory_text import format_trajectory

PLACEHOLDERS = {"<IMAGE>": -200, "<SCENE>": -201, "<TRACK>": -202, "<MAP>": -203, "<OBJECT>": -204}
SCENE_ID, TRACK_ID, MAP_ID = PLACEHOLDERS["<SCENE>"], PLACEHOLDERS["<TRACK>"], PLACEHOLDERS["<MAP>"]
STRUCTURE_TOKENS = (
    "<trajectory>",
    *(f"<{name}_{end}>" for name in ("track", "traj", "scene", "map", "ego") for end in ("start", "end")),
    *(f"<{name}_{end}>" for name in ("command", "question", "answer") for end in ("start", "end")),
)
PROPOSAL = "<PROPOSAL>"  # no token: text that `with_proposal` writes or leaves out
PROPOSAL_LINE = f"Proposed trajectory: {PROPOSAL}\n"
PROPOSAL_DECIMALS = 1  # nobody foresees centimetres
CHAT_TOKENS = ("<|im_start|>", "<|im_end|>")
GOALS = {
    Command.TURN_RIGHT: "turn right",
    Command.TURN_LEFT: "turn left",
    Command.KEEP_FORWARD: "keep forward",
}
INSTRUCTION_LIMIT = 500  # characters

STEP_S = HISTORY_STEP_NS / 1e9
VEHICLE_LENGTH_M = 2.588  # the published "Steering" is 2 * steering wheel angle / 2.588
STEERING_RATIO = 15.0  # steering wheel angle per front wheel angle; a passenger car's, no source gives it for nuScenes


class InstructionError(ValueError):
    """Free text that the prompt must not carry."""


@dataclass(frozen=True)
class PromptFields:
    """The ego motion as the prompt tells it, in the lidar frame at t0 unless noted.

    velocity: (x, y) m/s. yaw_rate: rad/s. history: [4, 2] positions 2.0, 1.5, 1.0 and 0.5 s ago, metres.
    measured_acceleration: (forward, left) m/s^2 as the vehicle's inertial unit gives it. speed: signed, m/s.
    steering: 2 * steering wheel angle / 2.588, positive left. tells_past: False for a prompt that tells velocity, yaw
    rate and goal alone. tells_proposal: the message that asks for a plan has a place for perception's own, see
    `with_proposal`.
    """

    velocity: tuple[float, float]
    yaw_rate: float
    history: Array
    measured_acceleration: tuple[float, float]
    speed: float
    steering: float
    command: Command = Command.KEEP_FORWARD
    tells_past: bool = True
    tells_proposal: bool = False

    @classmethod
    def from_ego(
        cls,
        ego: EgoState,
        command: Command,
        *,
        lidar_to_base: Array,
        heading_as_trained: bool,
        tells_past: bool = True,
        tells_proposal: bool = False,
    ) -> "PromptFields":
        """The fields of an ego state.

        heading_as_trained: the published training data misread the heading as 0, so velocity is (0, distance covered
        in the last half second / 0.5 s) and the yaw rate 0 whatever the vehicle does. False gives the true values.
        """
        base_to_lidar = invert(lidar_to_base)
        past = np.stack([planar_transform(x, y, yaw) for x, y, yaw in ego.history])
        history = np.stack([apply(base_to_lidar, apply(pose, lidar_to_base[:3, 3])) for pose in past])[:, :2]
        velocity = base_to_lidar[:3, :3] @ ego.velocity
        yaw_rate = float(ego.angular_velocity[2])
        if heading_as_trained:
            velocity = np.array([0.0, np.hypot(*ego.history[-1, :2]) / STEP_S])
            yaw_rate = 0.0
        return cls(
            velocity=(float(velocity[0]), float(velocity[1])),
            yaw_rate=yaw_rate,
            history=history,
            measured_acceleration=(float(ego.acceleration[0]), float(ego.acceleration[1])),
            speed=ego.speed,
            steering=2 * STEERING_RATIO * ego.steering / VEHICLE_LENGTH_M,
            command=command,
            tells_past=tells_past,
            tells_proposal=tells_proposal,
        )


def ego_line(fields: PromptFields) -> str:
    """`Ego states: ...`, all numbers with two decimals; without the past, velocity and yaw rate alone."""
    if np.shape(fields.history) != (HISTORY_POINTS, 2):
        raise ValueError(f"the prompt's history is [{HISTORY_POINTS}, 2], not {list(np.shape(fields.history))}")
    steps = np.diff(np.vstack([fields.history, np.zeros((1, 2))]), axis=0)
    acceleration = steps[-1] - steps[-2]
    now = (
        ("Velocity (vx,vy)", [component * STEP_S for component in fields.velocity]),
        ("Heading Angular Velocity (v_yaw)", [fields.yaw_rate]),
    )
    begun = (
        ("Acceleration (ax,ay)", acceleration.tolist()),
        ("Can Bus", list(fields.measured_acceleration)),
        ("Heading Speed", [fields.speed * STEP_S]),
        ("Steering", [fields.steering]),
    )
    numbers = (*now, *begun) if fields.tells_past else now
    parts = [f"- {name}: ({','.join(f'{value:.2f}' for value in values)})" for name, values in numbers]
    return "Ego states: " + " ".join(parts)


def history_line(fields: PromptFields) -> str:
    """`Historical trajectory (last 2 seconds): [...]`, oldest first."""
    points = ",".join(f"({x:.2f},{y:.2f})" for x, y in fields.history)
    return f"Historical trajectory (last 2 seconds): [{points}]"


def user_message(fields: PromptFields, instruction: str = "") -> str:
    """The message that asks for a plan: exactly the published seven lines, or six without the past.

    A driver's `instruction`, where there is one, adds a line before the last, and so does a proposal, behind it.
    Raises InstructionError.
    """
    instruction = checked_text(instruction, "instruction")
    lines = [*_context_lines(fields), f"Mission goal: {GOALS[fields.command]}"]
    if instruction:
        lines.append(f"Driver instruction: <command_start>{instruction}<command_end>")
    proposal = PROPOSAL_LINE if fields.tells_proposal else ""
    return "\n".join([*lines, f"{proposal}Planning trajectory: <trajectory>"])


def with_proposal(prompt: str, path: ArrayLike | None) -> str:
    """A prompt with the path [6, 2] that perception's query of the ego proposes, metres; None leaves the line out.

    A prompt without a place for it stays as it is.
    """
    if path is None or PROPOSAL not in prompt:
        return prompt.replace(PROPOSAL_LINE, "")
    return prompt.replace(PROPOSAL, proposal_text(path))


def proposal_text(path: ArrayLike) -> str:
    """The text of a proposed path [6, 2], metres: that of the plan which follows it."""
    return format_trajectory(np.round(np.asarray(path, dtype=np.float64), PROPOSAL_DECIMALS) + 0.0)


def question_message(fields: PromptFields, question: str) -> str:
    """The message that asks a question about the scene. Raises InstructionError, also for an empty question."""
    question = checked_text(question, "question")
    if not question:
        raise InstructionError("the question is empty; write what you want to know about the scene")
    lines = [*_context_lines(fields), f"Mission goal: {GOALS[fields.command]}"]
    return "\n".join([*lines, f"Question: <question_start>{question}<question_end>"])


def _context_lines(fields: PromptFields) -> list[str]:
    lines = [
        "Scene information: <scene_start><SCENE><scene_end>",
        "Object-wise tracking information: <track_start><TRACK><track_end>",
        "Map information: <map_start><MAP><map_end>",
        ego_line(fields),
    ]
    return [*lines, history_line(fields)] if fields.tells_past else lines


def checked_text(text: str, what: str) -> str:
    """`text` without blanks at its ends, fit to stand inside the prompt as plain words.

    Every token and placeholder that shapes the prompt is written in angle brackets, and every line ends in a newline;
    so text without those characters cannot change the prompt's structure. Raises InstructionError for them, for other
    control characters, and above INSTRUCTION_LIMIT characters.
    """
    text = text.strip()
    if len(text) > INSTRUCTION_LIMIT:
        raise InstructionError(f"the {what} has {len(text)} characters; shorten it to at most {INSTRUCTION_LIMIT}")
    for index, character in enumerate(text):
        if character in "<>":
            raise InstructionError(f"the {what} holds {character!r} at position {index}; write it in words")
        if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"):
            raise InstructionError(
                f"the {what} holds the control character {character!r} at position {index}; write it on one plain line"
            )
    return text


def chat_prompt(system_text: str, user: str) -> str:
    """The whole prompt in the ChatML layout, up to where the assistant's answer begins."""
    return f"<|im_start|>system\n{system_text}<|im_end|>\n<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n"


_PLACEHOLDER_PATTERN = re.compile("(" + "|".join(PLACEHOLDERS) + ")")


def tokenize_prompt(prompt: str, tokenizer: Any) -> list[int]:
    """Token ids of a prompt: text pieces are tokenised one by one, placeholders become their negative ids."""
    ids: list[int] = []
    for piece in _PLACEHOLDER_PATTERN.split(prompt):
        if piece in PLACEHOLDERS:
            ids.append(PLACEHOLDERS[piece])
        elif piece:
            ids.extend(tokenizer.encode(piece, add_special_tokens=False))
    return ids


def text_prefix(ids: list[int]) -> list[int]:
    """The ids before the first placeholder: the part of a prompt that stays the same from plan to plan."""
    return next((ids[:index] for index, token in enumerate(ids) if token < 0), ids)
