"""The loop: a killed run goes on to the step, states are whole or not there, and what stops a run."""

import math
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from full_disk import files_limited_to
from perception.test_network import CONFIG, frame
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook
from training import tiny_run
from training.tiny_run import KILLED_IN_STEP, REACHED, SAVED_AFTER, SETTINGS, STEPS, TinyModel, run

from opendrivevla_ros.language.model import LanguageConfig
from opendrivevla_ros.policies.opendrivevla.config import small
from opendrivevla_ros.policies.opendrivevla.model import OpenDriveVlaModel
from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.training.loop import train, use_gradient_checkpointing, warm_cosine
from opendrivevla_ros.training.metrics import EVENTS_FOLDER, read_metrics
from opendrivevla_ros.training.run_state import STATE_FILE, load_state


def run_until_killed(folder: Path) -> None:
    """A run in a process of its own, killed with SIGKILL in the middle of a step."""
    folder.mkdir()
    with (folder.parent / "stderr").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, tiny_run.__file__, str(folder)], stdout=subprocess.DEVNULL, stderr=errors
        )
        try:
            deadline = time.monotonic() + 120
            while not (folder / REACHED).exists():
                assert process.poll() is None, (folder.parent / "stderr").read_text()
                assert time.monotonic() < deadline, "the run did not reach its step"
                time.sleep(0.02)
        finally:
            os.kill(process.pid, signal.SIGKILL)
            process.wait(timeout=30)


def test_a_run_killed_in_a_step_goes_on_as_if_nothing_had_happened(tmp_path: Path):
    straight = run(tmp_path / "straight")
    killed = tmp_path / "killed"
    run_until_killed(killed)
    assert len(read_metrics(killed)) == KILLED_IN_STEP - 1
    state = load_state(killed)
    assert state is not None
    assert state.step == SAVED_AFTER

    resumed = run(killed)
    assert (killed / "metrics.csv").read_bytes() == (tmp_path / "straight/metrics.csv").read_bytes()
    assert [row["step"] for row in read_metrics(killed)] == list(range(1, STEPS + 1))
    torch.testing.assert_close(resumed.state_dict(), straight.state_dict(), rtol=0, atol=0)
    events = EventAccumulator(str(killed / EVENTS_FOLDER)).Reload().Scalars("loss")
    assert [event.step for event in events] == list(range(1, STEPS + 1))


def test_the_curve_falls_and_the_rate_follows_its_schedule(tmp_path: Path):
    run(tmp_path, settings=replace(SETTINGS, steps=60))
    rows = read_metrics(tmp_path)
    assert rows[-1]["loss"] < rows[0]["loss"] / 2
    assert [row["rate"] for row in rows] == pytest.approx([0.02 * warm_cosine(step, 3, 60) for step in range(60)])
    assert all(row["loss"] == pytest.approx(row["square"] + row["absolute"]) for row in rows)


def test_two_half_batches_make_the_step_of_one_whole_batch(tmp_path: Path):
    settings = replace(SETTINGS, steps=3)
    for name, batch_size, accumulation in (("whole", 4, 1), ("halves", 2, 2)):
        model = TinyModel().eval()  # without dropout
        train(
            model,
            tiny_run.TinySamples(),
            torch.stack,
            [{"params": list(model.parameters())}],
            replace(settings, batch_size=batch_size, accumulation=accumulation),
            tmp_path / name,
        )
    whole, halves = read_metrics(tmp_path / "whole"), read_metrics(tmp_path / "halves")
    assert [row["loss"] for row in halves] == pytest.approx([row["loss"] for row in whole], rel=1e-5)
    assert [row["gradient_norm"] for row in halves] == pytest.approx([row["gradient_norm"] for row in whole], rel=1e-5)


def test_gradients_are_clipped_to_the_norm(tmp_path: Path):
    model = TinyModel()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    # with a plain gradient AdamW's first step does not depend on its scale, so look at what the optimiser saw
    seen: list[float] = []
    groups = [{"params": list(model.parameters())}]
    hook = register_optimizer_step_pre_hook(
        lambda *_: seen.append(math.sqrt(sum(float(p.grad.square().sum()) for p in model.parameters())))
    )
    train(model, tiny_run.TinySamples(), torch.stack, groups, replace(SETTINGS, steps=1, clip_norm=0.01), tmp_path)
    hook.remove()
    assert seen == pytest.approx([0.01], rel=1e-3)
    assert read_metrics(tmp_path)[0]["gradient_norm"] > 0.1
    assert any((now != then).any() for now, then in zip(model.parameters(), before, strict=True))


def test_bf16_keeps_the_weights_in_full_precision(tmp_path: Path):
    seen: list[torch.dtype] = []

    class Watched(TinyModel):
        def forward(self, batch: Tensor) -> dict[str, Tensor]:
            seen.append(self.layers(batch).dtype)
            return super().forward(batch)

    model = Watched()
    groups = [{"params": list(model.parameters())}]
    train(model, tiny_run.TinySamples(), torch.stack, groups, replace(SETTINGS, steps=2, precision="bf16"), tmp_path)
    assert set(seen) == {torch.bfloat16}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    model(torch.zeros(1, 3))
    assert seen[-1] == torch.float32, "the model is no longer wrapped once it is trained"


def test_a_disk_that_fills_while_saving_keeps_the_last_state_whole(tmp_path: Path):
    class FullDisk(TinyModel):
        """The disk is full from the sixth step on."""

        def __init__(self) -> None:
            super().__init__()
            self.forwards = 0

        def forward(self, batch: Tensor) -> dict[str, Tensor]:
            self.forwards += 1
            if self.forwards == 2 * SAVED_AFTER + 1:
                size = (tmp_path / STATE_FILE).stat().st_size
                resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
            return super().forward(batch)

    model = FullDisk()
    groups = [{"params": list(model.parameters())}]
    with (
        files_limited_to(resource.RLIM_INFINITY),
        pytest.raises(
            TrainingError, match=r"after step 10 cannot be written .*File too large.*the last saved one is whole"
        ),
    ):
        train(model, tiny_run.TinySamples(), torch.stack, groups, SETTINGS, tmp_path)
    state = load_state(tmp_path)
    assert state is not None
    assert state.step == SAVED_AFTER
    assert not list(tmp_path.glob("*.tmp"))
    run(tmp_path)
    assert [row["step"] for row in read_metrics(tmp_path)] == list(range(1, STEPS + 1))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # TensorBoard's own writer
def test_a_disk_that_fills_while_metrics_are_written_stops_the_run_with_a_sentence(tmp_path: Path):
    with (
        files_limited_to(400),
        pytest.raises(TrainingError, match=r"metrics of step \d cannot be written .*File too large.*free disk space"),
    ):
        run(tmp_path)
    run(tmp_path)
    assert [row["step"] for row in read_metrics(tmp_path)] == list(range(1, STEPS + 1))


def test_a_loss_that_is_not_finite_stops_the_run_before_it_reaches_the_weights(tmp_path: Path):
    class Diverging(TinyModel):
        def forward(self, batch: Tensor) -> dict[str, Tensor]:
            losses = super().forward(batch)
            return {name: loss * float("nan") for name, loss in losses.items()}

    model = Diverging()
    with pytest.raises(TrainingError, match=r"step 1 gave numbers that are not finite, .*; lower learning_rate"):
        train(model, tiny_run.TinySamples(), torch.stack, [{"params": list(model.parameters())}], SETTINGS, tmp_path)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_a_run_of_other_settings_is_not_continued(tmp_path: Path):
    run(tmp_path)
    with pytest.raises(TrainingError, match=r"has learning_rate 0.02, not 0.01; set it back"):
        run(tmp_path, settings=replace(SETTINGS, learning_rate=0.01))


def test_a_run_of_another_model_is_not_continued(tmp_path: Path):
    run(tmp_path)
    other = nn.Linear(3, 1)
    with pytest.raises(TrainingError, match="trained another model"):
        train(other, tiny_run.TinySamples(), torch.stack, [{"params": list(other.parameters())}], SETTINGS, tmp_path)


def test_a_state_that_was_cut_off_is_refused(tmp_path: Path):
    run(tmp_path)
    whole = (tmp_path / STATE_FILE).read_bytes()
    (tmp_path / STATE_FILE).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TrainingError, match="no whole state of a run; delete it"):
        run(tmp_path)


@pytest.mark.parametrize("name", ["steps", "batch_size", "learning_rate", "save_every"])
def test_settings_of_zero_are_refused(name: str):
    with pytest.raises(TrainingError, match=f"the setting {name} must be above 0, not 0"):
        replace(SETTINGS, **{name: 0})


def test_the_rate_rises_and_then_falls_to_nothing():
    rates = [warm_cosine(step, 4, 20) for step in range(20)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert warm_cosine(20, 4, 20) == pytest.approx(0)


def test_gradient_checkpointing_gives_the_same_gradients():
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "layers": 2, "heads": 2, "key_value_heads": 1}
    language = LanguageConfig(vocabulary_size=64, feature_size=CONFIG.embed_dim, **sizes)
    model = OpenDriveVlaModel(replace(small(64, 1), perception=CONFIG, language=language)).train()
    batch, example = torch.randint(60, (2, 12)), frame(0)

    def gradients() -> dict[str, torch.Tensor]:
        model.zero_grad()
        model.perception.reset()
        bev = model.perception.pts_bbox_head.encode_bev(
            model.perception.img_neck(model.perception.img_backbone.eval()(example.images)),
            example.lidar_to_image,
            example.can_bus,
            None,
        )
        (bev.square().mean() + model.language(batch, labels=batch, use_cache=False).loss).backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    kept = gradients()
    use_gradient_checkpointing(model)
    recomputed = gradients()
    assert kept.keys() == recomputed.keys()
    assert any("encoder.layers.1" in name for name in kept)
    assert any("language.model.layers.1" in name for name in kept)
    torch.testing.assert_close(recomputed, kept)
