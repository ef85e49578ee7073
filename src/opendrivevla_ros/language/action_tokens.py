"""Action tokens in a tokenizer: `<action_0>`, `<action_1>` and so on, one for each token of a codebook."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from opendrivevla_ros.language.action_codebook import ActionCodebook


class ActionTokenError(ValueError):
    """Action tokens that do not fit a tokenizer, a codebook or one another: one sentence."""


class ActionTokens:
    """The ids of a codebook's tokens in a tokenizer, which has them, and has them in a row.

    first_id: of `<action_0>`. Raises ActionTokenError for a tokenizer with more, fewer, or scattered ones.
    """

    def __init__(self, tokenizer: Any, codebook: ActionCodebook) -> None:
        self.codebook = codebook
        ids = tokenizer.convert_tokens_to_ids(list(names(len(codebook))))
        unknown = tokenizer.unk_token_id
        absent = sum(one is None or one == unknown for one in ids)
        following = tokenizer.convert_tokens_to_ids(name(len(codebook)))
        if absent or (following is not None and following != unknown):
            raise ActionTokenError(
                f"the tokenizer and the codebook do not belong together: {len(codebook)} tokens are in the codebook,"
                f" {'more' if not absent else len(codebook) - absent} in the tokenizer; take both of one checkpoint"
            )
        if ids != list(range(ids[0], ids[0] + len(ids))):
            raise ActionTokenError("the tokenizer's action tokens do not follow one another; add them at once")
        self.first_id: int = ids[0]

    @property
    def stop_id(self) -> int:
        """One past the last id."""
        return self.first_id + len(self.codebook)

    def text(self, actions: Sequence[int]) -> str:
        """Actions as a model writes them."""
        return "".join(name(action) for action in actions)

    def actions(self, ids: Sequence[int]) -> NDArray[np.int64]:
        """The codebook's tokens of token ids. Raises ActionTokenError for an id that is none of an action."""
        for one in ids:
            if not self.first_id <= one < self.stop_id:
                raise ActionTokenError(
                    f"token {one} is no action: those are {self.first_id} to {self.stop_id - 1} in this checkpoint"
                )
        return np.asarray(ids, dtype=np.int64) - self.first_id


def add_action_tokens(tokenizer: Any, codebook: ActionCodebook) -> ActionTokens:
    """Adds the codebook's tokens at the end of a tokenizer that has none. Raises ActionTokenError where it has any."""
    known = tokenizer.get_vocab()
    if name(0) in known:
        raise ActionTokenError(f"the tokenizer has {name(0)} already; start from one without action tokens")
    tokenizer.add_tokens(list(names(len(codebook))), special_tokens=True)
    return ActionTokens(tokenizer, codebook)


def name(action: int) -> str:
    """As the published tokenizer has it."""
    return f"<action_{action}>"


def names(count: int) -> Sequence[str]:
    """The first so many."""
    return [name(action) for action in range(count)]
