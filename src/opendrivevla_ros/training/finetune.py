"""Teaches a trained checkpoint its own vehicle: stage 3, end to end, on the paths that a driver drove, from bags.

Bags have no labels, so the words of the plan are all that is learned from. The folder of a run holds `finetune.json`
(what it is of), the drives, the training and, when that is done, the new checkpoint.
"""

import json
import operator
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from opendrivevla_ros.datasets.drive_store import DriveStore
from opendrivevla_ros.policies.checkpoint import WEIGHTS, copy_files, verified_hash, written_whole
from opendrivevla_ros.policies.loading import read_tokenizer
from opendrivevla_ros.policies.opendrivevla.config import POLICY, OpenDriveVlaConfig
from opendrivevla_ros.policies.opendrivevla.import_published import TOKENIZER_FILES
from opendrivevla_ros.policies.opendrivevla.model import load_config, load_model, save_model
from opendrivevla_ros.policies.registry import BASELINES, kind_of
from opendrivevla_ros.training.bag_drives import Recording, check_different, describe, store_bag
from opendrivevla_ros.training.card import data_hash
from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.training.loop import LoopSettings, shared_out, train
from opendrivevla_ros.training.metrics import first_and_last, read_metrics
from opendrivevla_ros.training.planning_step import PlanningExamples, PlanningTraining
from opendrivevla_ros.training.run_state import check_settings, load_state
from opendrivevla_ros.training.stages import prepare, stage
from opendrivevla_ros.training.whole_files import save_json

RECORD = "finetune.json"
STAGE = "planning"
SUFFIX = "-finetuned"  # of the new checkpoint's model_id
PACKAGES = ("torch", "transformers", "accelerate", "numpy", "rosbags")
SAVE_EVERY = 100


def finetune_settings(steps: int, learning_rate: float) -> LoopSettings:
    """The loop of a fine-tuning: small batches, and a tenth of the steps to warm up in."""
    return LoopSettings(
        steps=steps,
        learning_rate=learning_rate,
        batch_size=2,
        warmup_steps=max(steps // 10, 1),
        clip_norm=1.0,
        save_every=SAVE_EVERY,
    )


class FineTuning:
    """One fine-tuning in a folder of its own; what was cut off goes on, what is done is kept.

    `take` the bags, `run` the training (in as many processes as a launcher started), then `export`. warnings: a
    sentence for whatever is left out of the bags.
    """

    def __init__(self, checkpoint: Path, folder: Path, loop: LoopSettings) -> None:
        """Raises CheckpointError or TrainingError for a checkpoint that cannot be taught."""
        self.checkpoint, self.folder, self.loop = checkpoint, folder, loop
        self.warnings: list[str] = []
        self._config, self._tokenizer = _teachable(checkpoint)

    @property
    def training_folder(self) -> Path:
        """Of the loop's state and its metrics."""
        return self.folder / "training"

    @property
    def result(self) -> Path:
        """The new checkpoint folder; it is there once it is whole."""
        return self.folder / "checkpoint"

    @property
    def is_done(self) -> bool:
        """Whether the new checkpoint is there."""
        return (self.result / WEIGHTS).is_file()

    def drives(self) -> DriveStore:
        """What was taken of the bags."""
        return DriveStore(self.folder / "drives")

    def examples(self) -> PlanningExamples:
        """What is learned from. Raises TrainingError where the drives hold none, DatasetError for broken ones."""
        return PlanningExamples(self.drives(), self._config)

    def take(self, recordings: Sequence[Recording]) -> Iterator[float]:
        """Takes the bags that are not taken yet; yields the share that is.

        Raises BagError, DatasetError or TrainingError, the last also where the folder is of another run.
        """
        record = self._begin(recordings)
        config, count = self._config, len(recordings)
        for number, recording in enumerate(recordings):
            if number >= record["taken"]:
                prefix, warnings = f"{number:03d}", self.warnings
                for share in store_bag(recording, self.drives(), config, prefix=prefix, warnings=warnings):
                    yield (number + share) / count
                record["taken"] = number + 1
                self._write_record(record)
        yield 1.0

    def run(self) -> None:
        """Trains to the end, from where it stands."""
        model, _ = load_model(self.checkpoint)
        groups = prepare(model.float(), stage(STAGE), weight_decay=self.loop.weight_decay)
        training = PlanningTraining(model, self._tokenizer)
        processes = PartialState(cpu=not torch.cuda.is_available()).num_processes
        train(training, self.examples(), list, groups, shared_out(self.loop, processes), self.training_folder)

    def export(self) -> Path:
        """Writes what was learned as a checkpoint folder, in the number types of the one before; whole or not at all.

        Raises TrainingError where the training is not at its end, and CheckpointError for a full disk.
        """
        state = load_state(self.training_folder)
        if state is None or state.step < self.loop.steps:
            raise TrainingError(f"the training in {self.training_folder} is not at its end; run it first")
        model, source_hash = load_model(self.checkpoint)
        source_id = model.config.model_id
        model.load_state_dict({name.removeprefix("model."): value for name, value in state.model.items()})
        model.config = replace(model.config, model_id=source_id.removesuffix(SUFFIX) + SUFFIX)
        card = self._card(model.config.model_id, source_id, source_hash, state.settings)
        with written_whole(self.result) as partial:
            save_model(model, partial, card=card)
            copy_files(self.checkpoint, partial, TOKENIZER_FILES)
        return self.result

    def _begin(self, recordings: Sequence[Recording]) -> dict[str, Any]:
        """The record of this run, made the first time. Raises TrainingError where the folder is of another one."""
        descriptions = [describe(recording) for recording in recordings]
        check_different(recordings, descriptions)
        settings = {
            "checkpoint": f"{self._config.model_id} (SHA-256 {verified_hash(self.checkpoint)})",
            "bags": ", ".join(descriptions),
            "steps": self.loop.steps,
            "learning_rate": self.loop.learning_rate,
        }
        path = self.folder / RECORD
        if path.is_file():
            if self.drives().names:  # else nothing came of it yet, and it may begin anew
                return self._record(path, settings)
        elif self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise TrainingError(f"{self.folder} is there and holds no fine-tuning; choose a new folder for it")
        record = {"settings": settings, "taken": 0}
        self._write_record(record)
        return record

    def _record(self, path: Path, settings: dict[str, Any]) -> dict[str, Any]:
        try:
            record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            check_settings(dict(record["settings"]), settings, self.folder)
            record["taken"] = operator.index(record["taken"])
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
            raise TrainingError(f"{path} is broken; delete {self.folder} to start anew") from error
        return record

    def _write_record(self, record: dict[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        save_json(record, self.folder / RECORD, "the record of this fine-tuning")

    def _card(self, model_id: str, source_id: str, source_hash: str, settings: dict[str, Any]) -> str:
        rows, drives = read_metrics(self.training_folder), self.drives()
        first, last = first_and_last(rows)
        loop, processes = self.loop, settings["processes"]
        seen = loop.steps * loop.batch_size * loop.accumulation * processes
        versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
        return "\n".join(
            [
                f"# {model_id}",
                "",
                f"{source_id}, taught the paths that drivers drove by `odv finetune` of opendrivevla_ros. Measure it"
                " on drives that it has not seen before it plans for a vehicle.",
                "",
                "## How it was made",
                "",
                f"- From: {source_id}, SHA-256 of its weights {source_hash}.",
                f"- Data: {len(drives.names)} stretches of bags, {sum(drives.lengths)} samples, of which"
                f" {settings['samples']} have a whole future; SHA-256 of the drives {data_hash(drives)}.",
                f"- Seed: {loop.seed}. Processes: {processes}.",
                f"- Versions: {versions}.",
                "",
                "| step | stage | steps | samples | rate | first loss | last loss |",
                "| --- | --- | --- | --- | --- | --- | --- |",
                f"| finetune | {STAGE} | {loop.steps} | {seen} | {loop.learning_rate:g} | {first:.3f} | {last:.3f} |",
                "",
            ]
        )


def _teachable(folder: Path) -> tuple[OpenDriveVlaConfig, Any]:
    """Configuration and tokenizer of a checkpoint that can be taught. Raises CheckpointError or TrainingError."""
    remedy = f"give the folder of a trained checkpoint of {POLICY}"
    if (kind := kind_of(folder)) in BASELINES:
        raise TrainingError(f"{folder} is the policy {kind}, which sees and says nothing; {remedy}")
    config = load_config(folder)
    if config.language is None:
        raise TrainingError(f"{folder} holds perception alone, which says no plan; {remedy}")
    if not config.trained:
        raise TrainingError(
            f"{folder} holds random weights (trained: false), which a few drives teach little; {remedy}"
        )
    return config, read_tokenizer(folder, config.language.vocabulary_size)
