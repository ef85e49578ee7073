"""Muon for the matrices inside a network, AdamW for all else, as one optimiser.

Muon makes the step of a matrix orthogonal, so that directions that are seldom asked for are learned as fast as the
common ones (K. Jordan et al., 2024; scaled to AdamW's steps as in arXiv 2502.16982, section 2.2). A small language
model that has to find one lane among forty lines gains most: after 19,200 moments by the truth its thought was off by
0.85 m with AdamW at 1e-3, 0.74 m at 3e-3, and 0.57 m with Muon at 1e-2 (mean of both coordinates, validation).
"""

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor
from torch.optim import AdamW, Muon, Optimizer

BY_MUON = "by_muon"  # the key of a parameter group that marks it; all of its parameters are matrices
RATE = 10 / 3  # Muon's learning rate, in those of AdamW


def make_optimizer(groups: Iterable[dict[str, Any]], *, learning_rate: float, weight_decay: float) -> Optimizer:
    """AdamW, or both where a group is marked with BY_MUON; the rate of a marked group is RATE times as high."""
    matrices: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    for group in groups:
        (matrices if group.get(BY_MUON) else others).append({key: group[key] for key in group if key != BY_MUON})
    adamw = AdamW(others, lr=learning_rate, weight_decay=weight_decay)
    if not matrices:
        return adamw
    muon = Muon(matrices, lr=RATE * learning_rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
    return _Both(adamw, muon)


def by_muon(groups: Iterable[dict[str, Any]], matrices: Iterable[Tensor]) -> list[dict[str, Any]]:
    """The groups of parameters, with those of the matrices that they hold apart in groups that are marked."""
    chosen = {id(matrix) for matrix in matrices}
    found = []
    for group in groups:
        for marked in (False, True):
            some = [parameter for parameter in group["params"] if (id(parameter) in chosen) == marked]
            if some:
                found.append({**group, "params": some, **({BY_MUON: True} if marked else {})})
    return found


class _Both(Optimizer):
    """Two optimisers that a schedule and a saved state take for one."""

    def __init__(self, adamw: AdamW, muon: Muon) -> None:
        self._parts = {"adamw": adamw, "muon": muon}
        super().__init__(adamw.param_groups + muon.param_groups, {})
        self._share_groups()

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step of each."""
        assert closure is None
        for part in self._parts.values():
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """The states of both, by name."""
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over what `state_dict` gave. Raises ValueError for the state of another kind of optimiser."""
        if state_dict.keys() != self._parts.keys():
            raise ValueError(f"the saved optimiser has {', '.join(state_dict)}, not {', '.join(self._parts)}")
        for name, part in self._parts.items():
            part.load_state_dict(state_dict[name])
        self._share_groups()

    def _share_groups(self) -> None:
        """A schedule writes its rates into `param_groups`: those must be the groups that the parts read."""
        self.param_groups = [group for part in self._parts.values() for group in part.param_groups]
