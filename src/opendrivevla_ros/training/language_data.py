"""The data set of turns for the language stages: which moment, and what is asked of it."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from opendrivevla_ros.language.prompt import PROPOSAL, proposal_text
from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.training.language_batches import Saying, Turn
from opendrivevla_ros.training.language_samples import SpokenSample
from opendrivevla_ros.training.strayed_answers import strayed
from opendrivevla_ros.training.text_tasks import TextTask

KINDS = ("plan", "caption", "question", "agent")  # the first word of a task's kind
EVENTFUL_METRES = 3.0  # of departure from going on as it goes
UNEVENTFUL_KEPT, OTHERS = 0.25, 4  # share of the uneventful moments that are taken at once; tries for another
PROPOSED = 0.5  # share of the plans that are to be said as perception proposes them
TOGETHER = {"caption": 2, "question": 6, "agent": 3}  # so many of a moment are asked at once
ROUNDS = 64  # different choices of a task for each sample before they repeat


class SeenTurns(Dataset[Turn]):
    """Turns from samples in memory, with the features that they have.

    shares: how often each of KINDS is asked for, in any unit; a kind that a sample lacks leaves its share to others.
    Samples that offer nothing of what is asked for are left out. Raises TrainingError where that leaves none.
    """

    def __init__(self, samples: Sequence[SpokenSample], shares: Mapping[str, float]) -> None:
        asked = {kind for kind, share in shares.items() if share > 0}
        self._samples = [sample for sample in samples if any(task.kind.split()[0] in asked for task in sample.tasks)]
        self._shares = shares
        if not self._samples:
            raise TrainingError(
                f"none of {len(samples)} samples offers any of {', '.join(asked)}; look at more drives"
            )

    def __len__(self) -> int:
        return len(self._samples) * ROUNDS

    def __getitem__(self, index: int) -> Turn:
        return draw(self._samples.__getitem__, len(self._samples), index, self._shares)


def draw(samples: Callable[[int], SpokenSample], count: int, index: int, shares: Mapping[str, float]) -> Turn:
    """The turn at an index: of sample `index % count`, or of another where that is uneventful.

    In most moments the ego goes on as it goes; of those it learns little, least of all that it must look.
    """
    turn, number = divmod(index, count)
    random = np.random.default_rng([number, turn])
    sample = samples(number)
    for _ in range(OTHERS):
        if sample.departure >= EVENTFUL_METRES or random.uniform() < UNEVENTFUL_KEPT:
            break
        sample = samples(int(random.integers(count)))
    return choose(sample, shares, random)


def choose(sample: SpokenSample, shares: Mapping[str, float], random: np.random.Generator) -> Turn:
    """One turn of a sample: a kind by its share, then any tasks of that kind, their trajectories strayed from.

    Where a proposal stands in the prompt, it is as often what is to be said as what was driven (see PROPOSED). From
    what was driven alone, whose digits are seldom those proposed, 700 steps of 16 turns did not teach a small model to
    repeat a number: its plans were off by 0.70 m where proposals were by 0.56, and by 0.61 after 250 steps more in
    which every plan to be said was the proposed one. Shares between were not tried.

    Raises TrainingError where no task fits.
    """
    groups: dict[str, list[TextTask]] = {}
    for task in sample.tasks:
        groups.setdefault(task.kind.split()[0], []).append(task)
    weights = np.array([shares.get(kind, 0.0) for kind in groups])
    if not weights.sum() > 0:
        raise TrainingError(f"{sample.scene} offers {', '.join(groups) or 'nothing'}, but {dict(shares)} is asked for")
    kind = list(groups)[random.choice(len(weights), p=weights / weights.sum())]
    tasks = groups[kind]
    drawn = random.choice(len(tasks), min(TOGETHER.get(kind, 1), len(tasks)), replace=False)
    return Turn(sample.features, tuple(_saying(tasks[number], sample.features.proposal, random) for number in drawn))


def _saying(task: TextTask, proposal: Tensor | None, random: np.random.Generator) -> Saying:
    answer = task.answer
    if proposal is not None and PROPOSAL in task.user and random.uniform() < PROPOSED:
        answer = proposal_text(proposal)
    return Saying(task.user, answer, strayed(answer, random), task.before)
