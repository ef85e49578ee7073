"""Fine-tuning on bags: what a driver drove is learned, kept, gone on with, and refused where it cannot be."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from full_disk import files_limited_to
from training.finetune_inputs import (
    cut_bag,
    recording,
    write_bag,
    write_checkpoint,
    write_perception_alone,
)

from opendrivevla_ros.core.geometry import planar_transform
from opendrivevla_ros.datasets.drive_store import DriveStore, StoredSample
from opendrivevla_ros.datasets.nuscenes_tables import DatasetError
from opendrivevla_ros.language.prompt import chat_prompt, with_proposal
from opendrivevla_ros.policies.checkpoint import WEIGHTS, sha256
from opendrivevla_ros.policies.errors import CheckpointError
from opendrivevla_ros.policies.opendrivevla.model import load_config, load_model
from opendrivevla_ros.policies.registry import load_policy
from opendrivevla_ros.training import bag_drives, scene_drives
from opendrivevla_ros.training.card import data_hash
from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.training.finetune import RECORD, FineTuning, finetune_settings
from opendrivevla_ros.training.metrics import read_metrics
from opendrivevla_ros.training.planning_step import PlanningExample, PlanningExamples
from opendrivevla_ros.training.scene_drives import stretches, write_stretch
from opendrivevla_ros.training.text_tasks import planning_task, prompt_fields

SETTINGS = finetune_settings(steps=6, learning_rate=1e-2)


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bag(tmp_path_factory.mktemp("drive") / "bag")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, bag: Path, checkpoint: Path) -> FineTuning:
    """Run to its end."""
    run = FineTuning(checkpoint, tmp_path_factory.mktemp("run") / "out", SETTINGS)
    shares = list(run.take([recording(bag)]))
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    run.run()
    assert not run.is_done
    assert run.export() == run.result
    assert run.is_done
    return run


@pytest.fixture
def copy(done: FineTuning, tmp_path: Path) -> FineTuning:
    """A run of the same bag that has taken it and trained nothing."""
    folder = tmp_path / "copy"
    folder.mkdir()
    shutil.copytree(done.folder / "drives", folder / "drives")
    shutil.copy(done.folder / RECORD, folder)
    return FineTuning(done.checkpoint, folder, SETTINGS)


def samples_of(store: DriveStore) -> list[StoredSample]:
    return [stored for index in range(len(store.names)) for stored in store.read(index)]


def restored(samples: list[StoredSample], folder: Path) -> DriveStore:
    for stretch in stretches(samples):
        write_stretch(DriveStore(folder), stretch, set())
    return DriveStore(folder)


def test_the_loss_of_a_drivers_paths_falls(done: FineTuning):
    rows = read_metrics(done.training_folder)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[-1]["loss"] < 0.9 * rows[0]["loss"]


def test_what_is_trained_changes_and_the_backbone_stays(done: FineTuning):
    before, after = (load_model(folder)[0].state_dict() for folder in (done.checkpoint, done.result))
    assert {name: value.dtype for name, value in after.items()} == {
        name: value.dtype for name, value in before.items()
    }
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert not any(name.startswith("perception.img_backbone.") for name in changed)
    for part in ("perception.img_neck.", "perception.pts_bbox_head.", "perception.seg_head.", "language."):
        assert any(name.startswith(part) for name in changed), part


def test_the_new_checkpoint_plans_from_the_very_prompt_that_it_learned(done: FineTuning, tmp_path: Path):
    policy, config = load_policy(done.result, samples=0), load_config(done.result)
    sample = samples_of(done.drives())[0].sample
    ego = replace(sample.observation.ego, angular_velocity=np.array([0.0, 0.0, 0.2]))
    sample = replace(sample, observation=replace(sample.observation, ego=ego))
    plan = policy.plan(sample.observation)
    assert plan.trajectory.xy.shape == (6, 2)
    assert policy.info.model_id == "opendrivevla-small-finetuned"
    (example,) = PlanningExamples(restored([StoredSample(sample)], tmp_path), config)
    assert plan.prompt == with_proposal(
        chat_prompt(config.system_text, example.user), policy.perception.last.output.path
    )
    other = replace(config, heading_as_trained=not config.heading_as_trained)
    task, another = (planning_task(sample, prompt_fields(sample, one), decimals=1) for one in (config, other))
    assert (example.user, example.answer) == (task.user, task.answer)
    assert example.user != another.user


def test_the_card_says_from_which_checkpoint_and_drives_and_how_far_it_came(done: FineTuning):
    card = (done.result / "README.md").read_text()
    rows = read_metrics(done.training_folder)
    assert f"From: opendrivevla-small, SHA-256 of its weights {sha256(done.checkpoint / WEIGHTS)}" in card
    assert data_hash(done.drives()) in card
    assert f"| finetune | planning | 6 | 12 | 0.01 | {rows[0]['loss']:.3f} | {rows[-1]['loss']:.3f} |" in card


def test_a_cut_off_fine_tuning_goes_on_to_the_same_curve(
    done: FineTuning, copy: FineTuning, monkeypatch: pytest.MonkeyPatch
):
    class Cut(Exception):
        pass

    given = 0

    def cut_in_the_fifth_step(examples: PlanningExamples, index: int) -> PlanningExample:
        nonlocal given
        given += 1
        if given > 4 * SETTINGS.batch_size:
            raise Cut
        return read(examples, index)

    read = PlanningExamples.__getitem__
    monkeypatch.setattr(PlanningExamples, "__getitem__", cut_in_the_fifth_step)
    copy.loop = replace(SETTINGS, save_every=3)
    with pytest.raises(Cut):
        copy.run()
    with pytest.raises(TrainingError, match="is not at its end; run it first"):
        copy.export()
    monkeypatch.undo()
    copy.run()
    losses, expected = ([row["loss"] for row in read_metrics(run.training_folder)] for run in (copy, done))
    assert losses == pytest.approx(expected, rel=1e-5)


def test_a_bag_is_read_once(copy: FineTuning, bag: Path, monkeypatch: pytest.MonkeyPatch):
    times = {path: path.stat().st_mtime_ns for path in copy.drives().folder.iterdir()}
    record = json.loads((copy.folder / RECORD).read_text())
    (copy.folder / RECORD).write_text(json.dumps({**record, "taken": 0}))  # as if it was cut off while reading
    list(copy.take([recording(bag)]))
    assert {path: path.stat().st_mtime_ns for path in copy.drives().folder.iterdir()} == times

    def read_again(*_: object, **__: object) -> Iterator[None]:
        raise AssertionError("the bag is read again")

    monkeypatch.setattr(bag_drives, "bag_samples", read_again)
    assert list(copy.take([recording(bag)])) == [1.0]


def test_an_example_shows_the_frames_that_the_policy_remembers(
    done: FineTuning, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole, config = done.examples(), load_config(done.checkpoint)
    counts = [len(example.frames) for example in whole]
    assert counts[:4] == [1, 2, 3, 3]
    monkeypatch.setattr(scene_drives, "STRETCH_SAMPLES", 2)
    samples = samples_of(done.drives())
    cut = PlanningExamples(restored(samples, tmp_path / "cut"), config)
    assert len(cut._store.names) > 2
    assert [len(example.frames) for example in cut] == counts
    stamps = [[frame.timestamp_s for frame in examples[3].frames] for examples in (whole, cut)]
    assert stamps[0] == stamps[1] == sorted(stamps[0])

    def later(stored: StoredSample) -> StoredSample:
        observation = stored.sample.observation
        observation = replace(observation, stamp_ns=observation.stamp_ns + 10**10)
        return replace(stored, sample=replace(stored.sample, observation=observation))

    gapped = [later(stored) if stored.sample.index >= 2 else stored for stored in samples]
    examples = PlanningExamples(restored(gapped, tmp_path / "gapped"), config)
    assert [len(example.frames) for example in examples][:4] == [1, 2, 1, 2]


def test_two_bags_of_one_name_stay_apart(bag: Path, checkpoint: Path, tmp_path: Path):
    other = cut_bag(bag, tmp_path / "other" / "bag", 3.0)
    run = FineTuning(checkpoint, tmp_path / "out", SETTINGS)
    list(run.take([recording(bag), recording(other)]))
    scenes = {stored.sample.scene for stored in samples_of(run.drives())}
    assert scenes == {"000-bag-0", "001-bag-0"}


def test_one_recording_twice_is_refused(bag: Path, checkpoint: Path, tmp_path: Path):
    shutil.copytree(bag, tmp_path / "day" / "bag")
    run = FineTuning(checkpoint, tmp_path / "out", SETTINGS)
    with pytest.raises(TrainingError, match=r"drive.*/bag and .*/day/bag are the same recording; give it once"):
        list(run.take([recording(bag), recording(tmp_path / "day" / "bag")]))
    assert not (tmp_path / "out").exists()


def test_a_drive_that_ends_before_its_future_is_refused(bag: Path, checkpoint: Path, tmp_path: Path):
    run = FineTuning(checkpoint, tmp_path / "out", SETTINGS)
    list(run.take([recording(cut_bag(bag, tmp_path / "short", 2.0))]))
    with pytest.raises(
        TrainingError, match=r"none of the \d moments in .* is followed by 3 s .*; record longer drives"
    ):
        run.examples()


def test_samples_that_the_policy_would_refuse_are_not_learned_from(bag: Path, checkpoint: Path, tmp_path: Path):
    given = recording(bag)
    turned = replace(given.rig, lidar_to_base=given.rig.lidar_to_base @ planar_transform(0.0, 0.0, np.pi / 2))
    run = FineTuning(checkpoint, tmp_path / "out", SETTINGS)
    with pytest.raises(
        TrainingError, match=r"bag gives no sample that the policy takes \(\d+ refused, first: .* turned by 90 degrees"
    ):
        list(run.take([replace(given, rig=turned)]))


def test_what_is_left_out_of_a_bag_is_said(
    bag: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(bag_drives, "_refusal", lambda sample, _: None if sample.index else "it is the first")
    short = cut_bag(bag, tmp_path / "short", 3.0)
    (file,) = short.glob("*.mcap")
    file.write_bytes(file.read_bytes()[:-1000])
    run = FineTuning(checkpoint, tmp_path / "out", SETTINGS)
    list(run.take([recording(short)]))
    damaged, left_out = run.warnings
    assert "cut off or damaged" in damaged
    assert left_out.endswith("short left out: 1, the first because it is the first")
    assert samples_of(run.drives())[0].sample.index == 1


def test_a_folder_with_a_run_of_something_else_is_refused(copy: FineTuning, bag: Path, tmp_path: Path):
    def refused(checkpoint: Path, path: Path, settings=SETTINGS) -> str:
        with pytest.raises(TrainingError) as caught:
            list(FineTuning(checkpoint, copy.folder, settings).take([recording(path)]))
        return str(caught.value)

    other = write_checkpoint(tmp_path / "other", seed=1)
    assert "copy has checkpoint opendrivevla-small (SHA-256" in refused(other, bag)
    sentence = refused(copy.checkpoint, cut_bag(bag, tmp_path / "short", 4.0))
    assert "copy has bags bag (4.6 s from" in sentence
    assert "not short (" in sentence
    assert "or choose another folder" in sentence
    sentence = refused(copy.checkpoint, bag, finetune_settings(7, 1e-2))
    assert "copy has steps 6, not 7; set it back to go on, or choose another folder" in sentence
    (copy.folder / RECORD).write_text("{")
    assert f"{RECORD} is broken; delete" in refused(copy.checkpoint, bag)
    (copy.folder / RECORD).unlink()
    assert "copy is there and holds no fine-tuning; choose a new folder" in refused(copy.checkpoint, bag)


def test_a_full_disk_leaves_no_half_drive_and_no_half_checkpoint(
    done: FineTuning, copy: FineTuning, bag: Path, tmp_path: Path
):
    run = FineTuning(done.checkpoint, tmp_path / "out", SETTINGS)
    with files_limited_to(1000), pytest.raises(DatasetError, match=r"File too large.*; free disk space"):
        list(run.take([recording(bag)]))
    assert not list(run.drives().folder.iterdir())
    run = FineTuning(done.checkpoint, run.folder, finetune_settings(7, 1e-2))  # nothing is kept that would forbid it
    list(run.take([recording(bag)]))
    assert sorted(run.drives().names) == sorted(done.drives().names)
    shutil.copytree(done.training_folder, copy.training_folder)
    with (
        files_limited_to(5000),
        pytest.raises(
            CheckpointError, match=r"checkpoint cannot be written .*File too large.*free disk space and run"
        ),
    ):
        copy.export()
    assert not copy.is_done
    assert not list(copy.folder.glob("checkpoint*"))
    copy.export()
    assert sha256(copy.result / WEIGHTS) == sha256(done.result / WEIGHTS)


def test_a_checkpoint_that_cannot_be_taught_is_refused(tmp_path: Path):
    def refused(folder: Path) -> str:
        with pytest.raises((TrainingError, CheckpointError)) as caught:
            FineTuning(folder, tmp_path / "out", SETTINGS)
        return str(caught.value)

    assert "random weights (trained: false)" in refused(write_checkpoint(tmp_path / "random", trained=False))
    assert "holds perception alone, which says no plan" in refused(write_perception_alone(tmp_path / "perception"))
    assert "is the policy constant_velocity, which sees and says nothing" in refused(Path("constant_velocity"))
    (tmp_path / "ego").mkdir()
    (tmp_path / "ego" / "config.json").write_text('{"policy": "ego_state"}')
    assert "is the policy ego_state, which sees and says nothing; give the folder" in refused(tmp_path / "ego")
    (tmp_path / "ego" / "config.json").write_text('{"policy": "other"}')
    assert "config.policy must be \"opendrivevla\", not 'other'" in refused(tmp_path / "ego")
    assert "nowhere does not exist" in refused(tmp_path / "nowhere")
    whole = write_checkpoint(tmp_path / "wordless")
    (whole / "tokenizer.json").unlink()
    assert "lacks tokenizer.json" in refused(whole)
