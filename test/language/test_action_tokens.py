"""Action tokens in a tokenizer."""

import pytest

from opendrivevla_ros.language.action_codebook import ActionCodebook, box_contours
from opendrivevla_ros.language.action_tokens import ActionTokenError, ActionTokens, add_action_tokens
from opendrivevla_ros.language.small_tokenizer import build_small_tokenizer, load_tokenizer


def codebook(tokens: int = 12) -> ActionCodebook:
    return ActionCodebook(box_contours([[step, 0.0, 0.0] for step in range(tokens)]))


def test_they_follow_what_the_tokenizer_had_and_are_read_back():
    tokenizer = build_small_tokenizer()
    before = len(tokenizer)
    actions = add_action_tokens(tokenizer, codebook())
    assert (actions.first_id, actions.stop_id, len(tokenizer)) == (before, before + 12, before + 12)
    ids = tokenizer.encode("go " + actions.text([0, 11, 3]), add_special_tokens=False)
    assert actions.actions(ids[-3:]).tolist() == [0, 11, 3]
    with pytest.raises(ActionTokenError, match=f"token {ids[0]} is no action: those are {before} to {before + 11}"):
        actions.actions(ids)


def test_a_saved_tokenizer_keeps_them(tmp_path):
    tokenizer = build_small_tokenizer()
    actions = add_action_tokens(tokenizer, codebook())
    tokenizer.save_pretrained(str(tmp_path))
    assert ActionTokens(load_tokenizer(tmp_path), codebook()).first_id == actions.first_id


@pytest.mark.parametrize("tokens", [11, 13])
def test_a_codebook_of_another_checkpoint_is_refused(tokens):
    tokenizer = build_small_tokenizer()
    add_action_tokens(tokenizer, codebook())
    with pytest.raises(ActionTokenError, match=f"do not belong together: {tokens} tokens are in the codebook"):
        ActionTokens(tokenizer, codebook(tokens))


def test_they_are_added_once():
    tokenizer = build_small_tokenizer()
    add_action_tokens(tokenizer, codebook())
    with pytest.raises(ActionTokenError, match="has <action_0> already; start from one without action tokens"):
        add_action_tokens(tokenizer, codebook())
