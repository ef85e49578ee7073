"""One thread for tiny networks, and an accelerate state of its own for every test."""

from collections.abc import Iterator

import pytest
import torch
from accelerate.state import AcceleratorState
from torch.nn import functional


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def own_accelerate_state() -> Iterator[None]:
    """accelerate keeps one precision for a whole process."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def attended(monkeypatch: pytest.MonkeyPatch) -> list[torch.dtype]:
    """The precision of what each attention gives, from now on."""
    types: list[torch.dtype] = []
    attend = functional.scaled_dot_product_attention

    def watched(query: torch.Tensor, *rest, **how) -> torch.Tensor:
        found = attend(query, *rest, **how)
        types.append(found.dtype)
        return found

    monkeypatch.setattr(functional, "scaled_dot_product_attention", watched)
    return types
