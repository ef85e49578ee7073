"""A tiny AutoVLA's weights under the names of the published file, written down by hand."""

from policies.autovla.tiny import tiny_model
from torch import Tensor


def published_state() -> dict[str, Tensor]:
    """visual.* and model.* beside lm_head.weight, each behind the prefix."""
    state = {}
    for name, tensor in tiny_model().state_dict().items():
        room, _, rest = name.partition(".")
        if room == "model":
            part, _, rest = rest.partition(".")
            name = f"visual.{rest}" if part == "visual" else f"model.{rest}"
        state[f"autovla.vlm.{name}"] = tensor.clone()
    return state
