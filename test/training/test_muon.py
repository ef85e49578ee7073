"""One optimiser of two: matrices by Muon, all else by AdamW."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from opendrivevla_ros.training.muon import RATE, by_muon, make_optimizer

INPUTS = torch.randn(64, 5, generator=torch.Generator().manual_seed(1))


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.last = nn.Linear(5, 16), nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        said: Tensor = self.last(self.inner(x).tanh())
        return said


def network() -> Network:
    torch.manual_seed(0)
    return Network()


def groups(model: Network) -> list[dict[str, Any]]:
    vectors = [parameter for parameter in model.parameters() if parameter.ndim == 1]
    matrices = [parameter for parameter in model.parameters() if parameter.ndim == 2]
    found: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": 0.1},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return by_muon(found, [model.inner.weight])


def optimizer_of(model: Network) -> tuple[Optimizer, LambdaLR]:
    optimizer = make_optimizer(groups(model), learning_rate=1e-2, weight_decay=0.01)
    return optimizer, LambdaLR(optimizer, lambda step: 1 - step / 200)


def train(model: Network, optimizer: Optimizer, schedule: LambdaLR, steps: int) -> float:
    loss = torch.zeros(())
    for _ in range(steps):
        loss = (model(INPUTS) - INPUTS[:, :2].sin()).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return loss.item()


def weights(model: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def test_every_parameter_is_in_one_group_with_the_decay_that_it_had() -> None:
    model = network()
    found = groups(model)
    assert [(group.get("by_muon", False), group["weight_decay"], len(group["params"])) for group in found] == [
        (False, 0.1, 1),
        (True, 0.1, 1),
        (False, 0.0, 2),
    ]
    assert found[1]["params"][0] is model.inner.weight


def test_without_a_mark_it_is_adamw() -> None:
    found = make_optimizer([{"params": list(network().parameters())}], learning_rate=1e-3, weight_decay=0.0)
    assert type(found) is AdamW


def test_a_matrix_of_muon_takes_a_step_along_every_direction() -> None:
    model = network()
    before = model.inner.weight.detach().clone()
    optimizer, schedule = optimizer_of(model)
    train(model, optimizer, schedule, 1)
    sizes = torch.linalg.svdvals(model.inner.weight.detach() - before)
    assert float(sizes.min() / sizes.max()) > 0.5  # AdamW's step from here has 0.23


def test_it_learns_and_a_schedule_reaches_both() -> None:
    model = network()
    optimizer, schedule = optimizer_of(model)
    first = train(model, optimizer, schedule, 1)
    assert train(model, optimizer, schedule, 160) < first / 4
    rates = [group["lr"] for group in optimizer.param_groups]
    assert rates[0] == pytest.approx(1e-2 * (1 - 161 / 200))
    assert rates[-1] == pytest.approx(RATE * rates[0])
    moved = weights(model)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    model(INPUTS).sum().backward()
    optimizer.step()
    assert all(torch.equal(one, other) for one, other in zip(moved, weights(model), strict=True))


def test_a_saved_state_goes_on_as_if_never_cut_off() -> None:
    whole, cut = network(), network()
    at_once, its_schedule = optimizer_of(whole)
    train(whole, at_once, its_schedule, 8)

    optimizer, schedule = optimizer_of(cut)
    train(cut, optimizer, schedule, 5)
    state, where = optimizer.state_dict(), schedule.state_dict()
    later, later_schedule = optimizer_of(cut)
    later.load_state_dict(state)
    later_schedule.load_state_dict(where)
    train(cut, later, later_schedule, 3)
    assert all(torch.equal(one, other) for one, other in zip(weights(whole), weights(cut), strict=True))


def test_the_state_of_another_optimiser_is_refused() -> None:
    model = network()
    optimizer, _ = optimizer_of(model)
    with pytest.raises(ValueError, match="the saved optimiser has state, param_groups, not adamw, muon"):
        optimizer.load_state_dict(AdamW(model.parameters()).state_dict())
