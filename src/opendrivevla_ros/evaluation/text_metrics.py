"""Captions and answers about test scenes: BLEU-4 and accuracy, beside the same model that gets no scene tokens.

What a model says without eyes, from the ego motion and the habits of the language, is what its figures with eyes have
to exceed.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TypeVar

from sacrebleu.metrics.bleu import BLEU

from opendrivevla_ros.core.geometry import Array
from opendrivevla_ros.core.observation import Observation
from opendrivevla_ros.core.plan import PlanError
from opendrivevla_ros.core.policy import DrivingPolicy
from opendrivevla_ros.evaluation.figures import json_text, markdown_table, share
from opendrivevla_ros.evaluation.world_scenes import (
    ON_CPU,
    EvaluationError,
    Loading,
    Scene,
    display_names,
    drive_scene,
    evaluation_scenes,
    load_greedy,
    renderer_for,
    spread,
    work_on_one_core,
)
from opendrivevla_ros.policies.registry import BASELINES, kind_of
from opendrivevla_ros.world import wording
from opendrivevla_ros.world.narration import CAPTION_QUESTIONS, narrate
from opendrivevla_ros.world.questions import ask
from opendrivevla_ros.world.renderer import Renderer
from opendrivevla_ros.world.state import WorldState

SCENES = 112  # eight of each family
SAMPLES = 5  # of a scene: 2 s of driving before it is asked about
WORDINGS = 8  # true captions of one scene, which differ in words only
CAPTION, QUESTION = "caption", "question"
Key = TypeVar("Key")


@dataclass(frozen=True)
class TextRecord:
    """One question. kind: "caption scene", "question count" and so on. references: true answers, one or more.

    seeing, blind: what was answered with and without scene tokens; None where no answer came.
    """

    kind: str
    question: str
    references: tuple[str, ...]
    seeing: str | None
    blind: str | None


@dataclass(frozen=True)
class TextScores:
    """bleu: BLEU-4, 0 to 100, by caption and of all. accuracy: share of right answers, by question and of all.

    failures: how many answers did not come; each counts as an empty one.
    """

    bleu: dict[str, float]
    accuracy: dict[str, float]
    failures: int


@dataclass(frozen=True)
class TextResult:
    """counts: of texts by kind. bleu: sacrebleu's signature of how it was measured."""

    policy: str
    scenes: int
    counts: dict[str, int]
    seeing: TextScores
    blind: TextScores
    bleu: str

    def to_json(self) -> str:
        """All figures."""
        return json_text(self)

    def markdown(self) -> str:
        """The table that a card shows."""
        rows = [
            [f"BLEU-4, {kind}", f"{value:.1f}", f"{self.blind.bleu[kind]:.1f}"]
            for kind, value in self.seeing.bleu.items()
        ]
        rows += [
            [f"right answers, {kind}", share(value), share(self.blind.accuracy[kind])]
            for kind, value in self.seeing.accuracy.items()
        ]
        texts = sum(self.counts.values())
        return (
            f"{texts} captions and answers of {self.scenes} scenes; {WORDINGS} references a caption; {self.bleu}.\n\n"
        ) + markdown_table(["", self.policy, "without scene tokens"], rows)


def evaluate_text(
    policy: str,
    *,
    scenes: int = SCENES,
    loading: Loading = ON_CPU,
    processes: int = 2,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> TextResult:
    """Figures of a policy with a language model, by name or folder, on test seeds of all families in turn.

    Raises CheckpointError for a policy that cannot be loaded, EvaluationError for one without language and where a
    process dies.
    """
    if kind_of(policy) in BASELINES:
        raise EvaluationError(f"{policy} has no language to evaluate; give a checkpoint of OpenDriveVLA")
    load_greedy(policy, **vars(loading))
    work = partial(_ask_about, policy=policy, loading=loading)
    asked = spread(work, evaluation_scenes(scenes), processes=processes, progress=progress)
    records = [record for of_scene in asked for record in of_scene]
    return text_result(records, policy=display_names([policy])[policy], scenes=scenes)


@lru_cache(maxsize=1)
def _both(policy: str, loading: Loading) -> tuple[DrivingPolicy, DrivingPolicy]:
    """The policy of this process, and again without scene tokens."""
    pair = load_greedy(policy, **vars(loading)), load_greedy(policy, blind=True, **vars(loading))
    work_on_one_core()
    return pair


def _ask_about(scene: Scene, *, policy: str, loading: Loading) -> list[TextRecord]:
    seeing, blind = _both(policy, loading)
    return ask_about(scene, seeing, blind, renderer_for(seeing))


def ask_about(scene: Scene, seeing: DrivingPolicy, blind: DrivingPolicy, renderer: Renderer) -> list[TextRecord]:
    """All captions of a scene and questions about it, asked once after 2 s of driving, or where it ends before."""
    for policy in (seeing, blind):
        policy.reset()
    moments = []
    for world, sample in drive_scene(scene, renderer, samples=SAMPLES):
        moments.append((world.state, sample))
        with suppress(PlanError):
            seeing.plan(sample.observation)  # for what it keeps in memory
    state, sample = moments[-1]
    return [
        TextRecord(
            kind,
            question,
            references,
            seeing=_said(seeing, sample.observation, question),
            blind=_said(blind, sample.observation, question),
        )
        for kind, question, references in true_texts(state, sample.future, scene.seed)
    ]


def _said(policy: DrivingPolicy, observation: Observation, question: str) -> str | None:
    try:
        return "".join(policy.answer(observation, question))
    except PlanError:
        return None


def true_texts(state: WorldState, future: Array, seed: int) -> list[tuple[str, str, tuple[str, ...]]]:
    """Kind, question and true answers of every text about a state."""
    narrations = [narrate(state, future, seed=seed + number).captions for number in range(WORDINGS)]
    captions = [
        (f"{CAPTION} {name}", question, tuple(captions[name] for captions in narrations))
        for name, question in CAPTION_QUESTIONS.items()
    ]
    pairs = ask(state, future, seed=seed)
    return captions + [(f"{QUESTION} {pair.kind}", pair.question, (pair.answer,)) for pair in pairs]


def text_result(records: Sequence[TextRecord], *, policy: str, scenes: int) -> TextResult:
    """The figures of what was asked and answered."""
    counts = Counter(record.kind for record in records)
    measure = BLEU()
    seeing = text_scores(records, [record.seeing for record in records], measure)
    blind = text_scores(records, [record.blind for record in records], measure)
    return TextResult(policy, scenes, dict(counts), seeing, blind, str(measure.get_signature()))


def text_scores(records: Sequence[TextRecord], said: Sequence[str | None], measure: BLEU) -> TextScores:
    """The figures of answers, one to each record."""
    hypotheses: dict[str, list[str]] = defaultdict(list)
    references: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    right: dict[str, list[bool]] = defaultdict(list)
    for record, text in zip(records, said, strict=True):
        group, name = record.kind.split(" ", 1)
        for key in (name, "all"):
            if group == CAPTION:
                hypotheses[key].append(text or "")
                references[key].append(record.references)
            else:
                right[key].append(is_right(name, text or "", record.references[0]))
    return TextScores(
        bleu={
            key: float(measure.corpus_score(texts, list(zip(*references[key], strict=True))).score)
            for key, texts in hypotheses.items()
        },
        accuracy={key: sum(values) / len(values) for key, values in right.items()},
        failures=sum(text is None for text in said),
    )


def is_right(kind: str, answer: str, truth: str) -> bool:
    """Whether an answer to a question of a kind says the same as the true one."""
    return meaning(kind, answer) == meaning(kind, truth)


def meaning(kind: str, answer: str) -> str:
    """What an answer says, whichever of the wordings it has.

    Lower case, without punctuation and articles. Of a distance, only the number of metres; of an action, only the
    motion to the side and the change of speed, not its cause.
    """
    plain = " ".join(word for word in re.findall(r"[a-z0-9/]+", answer.lower()) if word not in ("a", "an", "the"))
    if kind == "distance":
        numbers = re.findall(r"\d+", plain)
        return numbers[0] if numbers else plain
    if kind == "status":
        return _first_wording(plain, wording.STATUS) or plain
    if kind == "action":
        sideways = _first_wording(plain, wording.LATERAL) or _first_wording(plain, wording.BEARING)
        return f"{sideways} and {_first_wording(plain, wording.LONGITUDINAL)}"
    return plain


def _first_wording(plain: str, table: Mapping[Key, Sequence[str]]) -> str:
    """Of the phrases that a text holds, the longest; in its stead the first of those that mean the same."""
    found = [
        (len(phrase), phrases[0]) for phrases in table.values() for phrase in phrases if meaning("", phrase) in plain
    ]
    return max(found)[1] if found else ""
