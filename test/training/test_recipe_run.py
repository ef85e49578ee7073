"""A whole recipe with tiny numbers: drives, every stage, and a checkpoint that plans."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch

from opendrivevla_ros.language.small_tokenizer import build_small_tokenizer
from opendrivevla_ros.policies.registry import load_policy
from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.training.loop import LoopSettings
from opendrivevla_ros.training.metrics import read_metrics
from opendrivevla_ros.training.recipe import SMALL, LanguageStep, OwnDrivesStep, PerceptionStep, PlanningStep, Recipe
from opendrivevla_ros.training.recipe_run import RecipeRun
from opendrivevla_ros.training.stages import STAGES

TWO_STEPS = LoopSettings(steps=2, learning_rate=1e-3, batch_size=2, warmup_steps=1)
TINY = Recipe(
    scenarios=2,
    validation=1,
    image_size=(224, 126),
    steps=(
        PerceptionStep("perception", TWO_STEPS, 2),
        PerceptionStep("sequences", TWO_STEPS, 3, fixed_norms=True),
        LanguageStep("schooling", "schooling", TWO_STEPS, truth=True),
        LanguageStep("alignment", "alignment", TWO_STEPS, {"caption": 1.0}),
        OwnDrivesStep("own_drives", first=2, scenarios=1),
        LanguageStep("interaction", "interaction", TWO_STEPS, {"agent": 1.0, "plan": 0.1}, own=True),
        PlanningStep("planning", TWO_STEPS, 2),
    ),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RecipeRun:
    """Run to its end, with the words that the tokenizer knows by itself."""
    folder = tmp_path_factory.mktemp("recipe")
    build_small_tokenizer().save_pretrained(str(folder / "tokenizer"))
    recipe_run = RecipeRun(TINY, folder)
    assert list(recipe_run.draw(processes=1))[-1] == pytest.approx(1.0)
    for step in TINY.steps:
        if step.name == "alignment":
            assert list(recipe_run.look(processes=1))[-1] == pytest.approx(1.0)
        if isinstance(step, OwnDrivesStep):
            assert list(recipe_run.drive(step, processes=1))[-1] == pytest.approx(1.0)
        else:
            recipe_run.run(step)
    return recipe_run


def test_every_step_leaves_weights_and_a_finite_curve(run: RecipeRun):
    for step in TINY.steps:
        assert run.is_done(step)
    for step in TINY.training_steps:
        assert [row["step"] for row in read_metrics(run.folder / step.name)] == [1, 2]


def test_a_step_changes_what_its_stage_trains_and_nothing_else(run: RecipeRun):
    before: dict[str, torch.Tensor] = {}
    for step in TINY.training_steps:
        after = run.weights_after(step)
        learned = {name for name in before if not torch.equal(before[name], after[name])}
        of_the_model = {name for name in learned if name.startswith(("perception.", "language."))}
        statistics = {name for name in of_the_model if ".running_" in name or "num_batches" in name}
        assert all(STAGES[step.stage].trains(name) for name in of_the_model - statistics), step.name
        if step.name == "sequences" or step.stage != "perception":
            assert not statistics, step.name
        trained_before = any(STAGES[step.stage].trains(name) for name in before)
        assert bool(of_the_model) == trained_before, step.name
        before = after


def test_the_checkpoint_plans_what_the_world_shows_it(run: RecipeRun):
    folder = run.export()
    assert "2 scenarios" in (folder / "README.md").read_text()
    assert (folder / "model.safetensors").stat().st_size < 16e6
    policy = load_policy(folder)
    observation = run.drives("validation").read(0)[0].sample.observation
    plan = policy.plan(observation)
    assert plan.trajectory.xy.shape == (6, 2)
    assert policy.info.trained


def test_a_step_before_its_turn_is_refused(tmp_path: Path):
    build_small_tokenizer().save_pretrained(str(tmp_path / "tokenizer"))
    with pytest.raises(TrainingError, match=r"sequences is not done in .*; run it first"):
        RecipeRun(TINY, tmp_path).weights_before(TINY.step("schooling"))


def test_a_recipe_without_a_stage_has_the_others_in_their_order():
    names = [step.name for step in SMALL.without(["alignment"]).steps]
    assert names == [step.name for step in SMALL.steps if step.name != "alignment"]
    with pytest.raises(TrainingError, match="unknown stage 'warp'"):
        SMALL.without(["warp"])


def test_an_unknown_stage_is_named_with_those_that_there_are():
    with pytest.raises(TrainingError, match="unknown stage 'warp'; the recipe's are, in their order, perception"):
        SMALL.step("warp")


def test_own_drives_are_what_the_policy_met_with_the_experts_answers(run: RecipeRun):
    (stretch,) = [run.drives("own").read(index) for index in range(len(run.drives("own").names))]
    times = [stored.sample.observation.stamp_ns for stored in stretch]
    assert len(times) > 1
    assert {after - before for before, after in pairwise(times)} == {500_000_000}
    assert [stored.sample.index for stored in stretch] == list(range(len(times)))
    assert all(stored.words is not None and stored.sample.agents is not None for stored in stretch)
