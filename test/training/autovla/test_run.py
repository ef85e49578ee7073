"""A recipe of AutoVLA with tiny numbers: drives, answers, own drives, reinforcement, and a checkpoint that plans."""

import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from full_disk import files_limited_to
from policies.autovla.tiny import tiny_codebook, tiny_model, write_folder
from training.autovla.drives import drives

from opendrivevla_ros.core.trajectory import Trajectory
from opendrivevla_ros.datasets.drive_store import StoredSample
from opendrivevla_ros.language.action_lattice import lattice
from opendrivevla_ros.policies.autovla.model import AutoVlaModel, codebook_hash, load_config, load_model
from opendrivevla_ros.policies.autovla.tokenizer import build_tokenizer
from opendrivevla_ros.policies.checkpoint import verified_hash
from opendrivevla_ros.policies.errors import CheckpointError
from opendrivevla_ros.policies.registry import load_policy
from opendrivevla_ros.training.autovla.proposals import GroundMoments, write_ground
from opendrivevla_ros.training.autovla.recipe import (
    RECIPES,
    AnswerStep,
    AutoVlaRecipe,
    ProposalStep,
    ReinforcementStep,
    SightStep,
)
from opendrivevla_ros.training.autovla.reinforcement import GrpoSettings
from opendrivevla_ros.training.autovla.run import AutoVlaRun
from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.training.loop import LoopSettings
from opendrivevla_ros.training.metrics import read_metrics
from opendrivevla_ros.training.recipe import EXPERT, HELD_OUT, TRAIN, OwnDrivesStep
from opendrivevla_ros.training.run_state import load_state
from opendrivevla_ros.training.step_run import WEIGHTS

TWO_STEPS = LoopSettings(steps=2, learning_rate=1e-3, batch_size=2, warmup_steps=1)
GRPO = GrpoSettings(group=2, most_thought=6, rank=0)
TINY = AutoVlaRecipe(
    scenarios=8,
    image_size=(224, 126),
    steps=(
        OwnDrivesStep(HELD_OUT, first=4, scenarios=1, driver=EXPERT),
        SightStep("sight", TWO_STEPS),
        ProposalStep("proposals", TWO_STEPS, caution=1.0),
        OwnDrivesStep("sight_drives", first=9, scenarios=1, driver="proposals"),
        AnswerStep("answers", TWO_STEPS, asks_points=True, vision=False),
        OwnDrivesStep("own_drives", first=8, scenarios=1),
        ReinforcementStep("reinforcement", TWO_STEPS, GRPO, reads=(TRAIN, "own_drives")),
        ReinforcementStep("low_rank", TWO_STEPS, replace(GRPO, rank=2)),
    ),
)


def constant(sample: StoredSample, plan: Trajectory) -> float:
    return float(plan.xy[0, 0])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> AutoVlaRun:
    """Run to its end, with the words that the tokenizer knows by itself."""
    folder = tmp_path_factory.mktemp("recipe")
    build_tokenizer(lattice()).save_pretrained(str(folder / "tokenizer"))
    made = AutoVlaRun(TINY, folder, constant)
    assert list(made.draw(processes=1))[-1] == pytest.approx(1.0)
    for step in TINY.steps:
        assert not made.is_done(step)
        if isinstance(step, OwnDrivesStep):
            assert list(made.drive(step, processes=1))[-1] == pytest.approx(1.0)
        else:
            for kind in (*step.reads, HELD_OUT) if isinstance(step, ProposalStep) else ():
                assert list(made.look(kind, processes=1))[-1] == pytest.approx(1.0)
            made.run(step)
        assert made.is_done(step)
    return made


def test_from_nothing_it_starts_with_actions_that_are_alike_where_their_motions_are(run: AutoVlaRun):
    weights = run.weights_after(TINY.step("sight"))  # which trains the tower alone
    table = weights["model.language_model.embed_tokens.weight"]
    own = F.normalize(table[-len(run.codebook()) :], dim=1)  # the last of the vocabulary
    apart = np.linalg.norm(run.codebook().contours - run.codebook().contours[0], axis=-1).mean(-1)
    near, far = (float((own[mask] @ own[0]).mean()) for mask in ((apart > 0) & (apart < 0.3), apart > 3.0))
    assert near > far + 0.2


def test_every_step_leaves_weights_and_a_finite_curve(run: AutoVlaRun):
    for step in TINY.training_steps:
        rows = read_metrics(run.folder / step.name)
        assert [row["step"] for row in rows] == [1, 2]
        assert all(math.isfinite(value) for row in rows for value in row.values())
        assert ("too_far" in rows[0]) == isinstance(step, ProposalStep)


def test_the_checkpoint_plans_and_says_how_it_was_made(run: AutoVlaRun):
    folder = run.export()
    policy = load_policy(folder, samples=0)
    plan = policy.plan(run.drives(HELD_OUT).read(0)[0].sample.observation)
    assert plan.trajectory.xy.shape == (10, 2)
    assert policy.info.trained
    text = (folder / "README.md").read_text()
    assert "- From: random weights." in text
    scales = json.loads((run.folder / "proposals" / "scales.json").read_text())
    assert [list(pair) for pair in load_config(folder).proposal_scales] == scales
    assert "| proposals | what sight reads in train | 2 | 4 | 0.001 | loss " in text
    assert "| sight | what is there in train | 2 | 4 | 0.001 | loss " in text
    assert "| answers | answers in train | 2 | 4 | 0.001 | loss " in text
    assert "| reinforcement | rewards of 2 own answers a prompt in train, own_drives | 2 | 4 | 0.001 | reward " in text


def test_only_the_query_learns_in_a_step_of_proposals_and_sight_rests_after_it(run: AutoVlaRun):
    seen, proposed, answered = (run.weights_after(run.recipe.step(name)) for name in ("sight", "proposals", "answers"))
    changed = {name for name in seen if not torch.equal(seen[name], proposed[name])}
    assert changed
    assert all(name.startswith("sight.query.") for name in changed)
    kept = {name for name in proposed if torch.equal(proposed[name], answered[name])}
    assert all(name in kept for name in proposed if name.startswith(("sight.", "model.visual.blocks.")))
    assert not any(name in kept for name in proposed if name.startswith("model.visual.merger.mlp."))


def test_what_sight_read_at_the_wheel_need_not_be_looked_at_again(run: AutoVlaRun):
    drives = run.drives("sight_drives")
    (name,) = drives.names
    kept = torch.load(run.folder / "ground" / "sight_drives" / f"{name}.pt")
    assert len(kept["ground"]) == len(kept["plans"]) > 0  # who drives has hardly learned and may soon be off the road
    assert list(run.look("sight_drives", processes=1)) == [1.0]
    looked = run.folder / "looked"
    list(write_ground(drives, looked, run.folder / "sight_drives", processes=1))
    again = torch.load(looked / f"{name}.pt")
    assert len(again["plans"]) == len(kept["plans"])
    # what is stored went through JPEG, what it saw did not
    off = (kept["ground"].float() - again["ground"].float()).abs().mean()
    assert off < 0.1 * again["ground"].float().std()
    assert [plan[1].tolist() for plan in kept["plans"]] == [plan[1].tolist() for plan in again["plans"]]


def test_a_broken_file_of_a_run_is_told_by_name(run: AutoVlaRun, tmp_path: Path):
    copy = AutoVlaRun(TINY, tmp_path / "copy", constant)
    shutil.copytree(run.folder, copy.folder)

    def cut(path: Path) -> None:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    (part,) = (copy.folder / "ground" / HELD_OUT).glob("*.pt")
    cut(part)
    with pytest.raises(TrainingError, match=rf"{part} is no whole file of the ground; delete it"):
        GroundMoments([part.parent])
    cut(copy.folder / "proposals" / "scales.json")
    with pytest.raises(
        TrainingError, match=r"proposals/scales\.json is no whole file of scales; delete .*proposals to"
    ):
        copy.config()
    shutil.copy(run.folder / "proposals" / "scales.json", copy.folder / "proposals")
    cut(copy.folder / "low_rank" / WEIGHTS)
    with pytest.raises(TrainingError, match=r"low_rank/weights\.pt is no whole file of weights; delete it to train"):
        copy.export()
    torch.save({"other": torch.zeros(1)}, copy.folder / "low_rank" / WEIGHTS)
    with pytest.raises(TrainingError, match=r"low_rank holds weights of another model \(Missing key.*choose another"):
        copy.export()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # numpy's own archive
@pytest.mark.parametrize("size", [0, 3000, 60_000])  # the configuration, the codebook, or the weights
def test_a_disk_that_fills_keeps_the_last_checkpoint_whole(run: AutoVlaRun, size: int):
    folder = run.export()
    known = verified_hash(folder)
    with (
        files_limited_to(size),
        pytest.raises(CheckpointError, match=r"checkpoint cannot be written \(File too large.*; free disk space"),
    ):
        run.export()
    assert verified_hash(folder) == known
    load_policy(folder, samples=0)
    assert not list(run.folder.glob("checkpoint.*"))


def test_a_disk_that_fills_at_the_end_of_a_step_keeps_what_it_left_before(run: AutoVlaRun, tmp_path: Path):
    copy = AutoVlaRun(TINY, tmp_path / "copy", constant)
    shutil.copytree(run.folder, copy.folder)
    (step,) = [step for step in TINY.training_steps if step.name == "low_rank"]
    with files_limited_to(2000), pytest.raises(TrainingError, match=r"cannot be written to .*; free disk space"):
        copy.run(step)
    assert torch.equal(*(one.weights_after(step)["lm_head.weight"] for one in (run, copy)))
    assert not list((copy.folder / "low_rank").glob("*.tmp"))


def test_nothing_can_look_before_something_learned_to_see(tmp_path: Path):
    blind = replace(TINY, steps=tuple(step for step in TINY.steps if not isinstance(step, SightStep)))
    with pytest.raises(TrainingError, match="nothing of this recipe learned to see; keep its stage sight"):
        list(AutoVlaRun(blind, tmp_path, constant).look(TRAIN, processes=1))


def test_low_rank_changes_are_in_the_weights_that_are_left(run: AutoVlaRun):
    before, after = (run.weights_after(step) for step in run.recipe.training_steps[-2:])
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.split(".")[-2] in ("q_proj", "k_proj", "v_proj", "o_proj") for name in changed)
    assert before.keys() == after.keys()


def test_two_processes_share_the_prompts_and_not_the_groups(run: AutoVlaRun, tmp_path: Path):
    for name in ("drives", "tokenizer", "proposals", "answers"):
        shutil.copytree(run.folder / name, tmp_path / name)
    script = tmp_path / "together.py"
    script.write_text(
        "from pathlib import Path\n"
        "from training.autovla.test_run import TINY, constant\n"
        "from opendrivevla_ros.training.autovla.run import AutoVlaRun\n"
        "AutoVlaRun(TINY, Path(__file__).parent, constant).run(TINY.step('reinforcement'))\n"
    )
    paths = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    subprocess.run(command, env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}, check=True, timeout=180)
    state = load_state(tmp_path / "reinforcement")
    assert state is not None
    assert (state.settings["processes"], state.settings["batch_size"]) == (2, 1)
    alone, together = (read_metrics(folder / "reinforcement") for folder in (run.folder, tmp_path))
    for name in ("measured_reward", "measured_slow"):  # the first answers are the same ones
        assert together[0][name] == pytest.approx(alone[0][name], abs=1e-5)


@pytest.mark.parametrize("muon", [True, False])
def test_the_matrices_of_the_language_layers_alone_learn_by_muon(tmp_path: Path, *, muon: bool):
    start = write_folder(tmp_path / "start", tiny_model())
    drives(tmp_path / "run" / "drives" / TRAIN)
    step = AnswerStep("answers", TWO_STEPS, muon=muon)
    made = AutoVlaRun(replace(TINY, steps=(step,)), tmp_path / "run", constant, start=start)
    made.run(step)
    state = load_state(tmp_path / "run" / "answers")
    assert state is not None
    layers = tiny_model().model.language_model.layers
    matrices = [weight for weight in layers.parameters() if weight.dim() == 2]
    assert len(matrices) == 14  # q, k, v, o, gate, up and down of two layers
    by_muon = len(state.optimizer["muon"]["state"]) if "muon" in state.optimizer else 0
    assert by_muon == (len(matrices) if muon else 0)


def test_a_checkpoint_is_gone_on_from(tmp_path: Path):
    start = write_folder(tmp_path / "start", tiny_model())
    drives(tmp_path / "run" / "drives" / TRAIN)
    recipe = replace(TINY, steps=(TINY.step("answers"),))
    made = AutoVlaRun(recipe, tmp_path / "run", constant, start=start)
    made.run(recipe.training_steps[0])
    folder = made.export()
    info = load_policy(folder, samples=0).info
    assert (info.model_id, info.trained) == ("autovla-tiny", True)
    assert "- From: SHA-256 " in (folder / "README.md").read_text()


def alike(model: AutoVlaModel) -> float:
    """By how much more the action tokens of near motions are alike than those of far ones, -2 to 2."""
    codebook, first = tiny_codebook(), model.autovla_config.first_action_id
    own = F.normalize(model.get_input_embeddings().weight[first : first + len(codebook)].float(), dim=1)
    apart = np.linalg.norm(codebook.contours - codebook.contours[0], axis=-1).mean(-1)
    near, far = (own[mask] @ own[0] for mask in ((apart > 0) & (apart < np.median(apart)), apart > np.median(apart)))
    return float(near.mean() - far.mean())


@pytest.mark.parametrize("trained", [True, False])
def test_actions_that_mean_nothing_yet_start_from_their_motions_and_others_stay(tmp_path: Path, *, trained: bool):
    model = tiny_model(trained=trained)
    model.autovla_config = replace(model.autovla_config, trained=trained)
    start = write_folder(tmp_path / "start", model)
    before = load_model(start)[0]
    drives(tmp_path / "run" / "drives" / TRAIN)
    step = AnswerStep("answers", replace(TWO_STEPS, learning_rate=1e-9), muon=False)
    made = AutoVlaRun(replace(TINY, steps=(step,)), tmp_path / "run", constant, start=start)
    made.run(step)
    after = load_model(made.export())[0]
    assert (alike(after) > alike(before) + 0.1) == (not trained)


def test_a_run_keeps_the_codebook_that_it_began_with(tmp_path: Path):
    tiny_codebook().save(tmp_path / "own.npz")
    lattice().save(tmp_path / "lattice.npz")
    drives(tmp_path / "run" / "drives" / TRAIN)
    step = AnswerStep("answers", TWO_STEPS)
    recipe = replace(TINY, steps=(step,))
    build_tokenizer(tiny_codebook()).save_pretrained(str(tmp_path / "run" / "tokenizer"))
    shutil.copy(tmp_path / "own.npz", tmp_path / "run" / "action_codebook.npz")
    AutoVlaRun(recipe, tmp_path / "run", constant).run(step)  # as the processes of a stage, which are told no codebook
    again = AutoVlaRun(recipe, tmp_path / "run", constant, codebook=tmp_path / "own.npz")
    assert load_config(again.export()).codebook_sha256 == codebook_hash(tiny_codebook())
    with pytest.raises(
        TrainingError, match=r"has the action codebook [0-9a-f]{12}, but .*lattice\.npz is .*another folder"
    ):
        AutoVlaRun(recipe, tmp_path / "run", constant, codebook=tmp_path / "lattice.npz")
    start = write_folder(tmp_path / "start", tiny_model())
    with pytest.raises(
        TrainingError, match=r"the codebook of .*start is taken over with its tokens; leave .*own\.npz out"
    ):
        AutoVlaRun(recipe, tmp_path / "other", constant, start=start, codebook=tmp_path / "own.npz")
    AutoVlaRun(recipe, tmp_path / "other", constant, codebook=tmp_path / "own.npz")
    assert (tmp_path / "other" / "action_codebook.npz").is_file()


def test_a_step_before_its_turn_is_refused(tmp_path: Path):
    build_tokenizer(lattice()).save_pretrained(str(tmp_path / "tokenizer"))
    run = AutoVlaRun(TINY, tmp_path, constant)
    with pytest.raises(TrainingError, match=r"the stage answers is not done in .*; run it first"):
        run.run(TINY.training_step("reinforcement"))


def test_recorded_drives_are_learned_from_without_anybody_driving():
    for recipe in RECIPES.values():
        recorded = recipe.of_recorded_drives()
        assert recorded.steps == recorded.training_steps
        assert all(step.reads == (TRAIN,) for step in recorded.training_steps)


def test_drives_that_nobody_draws_cannot_be_read():
    step = AnswerStep("answers", TWO_STEPS, reads=("own_drives",))
    with pytest.raises(TrainingError, match="answers reads own_drives, which no step before it draws"):
        replace(TINY, steps=(step, *TINY.steps[2:]))
    with pytest.raises(
        TrainingError, match="unknown stage 'warp'; the recipe's are, in their order, held_out_drives, "
    ):
        TINY.step("warp")
