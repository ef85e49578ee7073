"""A tiny run that a test starts in a process of its own and kills: `python tiny_run.py FOLDER`."""

import sys
import threading
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from opendrivevla_ros.training.loop import LoopSettings, train

STEPS, KILLED_IN_STEP, SAVED_AFTER = 12, 8, 5
SETTINGS = LoopSettings(
    steps=STEPS, learning_rate=0.02, batch_size=2, accumulation=2, warmup_steps=3, save_every=SAVED_AFTER, seed=7
)
REACHED = "reached"


class TinyModel(nn.Module):
    """A regression whose loss needs the random generator (dropout) in every forward."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layers = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 1))

    def forward(self, batch: Tensor) -> dict[str, Tensor]:
        error = self.layers(batch) - batch.sum(1, keepdim=True)
        return {"square": error.square().mean(), "absolute": error.abs().mean()}


class TinySamples(torch.utils.data.Dataset[Tensor]):
    """Seven samples. With a folder, it tells the folder when the step to be killed in is reached, and waits there."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder, self._given = folder, 0

    def __len__(self) -> int:
        return 7

    def __getitem__(self, index: int) -> Tensor:
        self._given += 1
        if self._folder and self._given > (KILLED_IN_STEP - 1) * SETTINGS.batch_size * SETTINGS.accumulation:
            (self._folder / REACHED).touch()
            threading.Event().wait()
        return torch.randn(3, generator=torch.Generator().manual_seed(index))


def run(folder: Path, *, samples: Any = None, settings: LoopSettings = SETTINGS) -> TinyModel:
    """Trains in this process; the model comes back trained."""
    model = TinyModel()
    groups = [{"params": list(model.parameters())}]
    train(model, samples or TinySamples(), torch.stack, groups, settings, folder)
    return model


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(Path(sys.argv[1]), samples=TinySamples(Path(sys.argv[1])))
