"""A whole recipe with tiny numbers: drives, every stage, and a checkpoint that plans."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from opendrivevla_ros.cli.launcher import QUIET
from opendrivevla_ros.language.small_tokenizer import build_small_tokenizer
from opendrivevla_ros.policies.opendrivevla.model import load_config
from opendrivevla_ros.policies.registry import load_policy
from opendrivevla_ros.training import recipe_run
from opendrivevla_ros.training.card import card
from opendrivevla_ros.training.ego_driver import load_ego_training
from opendrivevla_ros.training.ego_step import query_of, with_ego_tokens
from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.training.loop import LoopSettings
from opendrivevla_ros.training.metrics import read_metrics
from opendrivevla_ros.training.recipe import (
    EXPERT,
    HELD_OUT,
    SMALL,
    TRAIN,
    EgoStep,
    LanguageStep,
    OwnDrivesStep,
    PerceptionStep,
    PlanningStep,
    Recipe,
)
from opendrivevla_ros.training.recipe_run import RecipeRun
from opendrivevla_ros.training.run_state import load_state
from opendrivevla_ros.training.seen_tokens import load_tokens
from opendrivevla_ros.training.stages import STAGES
from opendrivevla_ros.training.step_run import WEIGHTS
from opendrivevla_ros.training.times import TIMES_FILE

TWO_STEPS = LoopSettings(steps=2, learning_rate=1e-3, batch_size=2, warmup_steps=1)
ALL_DRIVES = (TRAIN, "expert_drives", "ego_drives", "own_drives")
TINY = Recipe(
    scenarios=2,
    image_size=(224, 126),
    steps=(
        OwnDrivesStep("expert_drives", first=2, scenarios=1, driver=EXPERT),
        OwnDrivesStep(HELD_OUT, first=4, scenarios=2, driver=EXPERT, families=("junction_straight",)),
        PerceptionStep("perception", TWO_STEPS, 2),
        PerceptionStep("sequences", TWO_STEPS, 3, reads=(TRAIN, "expert_drives"), fixed_norms=True),
        EgoStep("ego", TWO_STEPS, reads=(TRAIN, "expert_drives"), caution=1.0),
        OwnDrivesStep("ego_drives", first=14, scenarios=1, driver="ego"),
        LanguageStep("schooling", "schooling", TWO_STEPS, reads=(TRAIN, "expert_drives"), truth=True),
        LanguageStep("alignment", "alignment", TWO_STEPS, {"caption": 1.0}),
        OwnDrivesStep("own_drives", first=25, scenarios=1),
        LanguageStep(
            "interaction",
            "interaction",
            TWO_STEPS,
            {"agent": 1.0, "plan": 0.1},
            reads=ALL_DRIVES,
        ),
        PerceptionStep("longer", TWO_STEPS, 2, fixed_norms=True),
        OwnDrivesStep("later_drives", first=27, scenarios=1, driver="longer"),
        EgoStep("late", TWO_STEPS, reads=(TRAIN, "later_drives")),
        PlanningStep("planning", TWO_STEPS, 2),
    ),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RecipeRun:
    """Run to its end, with the words that the tokenizer knows by itself."""
    folder = tmp_path_factory.mktemp("recipe")
    build_small_tokenizer().save_pretrained(str(folder / "tokenizer"))
    made = RecipeRun(TINY, folder)
    assert list(made.draw(processes=1))[-1] == pytest.approx(1.0)
    for step in TINY.steps:
        for kind in step.reads if isinstance(step, EgoStep | LanguageStep) else ():
            assert list(made.look(1, kind, step))[-1] == pytest.approx(1.0)
        if isinstance(step, OwnDrivesStep):
            assert list(made.drive(step, processes=1))[-1] == pytest.approx(1.0)
        else:
            made.run(step)
    assert list(made.look(1, HELD_OUT))[-1] == pytest.approx(1.0)
    return made


def test_every_step_leaves_weights_and_a_finite_curve(run: RecipeRun):
    for step in TINY.steps:
        assert run.is_done(step)
    for step in TINY.training_steps:
        assert [row["step"] for row in read_metrics(run.folder / step.name)] == [1, 2]


def test_a_step_changes_what_its_stage_trains_and_nothing_else(run: RecipeRun):
    before: dict[str, torch.Tensor] = {}
    for step in TINY.training_steps:
        after = run.weights_after(step)
        learned = {name for name in before.keys() & after if not torch.equal(before[name], after[name])}
        of_the_model = {name for name in learned if name.startswith(("perception.", "language."))}
        statistics = {name for name in of_the_model if ".running_" in name or "num_batches" in name}
        assert all(STAGES[step.stage].trains(name) for name in of_the_model - statistics), step.name
        if step.name == "sequences" or step.stage != "perception":
            assert not statistics, step.name
        trained_before = any(STAGES[step.stage].trains(name) for name in before)
        assert bool(of_the_model) == trained_before, step.name
        before |= after


def test_a_step_that_drives_trains_nothing(run: RecipeRun):
    with pytest.raises(TrainingError, match="ego_drives drives and trains nothing"):
        run.recipe.training_step("ego_drives")


def test_each_step_reads_what_the_perception_before_it_sees(run: RecipeRun):
    seen = {name: load_tokens(run.folder / f"tokens_{name}" / TRAIN) for name in ("sequences", "longer")}
    assert len(seen["sequences"]) == len(seen["longer"]) > 0
    assert not torch.equal(seen["sequences"][0].features.scene, seen["longer"][0].features.scene)
    later = run.recipe.step("late")
    kept = (run.folder / "tokens_longer" / "later_drives").glob("*.safetensors")
    before = {path: path.stat().st_mtime_ns for path in kept}
    assert len(before) == 1
    assert isinstance(later, EgoStep)
    assert list(run.look(1, "later_drives", later))[-1] == pytest.approx(1.0)  # its driver has kept what it saw
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_step_drives_the_scenarios_of_its_families_alone(run: RecipeRun):
    held_out = run.recipe.step(HELD_OUT)
    assert isinstance(held_out, OwnDrivesStep)
    assert len(held_out.numbers) == 1
    assert [name.split("-")[0] for name in run.drives(HELD_OUT).names] == [f"own{held_out.numbers[0]:06d}"]


def test_the_checkpoint_tells_how_many_times_as_far_off_as_expected_proposals_were(
    run: RecipeRun,
):
    weights = torch.load(run.folder / "planning" / WEIGHTS, weights_only=True)
    training = load_ego_training(run.folder / "ego" / WEIGHTS, run.config().perception)
    training.load_state_dict({name: weights.get(name, value) for name, value in training.state_dict().items()})
    query = query_of(training.perception)
    told = with_ego_tokens(load_tokens(run.folder / "tokens_longer" / HELD_OUT), query)
    known = [one for one in told if one.plan is not None and one.plan.known.all()]
    off = np.mean([np.abs(one.features.proposal - one.plan.path) for one in known], axis=0)
    with torch.inference_mode():
        tokens = torch.stack([one.features.agents[0].float() for one in known])  # the ego's leads
        expected = query.doubt(tokens, torch.stack([one.plan.ego for one in known])).mean(0).numpy()
    np.testing.assert_allclose(load_config(run.export()).proposal_scales, off / expected, rtol=1e-2, atol=6e-4)


def test_the_checkpoint_plans_what_the_world_shows_it(run: RecipeRun):
    folder = run.export()
    assert "2 scenarios" in (folder / "README.md").read_text()
    assert (folder / "model.safetensors").stat().st_size < 16e6
    policy = load_policy(folder)
    observation = run.drives(HELD_OUT).read(0)[0].sample.observation
    plan = policy.plan(observation)
    assert plan.trajectory.xy.shape == (6, 2)
    assert policy.info.trained


def test_perception_learns_from_all_the_drives_that_it_reads(run: RecipeRun):
    for name, kinds, frames in (("perception", (TRAIN,), 2), ("sequences", (TRAIN, "expert_drives"), 3)):
        state = load_state(run.folder / name)
        assert state is not None
        clips = sum(length // frames for kind in kinds for length in run.drives(kind).lengths)
        assert state.settings["samples"] == clips


def test_the_card_says_what_each_step_learned_from(run: RecipeRun):
    (run.folder / TIMES_FILE).write_text("planning,5400.0\n")
    text = (run.export() / "README.md").read_text()
    assert "- expert_drives: 1 drives of the expert, undisturbed, " in text
    assert "- ego_drives: 1 drives of ego, " in text
    assert "- own_drives: 1 drives of the policy before it, " in text
    assert "- Time: 1.5 hours by the clock: planning 1.5." in text
    assert "| sequences | perception | clips of 3 frames of train, expert_drives | 2 |" in text
    assert "| ego | ego | tokens of train, expert_drives | 2 |" in text
    told = "7 plan, 0.5 caption, 1.5 question, 1 agent; 4 moments a turn"
    assert f"| truth of train, expert_drives; {told} |" in text
    assert "| tokens of train, expert_drives, ego_drives, own_drives; 1 agent, 0.1 plan; 4 moments a turn |" in text


def test_two_processes_train_one_step_together_and_share_its_batch(run: RecipeRun, tmp_path: Path):
    for name in ("tokens_sequences", "tokenizer", "sequences", "perception"):
        shutil.copytree(run.folder / name, tmp_path / name)
    script = tmp_path / "together.py"
    script.write_text(
        "from pathlib import Path\n"
        "from training.test_recipe_run import TINY\n"
        "from opendrivevla_ros.training.recipe_run import RecipeRun\n"
        "RecipeRun(TINY, Path(__file__).parent).run(TINY.training_step('ego'))\n"
    )
    paths = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    environment = os.environ | QUIET | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    told = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, check=True, timeout=120).stderr
    assert "find_unused_parameters" not in told  # torch's advice, once a process, is nothing to a user
    state = load_state(tmp_path / "ego")
    assert state is not None
    assert (state.settings["processes"], state.settings["batch_size"]) == (2, 1)
    assert len(list((tmp_path / "ego" / "tensorboard").iterdir())) == 1
    rows = read_metrics(tmp_path / "ego")
    assert [row["step"] for row in rows] == [1, 2]
    assert all(row["too_far"] >= 0.0 for row in rows)


def test_recorded_drives_are_learned_from_without_anybody_driving():
    recipe = TINY.of_recorded_drives()
    names = [step.name for step in recipe.steps]
    words = ["schooling", "alignment", "interaction"]
    assert names == ["perception", "sequences", *words, "longer", "late", "planning"]
    read = [step.reads for step in recipe.steps if isinstance(step, PerceptionStep | EgoStep | LanguageStep)]
    assert read == [(TRAIN,)] * 7
    # there, what is learned to be sent and again after that would be learned twice from the same
    small = [step.name for step in SMALL.of_recorded_drives().steps]
    assert [name for name in small if name.startswith("ego")] == ["ego"]


def test_a_card_of_recorded_drives_does_not_tell_of_the_world(run: RecipeRun):
    told = card(TINY.of_recorded_drives(), [], model_id="own", drives={TRAIN: run.drives()}, times={})
    assert "on recorded drives" in told
    assert "driving world" not in told
    assert "scenarios" not in told


def test_nobody_is_sent_who_does_not_learn_and_nobody_learns_from_what_nobody_sees():
    assert "drives_2" not in [step.name for step in SMALL.without(["ego_2"]).steps]
    assert all("drives_2" not in getattr(step, "reads", ()) for step in SMALL.without(["ego_2"]).steps)
    with pytest.raises(
        TrainingError, match="ego_1 learns from what perception sees; keep a stage of perception before"
    ):
        SMALL.without(["perception", "sequences"])


def test_a_recipe_that_thinks_makes_a_model_that_does_and_no_other(run: RecipeRun, tmp_path: Path):
    step = replace(TINY.step("schooling"), reads=(TRAIN,))
    thinking = RecipeRun(replace(TINY, steps=(step,), thinks=True), tmp_path / "thinking")
    for part in ("tokenizer", "drives"):
        shutil.copytree(run.folder / part, thinking.folder / part)
    list(thinking.look(1, TRAIN, step))
    thinking.run(step)
    made = thinking.export()
    assert load_config(made).thinks
    assert "`odv train --preset small-thinking`" in (made / "README.md").read_text()
    with pytest.raises(TrainingError, match=r"thinking were looked at for a model that thinks; choose another"):
        RecipeRun(replace(TINY, steps=(step,)), thinking.folder).run(step)
    assert not load_config(run.export()).thinks


def test_a_step_before_its_turn_is_refused(tmp_path: Path):
    build_small_tokenizer().save_pretrained(str(tmp_path / "tokenizer"))
    with pytest.raises(TrainingError, match=r"perception is not done in .*; run it first"):
        RecipeRun(TINY, tmp_path).weights_before(TINY.step("alignment"))


def test_who_learns_from_the_truth_waits_for_no_perception(tmp_path: Path):
    assert RecipeRun(TINY, tmp_path).weights_before(TINY.step("schooling")) == {}


def test_a_batch_that_the_processes_cannot_share_is_refused(run: RecipeRun, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(recipe_run, "PartialState", lambda **_: SimpleNamespace(num_processes=3, is_main_process=True))
    with pytest.raises(TrainingError, match="3 processes cannot share a batch of 2; give a number that divides it"):
        run.run(TINY.step("schooling"))


def test_a_recipe_without_a_stage_has_the_others_in_their_order():
    names = [step.name for step in SMALL.without(["alignment"]).steps]
    assert names == [step.name for step in SMALL.steps if step.name != "alignment"]
    with pytest.raises(TrainingError, match="unknown stage 'warp'"):
        SMALL.without(["warp"])


@pytest.mark.parametrize("step", ["ego", "schooling"])
def test_what_starts_from_nothing_learns_by_muon(run: RecipeRun, step: str):
    state = load_state(run.folder / step)
    assert state is not None
    assert set(state.optimizer) == {"adamw", "muon"}


def test_an_unknown_stage_is_named_with_those_that_there_are():
    with pytest.raises(TrainingError, match="unknown stage 'warp'; the recipe's are, in their order, expert_drives, "):
        SMALL.step("warp")


@pytest.mark.parametrize("driven", ["expert_drives", "ego_drives", "own_drives"])
def test_own_drives_are_what_was_met_with_the_experts_answers(run: RecipeRun, driven: str):
    (stretch,) = [run.drives(driven).read(index) for index in range(len(run.drives(driven).names))]
    times = [stored.sample.observation.stamp_ns for stored in stretch]
    assert len(times) > 1
    assert {after - before for before, after in pairwise(times)} == {500_000_000}
    assert [stored.sample.index for stored in stretch] == list(range(len(times)))
    assert all(stored.words is not None and stored.sample.agents is not None for stored in stretch)
