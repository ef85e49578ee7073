"""The system text of the chat prompt: this package's own two, or the published one that belongs to a checkpoint."""

import ast
import hashlib
from pathlib import Path

HEADER = "<|im_start|>system\n"
PUBLISHED_CONVERSATION = "conv_qwen_planning_oriented_vlm"
PUBLISHED_SHA256 = "bd672cbc07778a04d5dc2cce26b19b3241c192892140294d066779ca37796d7c"  # of header and text

SYSTEM_TEXT = """You drive a car. You are given what its six cameras see as features, its own motion and a goal.
Coordinates are metres in the car's frame: x to the right, y to the front, the car stands at (0,0).
A plan covers the next 3 seconds with 6 waypoints, one every 0.5 seconds.
Keep to the road and its direction, follow the goal, keep clear of other road users, drive smoothly.
Write a plan as <traj_start>[(x1,y1),(x2,y2),(x3,y3),(x4,y4),(x5,y5),(x6,y6)]<traj_end>
Answer a question in short plain sentences between <answer_start> and <answer_end>."""
# Of the `small` preset, which learns its task from examples alone: every token of the prompt costs time.
SMALL_SYSTEM_TEXT = "You drive a car; x is to its right, y to its front, in metres."


class SystemTextError(ValueError):
    """The file does not hold the published system text."""


def system_text_from_conversation(path: str | Path) -> str:
    """The published system text, without its chat header, from a `llava/conversation.py` or a plain text file.

    A .py file is parsed, never executed. Raises SystemTextError where the text is missing or its SHA-256 is another.
    """
    path = Path(path)
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SystemTextError(f"cannot read a system text from {path}: {error}") from error
    text = _string_in_python(content, path) if path.suffix == ".py" else content
    candidates = [head + body for body in (text, text.rstrip("\n")) for head in ("", HEADER)]
    for candidate in candidates:
        if hashlib.sha256(candidate.encode()).hexdigest() == PUBLISHED_SHA256:
            return candidate.removeprefix(HEADER)
    found = hashlib.sha256(text.encode()).hexdigest()
    raise SystemTextError(
        f"{path} holds a system text with SHA-256 {found}, but the published one has {PUBLISHED_SHA256}: "
        "take the file from the published repository unchanged"
    )


def _string_in_python(source: str, path: Path) -> str:
    """The `system` argument in the assignment to PUBLISHED_CONVERSATION."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError) as error:
        raise SystemTextError(f"{path} is not Python source: {error}") from error
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            if PUBLISHED_CONVERSATION in names:
                arguments = [k.value for k in node.value.keywords if k.arg == "system"] + node.value.args[:1]
                if arguments and isinstance(arguments[0], ast.Constant) and isinstance(arguments[0].value, str):
                    return arguments[0].value
    raise SystemTextError(f"{path} has no assignment to {PUBLISHED_CONVERSATION} with a plain `system` string")
