"""The texts of AutoVLA byte for byte, and their tokens."""

from dataclasses import replace

import numpy as np
import pytest
from policies.autovla.tiny import tiny_tokenizer
from policies.observations import make_ego

from opendrivevla_ros.core.ego import Command
from opendrivevla_ros.language.prompt import InstructionError
from opendrivevla_ros.policies.autovla.config import ALL_CAMERAS, FRONT_CAMERAS
from opendrivevla_ros.policies.autovla.prompt import (
    PromptFields,
    answer_text,
    chat_prompt,
    plan_message,
    question_message,
    tokenize,
)

FIELDS = PromptFields(8.25, -1.5, Command.TURN_LEFT, ((-16.5, 0.25), (-12.4, 0.1), (-8.2, 0.0), (-4.1, 0.0)))


def test_the_prompt_of_three_cameras_byte_for_byte() -> None:
    assert (
        chat_prompt("You drive.", plan_message(FIELDS, FRONT_CAMERAS)).encode()
        == (
            "<|im_start|>system\n"
            "You drive.<|im_end|>\n"
            "<|im_start|>user\n"
            "Video 1: <|vision_start|><|video_pad|><|vision_end|>"
            "Video 2: <|vision_start|><|video_pad|><|vision_end|>"
            "Video 3: <|vision_start|><|video_pad|><|vision_end|>"
            "The videos show the last 1.5 seconds of these cameras: front, front left, front right.\n"
            "The current speed is 8.250 m/s.\n"
            "The current acceleration is -1.500 m/s².\n"
            "The positions of the last two seconds are (-16.50, 0.25), (-12.40, 0.10), (-8.20, 0.00), (-4.10, 0.00).\n"
            "The driving instruction is: turn left.\n"
            "Plan the next five seconds.<|im_end|>\n"
            "<|im_start|>assistant\n"
        ).encode()
    )


def test_six_cameras_are_six_numbered_videos_in_the_order_of_their_names() -> None:
    message = plan_message(FIELDS, ALL_CAMERAS)
    assert [message.count(f"Video {number}: <|vision_start|>") for number in range(1, 8)] == [1] * 6 + [0]
    assert "cameras: front, front left, front right, back, back left, back right.\n" in message


def test_the_two_answers_byte_for_byte() -> None:
    assert answer_text("<action_3><action_4>").encode() == (
        b"<think>\nThis is a straightforward scenario, and a direct decision can be made.\n</think>\n"
        b"<answer>\nThe final output action is: <action_3><action_4>\n</answer>"
    )
    assert answer_text("<action_3>", "A bus stops.").encode() == (
        b"<think>\nThis is a complex scenario requiring additional reasoning.\nA bus stops.\n</think>\n"
        b"<answer>\nThe final output action is: <action_3>\n</answer>"
    )


@pytest.mark.parametrize(
    ("command", "words"),
    [(Command.TURN_LEFT, "turn left"), (Command.KEEP_FORWARD, "keep forward"), (Command.TURN_RIGHT, "turn right")],
)
def test_every_command_has_its_published_words(command: Command, words: str) -> None:
    assert f"The driving instruction is: {words}.\n" in plan_message(replace(FIELDS, command=command), FRONT_CAMERAS)


def test_braking_is_told_with_its_sign_or_as_published_without() -> None:
    ego = replace(make_ego(speed=6.0), acceleration=np.array([-3.0, 4.0, 0.0]))
    signed = PromptFields.from_ego(ego, Command.KEEP_FORWARD, signed_acceleration=True, tells_history=True)
    published = PromptFields.from_ego(ego, Command.KEEP_FORWARD, signed_acceleration=False, tells_history=False)
    assert (signed.acceleration, published.acceleration) == (-3.0, 5.0)
    assert signed.history == ((-12.0, 0.0), (-9.0, 0.0), (-6.0, 0.0), (-3.0, 0.0))
    assert "positions" not in plan_message(published, FRONT_CAMERAS)


def test_no_number_is_written_as_minus_zero() -> None:
    fields = PromptFields(-0.0, -0.0, Command.KEEP_FORWARD, ((-0.0, -0.0),) * 4)
    assert "-0" not in plan_message(fields, FRONT_CAMERAS)


def test_a_drivers_words_get_a_line_of_their_own_and_cannot_change_the_layout() -> None:
    assert "\nThe driver says: stop at the kiosk\nPlan " in plan_message(FIELDS, FRONT_CAMERAS, " stop at the kiosk ")
    for text in ("<|im_end|>", "one\ntwo", "x" * 501):
        with pytest.raises(InstructionError):
            plan_message(FIELDS, FRONT_CAMERAS, text)
        with pytest.raises(InstructionError):
            question_message(FIELDS, FRONT_CAMERAS, text)
    with pytest.raises(InstructionError, match="question is empty"):
        question_message(FIELDS, FRONT_CAMERAS, "  ")


def test_a_video_is_as_many_tokens_as_it_has_and_the_rest_is_the_text() -> None:
    tokenizer, prompt = tiny_tokenizer(), chat_prompt("You drive.", plan_message(FIELDS, FRONT_CAMERAS))
    ids = tokenize(prompt, tokenizer, 240)
    pad = tokenizer.convert_tokens_to_ids("<|video_pad|>")
    assert ids.count(pad) == 720
    assert tokenizer.decode(tokenize(prompt, tokenizer, 1)) == prompt
