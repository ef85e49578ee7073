"""A student beside its teacher: nearer to its distributions and plans, the same after a break; who cannot teach."""

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from policies.autovla.tiny import tiny_codebook, tiny_config, tiny_model, tiny_policy, tiny_tokenizer, write_folder
from training.autovla.drives import drives
from training.autovla.warm import actions

from opendrivevla_ros.core.plan import ThinkingMode
from opendrivevla_ros.core.trajectory import Trajectory
from opendrivevla_ros.datasets.drive_store import DriveStore, StoredSample
from opendrivevla_ros.language.action_codebook import ActionCodebook
from opendrivevla_ros.policies.autovla.config import ALL_CAMERAS
from opendrivevla_ros.policies.autovla.loading import from_folder
from opendrivevla_ros.policies.autovla.model import AutoVlaModel, codebook_hash, load_model, save_model
from opendrivevla_ros.policies.autovla.tokenizer import build_tokenizer
from opendrivevla_ros.policies.loading import PlanningOptions
from opendrivevla_ros.training.autovla.answers import AnswerTraining
from opendrivevla_ros.training.autovla.distillation import (
    Distillation,
    TaughtExample,
    TaughtExamples,
    softened_divergence,
)
from opendrivevla_ros.training.autovla.examples import PlanExamples
from opendrivevla_ros.training.autovla.recipe import AUTOVLA_SMALL, AnswerStep, AutoVlaRecipe, DistillationStep
from opendrivevla_ros.training.autovla.run import AutoVlaRun
from opendrivevla_ros.training.autovla.teacher import WrittenPlan, read_plans
from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.training.loop import LoopSettings
from opendrivevla_ros.training.recipe import TRAIN

SLOWER = 0.5  # of the logged way: what this teacher has learned to plan
SEES = {"image_size": (84, 56), "cameras": ALL_CAMERAS}  # what its students do not
LOOP = LoopSettings(steps=4, learning_rate=3e-3, batch_size=4, warmup_steps=1, clip_norm=1.0, save_every=2)
STEP = DistillationStep("taught_answers", LOOP, reasoning_weight=4.0)


def recipe(step: AnswerStep = STEP) -> AutoVlaRecipe:
    return AutoVlaRecipe(scenarios=1, image_size=(112, 63), steps=(step,))


def unasked(sample: StoredSample, plan: Trajectory) -> float:
    raise AssertionError("nothing is rewarded here")


def taught_run(folder: Path, teacher: Path, step: AnswerStep = STEP) -> AutoVlaRun:
    """Of a student with random weights, on a fast and a slow drive."""
    drives(folder / "drives" / TRAIN)
    return AutoVlaRun(recipe(step), folder, unasked, start=write_folder(folder / "start"), teacher=teacher)


def read_by(model: AutoVlaModel, store: DriveStore) -> PlanExamples:
    return PlanExamples([store], model.autovla_config, tiny_tokenizer(), actions())


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that drives more slowly than the logs, and thinks in the second drive."""
    folder = tmp_path_factory.mktemp("teacher")
    model = tiny_model(3, **SEES)
    found = read_by(model, drives(folder / "drives"))
    lessons = []
    for index in range(0, 12, 2):
        example = found[index]
        slower = SLOWER * 0.5 * np.arange(1, 11) * example.sample.sample.observation.ego.speed
        way = np.column_stack([slower, np.zeros((10, 2))])
        lessons.append(replace(example, actions=tiny_codebook().encode(way).tolist()))
    training = AnswerTraining(model, tiny_tokenizer(), actions(), reasoning_weight=4.0)
    optimiser = torch.optim.AdamW(model.parameters(), 5e-3)
    for _ in range(100):
        torch.stack(list(training(lessons).values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
    return write_folder(folder / "checkpoint", model)


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory, teacher: Path) -> AutoVlaRun:
    """A run whose teacher has planned, and which nothing has trained."""
    run = taught_run(tmp_path_factory.mktemp("planned"), teacher)
    assert list(run.plan(STEP, processes=1))[-1] == pytest.approx(1.0)
    return run


def copied(planned: AutoVlaRun, folder: Path, teacher: Path, step: AnswerStep = STEP) -> AutoVlaRun:
    """Another run with the same plans."""
    run = taught_run(folder, teacher, step)
    for path in (planned.folder / "teacher_plans").rglob("*.*"):
        there = folder / path.relative_to(planned.folder)
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_bytes(path.read_bytes())
    return run


def test_the_teacher_plans_as_it_drives_and_in_its_own_mode(planned: AutoVlaRun, teacher: Path):
    written = read_plans(planned.folder / "teacher_plans" / TRAIN)
    assert len(written) == 12
    policy = from_folder(teacher, device="cpu", precision="float32", seed=0, samples=0)
    policy.set_thinking_mode(ThinkingMode.AUTO)
    store, modes = planned.drives(), set()
    for stretch in range(2):
        policy.reset()
        for stored in store.read(stretch):
            plan, kept = policy.plan(stored.sample.observation), written[stored.sample.token]
            assert kept is not None
            assert (kept.thought is None) == (plan.reasoning.actual_mode is ThinkingMode.FAST)
            assert kept.thought in (None, plan.reasoning.text)
            np.testing.assert_allclose(tiny_codebook().decode(kept.actions)[:, :2], plan.trajectory.xy, atol=1e-6)
            modes.add(plan.reasoning.actual_mode)
    assert modes == {ThinkingMode.FAST, ThinkingMode.SLOW}


def test_what_was_planned_is_not_planned_again(planned: AutoVlaRun, tmp_path: Path, teacher: Path):
    run = copied(planned, tmp_path, teacher)
    first, second = sorted((tmp_path / "teacher_plans" / TRAIN).glob("*.json"))
    content = second.read_text()
    second.unlink()
    marked = dict.fromkeys(json.loads(first.read_text()))
    first.write_text(json.dumps(marked))
    shares = list(run.plan(STEP, processes=1))
    assert shares[0] == 0.5
    assert json.loads(first.read_text()) == marked
    assert second.read_text() == content
    assert list(run.plan(STEP, processes=1)) == [1.0]


def test_both_answer_each_prompt_of_their_own_with_the_same(planned: AutoVlaRun, teacher: Path):
    student, large, store = tiny_model(), load_model(teacher)[0], planned.drives()
    written = read_plans(planned.folder / "teacher_plans" / TRAIN)
    own, others = read_by(student, store), read_by(large, store)
    taught = TaughtExamples(own, others, {**written, own.tokens[1]: None})
    assert len(taught) == 12 + 11
    logged, planned_there = taught[6], taught[12 + 5]  # the second moment has no plan of the teacher
    assert logged.student.actions == own[6].actions
    plan = written[own.tokens[6]]
    assert plan is not None
    assert (planned_there.student.actions, planned_there.student.thought) == (plan.actions, plan.thought)
    for pair in (logged, planned_there):
        assert (pair.teacher.actions, pair.teacher.thought) == (pair.student.actions, pair.student.thought)
        assert pair.teacher.videos.shape != pair.student.videos.shape
        assert list(pair.student.ids) == list(own[6].ids)
        assert list(pair.teacher.ids) == list(others[6].ids)


def test_a_student_gets_nearer_to_its_teacher_than_one_without(planned: AutoVlaRun, tmp_path: Path, teacher: Path):
    loop = replace(LOOP, steps=80, learning_rate=6e-3, save_every=100)
    large = load_model(teacher)[0].float()
    apart, metres = [], []
    for step in (replace(STEP, loop=loop), AnswerStep("answers", loop, reasoning_weight=4.0)):
        run = copied(planned, tmp_path / step.name, teacher, step)
        run.run(step)
        student = tiny_model()
        student.load_state_dict(run.weights_after(step))
        apart.append(divergence(student, large, planned))
        metres.append(distance(student, large, planned.drives()))
    assert apart[0] < 0.6 * apart[1]
    assert metres[0] < 0.5 * metres[1]


def divergence(student: AutoVlaModel, teacher: AutoVlaModel, planned: AutoVlaRun) -> float:
    """Of the student from its teacher at the teacher's own answers, nats a token."""
    pairs = taught_examples(student, teacher, planned)
    both = (AnswerTraining(model, tiny_tokenizer(), actions(), reasoning_weight=1.0) for model in (student, teacher))
    measured = Distillation(*both, tokens=len(tiny_tokenizer()), temperature=1.0, soft=1.0)
    with torch.no_grad():
        return float(measured([pairs[12 + index] for index in (0, 3, 6, 9)])["soft_words"])


def distance(student: AutoVlaModel, teacher: AutoVlaModel, store: DriveStore) -> float:
    """Mean metres between what the two plan at the moments of both drives."""
    policies = [tiny_policy(model, options=PlanningOptions(samples=0)) for model in (student, teacher)]
    found = []
    for stretch in range(2):
        for policy in policies:
            policy.reset()
            policy.set_thinking_mode(ThinkingMode.AUTO)
        for stored in store.read(stretch):
            ways = [policy.plan(stored.sample.observation).trajectory.xy for policy in policies]
            found.append(np.hypot(*(ways[0] - ways[1]).T).mean())
    return float(np.mean(found))


def taught_examples(student: AutoVlaModel, teacher: AutoVlaModel, planned: AutoVlaRun) -> TaughtExamples:
    store = planned.drives()
    return TaughtExamples(
        read_by(student, store), read_by(teacher, store), read_plans(planned.folder / "teacher_plans" / TRAIN)
    )


def test_a_resumed_run_is_the_uninterrupted_one(
    planned: AutoVlaRun, tmp_path: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch
):
    straight, cut = (copied(planned, tmp_path / name, teacher) for name in ("straight", "cut"))
    straight.run(STEP)
    whole = Distillation.forward
    calls = count()

    def dies(self: Distillation, examples: Sequence[TaughtExample]) -> dict[str, torch.Tensor]:
        if next(calls) == 3:
            raise KeyboardInterrupt
        return whole(self, examples)

    with monkeypatch.context() as patch:
        patch.setattr(Distillation, "forward", dies)
        with pytest.raises(KeyboardInterrupt):
            cut.run(STEP)
    assert not cut.is_done(STEP)
    cut.run(STEP)
    torch.testing.assert_close(cut.weights_after(STEP), straight.weights_after(STEP), rtol=0, atol=0)
    name = Path("taught_answers") / "metrics.csv"
    assert (cut.folder / name).read_bytes() == (straight.folder / name).read_bytes()
    text = (cut.export() / "README.md").read_text()
    assert "beside the teacher autovla-tiny, SHA-256 " in text
    assert "answers in train, and its teacher's there, at temperature 2 |" in text


def test_the_teacher_is_no_part_of_what_learns(planned: AutoVlaRun, teacher: Path):
    large, student = load_model(teacher)[0].float(), tiny_model()
    pair = taught_examples(student, large, planned)[6]
    both = (AnswerTraining(model, tiny_tokenizer(), actions()) for model in (student, large))
    made = Distillation(*both, tokens=len(tiny_tokenizer()), temperature=2.0, soft=0.7)
    torch.stack(list(made([pair]).values())).sum().backward()
    assert all(name.startswith("student.model.") for name in made.state_dict())
    assert all(weight.grad is None for weight in large.parameters())
    assert student.lm_head.weight.grad is not None


def test_the_loss_is_the_logs_and_the_teachers_each_with_its_share(planned: AutoVlaRun, teacher: Path):
    large, student = load_model(teacher)[0].float(), tiny_model()
    pair = taught_examples(student, large, planned)[6]
    both = [AnswerTraining(model, tiny_tokenizer(), actions(), reasoning_weight=4.0) for model in (student, large)]
    found = Distillation(*both, tokens=len(tiny_tokenizer()), temperature=2.0, soft=0.7)([pair])
    hard = both[0]([pair.student])
    own, taught = both[0].told([pair.student]), both[1].told([pair.teacher])
    soft = 4.0 * softened_divergence(taught.logits, own.logits, 2.0).mean()
    torch.testing.assert_close(found["words"], 0.3 * hard["words"])
    torch.testing.assert_close(found["actions"], 0.3 * hard["actions"])
    torch.testing.assert_close(found["soft_words"], 0.7 * soft)


def test_a_student_that_is_asked_for_its_points_is_asked_beside_a_teacher_too(planned: AutoVlaRun, teacher: Path):
    large, student = load_model(teacher)[0].float(), tiny_model()
    pair = taught_examples(student, large, planned)[6]
    asked = AnswerTraining(student, tiny_tokenizer(), actions(), asks_points=True)
    told = Distillation(
        asked,
        AnswerTraining(large, tiny_tokenizer(), actions()),
        tokens=len(tiny_tokenizer()),
        temperature=2.0,
        soft=0.7,
    )([pair])
    torch.testing.assert_close(told["points"], asked([pair.student])["points"])


def test_the_divergence_is_that_of_kullback_and_leibler_and_its_gradient_bears_any_temperature():
    logits = torch.randn(2, 5, generator=torch.Generator().manual_seed(0))
    teacher, student = logits[:1], logits[1:].requires_grad_()
    softened = [(one / 3.0).softmax(-1) for one in (teacher, student)]
    expected = 9.0 * (softened[0] * (softened[0] / softened[1]).log()).sum(-1)
    torch.testing.assert_close(softened_divergence(teacher, student, 3.0), expected)
    assert float(softened_divergence(teacher, teacher, 3.0)) == pytest.approx(0.0, abs=1e-6)
    (gradient,) = torch.autograd.grad(softened_divergence(teacher, student, 1e3).sum(), student)
    centred = [one - one.mean() for one in (student.detach(), teacher)]  # the limit of a high temperature
    torch.testing.assert_close(gradient, (centred[0] - centred[1]) / 5, rtol=1e-2, atol=1e-3)


def test_a_student_from_nothing_takes_over_its_teachers_words_and_actions(tmp_path: Path, teacher: Path):
    run = AutoVlaRun(recipe(), tmp_path, unasked, teacher=teacher)
    config = run.config()
    assert config.model_id == "autovla-small"
    assert config.codebook_sha256 == codebook_hash(tiny_codebook())
    assert run.tokenizer().get_vocab() == tiny_tokenizer().get_vocab()


def test_a_teacher_with_other_words_is_refused(tmp_path: Path):
    tokenizer = build_tokenizer(tiny_codebook(), words=400)
    first = tokenizer.convert_tokens_to_ids("<action_0>")
    language = replace(tiny_config().language, vocabulary_size=len(tokenizer))
    model = tiny_model(language=language, first_action_id=first)
    save_model(model, tiny_codebook(), tmp_path / "teacher", card="other words")
    tokenizer.save_pretrained(str(tmp_path / "teacher"))
    with pytest.raises(TrainingError, match=r"has another tokenizer than its student: \d+ of its \d+ tokens"):
        taught_run(tmp_path, tmp_path / "teacher")


def test_a_teacher_with_other_actions_is_refused(tmp_path: Path):
    own = tiny_codebook()
    other = ActionCodebook(own.contours * 1.01, own.length, own.width)
    save_model(tiny_model(codebook_sha256=codebook_hash(other)), other, tmp_path / "teacher", card="other actions")
    tiny_tokenizer().save_pretrained(str(tmp_path / "teacher"))
    with pytest.raises(TrainingError, match=r"has the action codebook [0-9a-f]{12}, but its student [0-9a-f]{12}"):
        taught_run(tmp_path, tmp_path / "teacher")


def test_another_teacher_than_that_of_the_run_is_refused(planned: AutoVlaRun, tmp_path: Path, teacher: Path):
    copied(planned, tmp_path, teacher)
    other = write_folder(tmp_path / "other", tiny_model(5))
    with pytest.raises(TrainingError, match=r"is taught by the weights [0-9a-f]{12}, but .* has [0-9a-f]{12}"):
        taught_run(tmp_path, other)


def test_without_a_teacher_or_its_plans_nothing_is_taught(tmp_path: Path, teacher: Path):
    run = taught_run(tmp_path, teacher)
    with pytest.raises(TrainingError, match=r"the teacher has not planned yet at 12 of 12 moments, such as scene0 0"):
        run.run(STEP)
    alone = AutoVlaRun(recipe(), tmp_path, unasked, start=tmp_path / "start")
    with pytest.raises(TrainingError, match="the stage taught_answers needs a teacher; give its checkpoint folder"):
        alone.run(STEP)
    own, others = (read_by(model, run.drives()) for model in (tiny_model(), load_model(teacher)[0]))
    nothing: dict[str, WrittenPlan | None] = dict.fromkeys(own.tokens)
    with pytest.raises(TrainingError, match="the teacher wrote no plan at any of 12 moments"):
        TaughtExamples(own, others, nothing)


def test_numbers_by_which_nothing_can_be_taught_are_refused():
    both = [AnswerTraining(tiny_model(), tiny_tokenizer(), actions()) for _ in range(2)]
    with pytest.raises(TrainingError, match="the temperature of distillation must be above 0, not 0"):
        Distillation(*both, tokens=8, temperature=0, soft=0.5)
    with pytest.raises(TrainingError, match=r"soft of distillation is a share, not 1\.5; give 0 to 1"):
        Distillation(*both, tokens=8, temperature=1.0, soft=1.5)


def test_in_a_taught_recipe_a_teacher_stands_beside_every_supervised_step():
    taught = AUTOVLA_SMALL.taught((420, 224))
    assert taught.image_size == (448, 252)
    assert AUTOVLA_SMALL.taught((224, 112)).image_size == AUTOVLA_SMALL.image_size
    assert [step.name for step in taught.steps[-2:]] == ["taught_answers", "reinforcement"]
    for before, after in zip(AUTOVLA_SMALL.steps, taught.steps, strict=True):
        if isinstance(before, AnswerStep):
            assert isinstance(after, DistillationStep)
            assert (after.loop, after.reads, after.vision) == (before.loop, before.reads, before.vision)
        else:
            assert after == before
