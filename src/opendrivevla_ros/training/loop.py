"""The training loop of every stage, on `accelerate`: one CPU, one GPU, or many machines by its launcher."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import gather_object, send_to_device, set_seed
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Dataset
from transformers import PreTrainedModel

from opendrivevla_ros.perception.bev_encoder import BevEncoder
from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.training.metrics import Metrics
from opendrivevla_ros.training.muon import make_optimizer
from opendrivevla_ros.training.order import SampleOrder
from opendrivevla_ros.training.run_state import (
    RunState,
    check_settings,
    load_state,
    random_state,
    save_state,
    set_random_state,
)

# These begin the names of what a model tells beside its losses, and what is not trained: means, and numbers of cases.
MEASURED, COUNTED = "measured_", "counted_"


@dataclass(frozen=True)
class LoopSettings:
    """How a run trains.

    steps: of the optimiser. batch_size: samples a process takes at once; accumulation: batches a step, so a step sees
    batch_size * accumulation samples of each process. warmup_steps: of linear rise to learning_rate, before the
    cosine to 0. clip_norm: largest norm of the gradient. save_every: steps between saved states. workers: processes
    that load samples, 0 for none. gradient_checkpointing: of the BEV encoder and the language model, which takes
    less memory and more time.
    """

    steps: int
    learning_rate: float
    batch_size: int = 4
    accumulation: int = 1
    warmup_steps: int = 100
    weight_decay: float = 0.01
    clip_norm: float = 5.0
    precision: Literal["no", "bf16"] = "no"
    seed: int = 0
    save_every: int = 500
    workers: int = 0
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulation", "save_every", "learning_rate", "clip_norm"):
            if not getattr(self, name) > 0:
                raise TrainingError(f"the setting {name} must be above 0, not {getattr(self, name)}")

    def shaping(self, samples: int, ranks: int) -> dict[str, Any]:
        """What the curve depends on: another value makes another run."""
        unimportant = ("save_every", "workers", "gradient_checkpointing")
        settings = {name: value for name, value in asdict(self).items() if name not in unimportant}
        return {"processes": ranks, **settings, "samples": samples}


def train(
    model: nn.Module,
    samples: Dataset[Any],
    collate: Callable[[list[Any]], Any],
    groups: Iterable[dict[str, Any]],
    settings: LoopSettings,
    folder: Path,
) -> None:
    """Trains a model, or goes on from the state saved in `folder`, to the step.

    model: its forward takes a batch and returns its losses by name, the same names every time; their sum is trained,
    without what names of MEASURED and COUNTED tell, of which the last are summed over processes and batches of a step.
    It stays in the mode (training or evaluation) that each of its parts is in. samples: a sized data set, each sample
    a function of its index. collate: makes a batch of a list of samples. groups: of trained parameters, as
    `make_optimizer` takes them. Beside the state, `folder` gets the metrics (see `Metrics`).

    Raises TrainingError for a loss that is not finite, a state that cannot be written, and a saved run of other
    settings or another shape.
    """
    folder.mkdir(parents=True, exist_ok=True)
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),  # else accelerate takes no notice of the other processes
        mixed_precision=settings.precision,
        gradient_accumulation_steps=settings.accumulation,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    set_seed(settings.seed, device_specific=True)
    if settings.gradient_checkpointing:
        use_gradient_checkpointing(model)
    optimizer = make_optimizer(groups, learning_rate=settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = LambdaLR(optimizer, lambda step: warm_cosine(step, settings.warmup_steps, settings.steps))
    run = _Run(folder, settings, model, optimizer, schedule, samples, accelerator)
    start = run.resume()
    network, stepper = accelerator.prepare(model, optimizer)
    batches = run.batches(collate, start)
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    with _Reporter(accelerator, folder, start, settings.steps) as report:
        run.restore_random()
        for step in range(start + 1, settings.steps + 1):
            sums: dict[str, Tensor] = {}
            for _ in range(settings.accumulation):
                with accelerator.accumulate(network):
                    losses = network(send_to_device(next(batches), accelerator.device))
                    trained_losses = [loss for name, loss in losses.items() if _is_trained(name)]
                    accelerator.backward(torch.stack(trained_losses).sum())
                    sums = {name: loss.detach().float() + sums.get(name, 0.0) for name, loss in losses.items()}
            norm = float(accelerator.clip_grad_norm_(trained, settings.clip_norm))
            told = {
                name: float(
                    accelerator.reduce(total, "sum")
                    if name.startswith(COUNTED)
                    else accelerator.reduce(total / settings.accumulation, "mean")
                )
                for name, total in sums.items()
            }
            values = {
                "loss": sum(mean for name, mean in told.items() if _is_trained(name)),
                **told,
                "gradient_norm": norm,
                "rate": float(schedule.get_last_lr()[0]),
            }
            if not all(map(math.isfinite, values.values())):
                raise TrainingError(f"step {step} gave numbers that are not finite, {values}; lower learning_rate")
            stepper.step()
            stepper.zero_grad()
            schedule.step()
            report(step, values)
            if step % settings.save_every == 0 or step == settings.steps:
                run.save(step)
    accelerator.unwrap_model(network, keep_fp32_wrapper=False)  # in bf16, prepare has put autocast around forward


def _is_trained(name: str) -> bool:
    return not name.startswith((MEASURED, COUNTED))


def shared_out(settings: LoopSettings, processes: int) -> LoopSettings:
    """One process' settings, where batch_size is that of all together. Raises TrainingError for one that they can't
    share.
    """
    size, rest = divmod(settings.batch_size, processes)
    if rest:
        raise TrainingError(
            f"{processes} processes cannot share a batch of {settings.batch_size}; give a number that divides it"
        )
    return replace(settings, batch_size=size)


def use_gradient_checkpointing(model: nn.Module) -> None:
    """Has the parts with the most layers compute them again on the way back, in place of keeping what they hold."""
    for part in model.modules():
        if isinstance(part, PreTrainedModel) and part.supports_gradient_checkpointing:
            part.gradient_checkpointing_enable({"use_reentrant": False})
        elif isinstance(part, BevEncoder):
            part.gradient_checkpointing = True


def warm_cosine(step: int, warmup_steps: int, steps: int) -> float:
    """The share of the learning rate at a step from 0: linear to 1 over the warm-up, then half a cosine to 0."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return (1 + math.cos(math.pi * (step - warmup_steps) / max(steps - warmup_steps, 1))) / 2


class _Run:
    """What a run consists of, and its way to disk and back."""

    def __init__(
        self,
        folder: Path,
        settings: LoopSettings,
        model: nn.Module,
        optimizer: Optimizer,
        schedule: LambdaLR,
        samples: Dataset[Any],
        accelerator: Accelerator,
    ) -> None:
        self._folder, self._settings, self._accelerator = folder, settings, accelerator
        self._model, self._optimizer, self._schedule, self._samples = model, optimizer, schedule, samples
        self._shaping = settings.shaping(_count(samples), accelerator.num_processes)
        self._random: dict[str, Any] | None = None

    def resume(self) -> int:
        """Takes over the saved state, if there is one; returns the step it was saved after, or 0."""
        state = load_state(self._folder)
        if state is None:
            return 0
        check_settings(state.settings, self._shaping, self._folder)
        try:
            self._model.load_state_dict(state.model)
            self._optimizer.load_state_dict(state.optimizer)
        except (RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:300]
            raise TrainingError(
                f"the run in {self._folder} trained another model ({reason}); choose another folder"
            ) from error
        self._schedule.load_state_dict(state.schedule)
        self._random = state.random[self._accelerator.process_index]
        return state.step

    def restore_random(self) -> None:
        """Puts the random generators where the saved state had them; the last thing before the first step."""
        if self._random is not None:
            set_random_state(self._random)

    def save(self, step: int) -> None:
        random = gather_object([random_state()])
        if self._accelerator.is_main_process:
            model, optimizer = self._model.state_dict(), self._optimizer.state_dict()
            schedule = self._schedule.state_dict()
            save_state(self._folder, RunState(step, self._shaping, model, optimizer, schedule, random))
        self._accelerator.wait_for_everyone()

    def batches(self, collate: Callable[[list[Any]], Any], start: int) -> Iterator[Any]:
        """The batches of the steps after `start`. Its random numbers are its own, so that loading changes nothing."""
        settings, accelerator = self._settings, self._accelerator
        order = SampleOrder(
            _count(self._samples),
            batch_size=settings.batch_size,
            seed=settings.seed,
            first=start * settings.accumulation,
            last=settings.steps * settings.accumulation,
            rank=accelerator.process_index,
            ranks=accelerator.num_processes,
        )
        return iter(
            DataLoader(
                self._samples,
                batch_sampler=order,
                collate_fn=collate,
                num_workers=settings.workers,
                generator=torch.Generator().manual_seed(settings.seed),
            )
        )


class _Reporter:
    """The progress bar and the metrics, on the main process; silent on the others."""

    def __init__(self, accelerator: Accelerator, folder: Path, start: int, steps: int) -> None:
        self._exit = ExitStack()
        self._metrics: Metrics | None = None
        if accelerator.is_main_process:
            self._metrics = self._exit.enter_context(Metrics(folder, resumed_at=start))
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._progress = self._exit.enter_context(Progress(*columns))
            self._bar = self._progress.add_task("loss", total=steps, completed=start)

    def __enter__(self) -> Callable[[int, dict[str, float]], None]:
        return self._report

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._exit.close()

    def _report(self, step: int, values: dict[str, float]) -> None:
        if self._metrics is not None:
            self._metrics.write(step, values)
            self._progress.update(self._bar, completed=step, description=f"loss {values['loss']:.4f}")


def _count(samples: Dataset[Any]) -> int:
    return len(samples)  # type: ignore[arg-type]
