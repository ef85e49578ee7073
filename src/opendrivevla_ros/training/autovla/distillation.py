"""Distillation of a large AutoVLA into a small one: its plans as further answers, and its distributions over tokens.

At every token of an answer the student comes nearer to its teacher's softened distribution (Hinton et al., arXiv
1503.02531, section 2): loss = (1 - soft) L + soft T^2 KL(teacher at temperature T || student at T), where L is that of
supervised fine-tuning. T^2 keeps the share of the gradients as it is whatever the temperature.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from opendrivevla_ros.training.autovla.answers import AnswerTraining
from opendrivevla_ros.training.autovla.examples import PlanExample, PlanExamples
from opendrivevla_ros.training.autovla.teacher import WrittenPlan
from opendrivevla_ros.training.errors import TrainingError


@dataclass(frozen=True)
class TaughtExample:
    """An answer after the prompt as the student reads it, and the same answer after that of its teacher."""

    student: PlanExample
    teacher: PlanExample

    def to(self, device: torch.device | str) -> "TaughtExample":
        """The same on a device."""
        return TaughtExample(self.student.to(device), self.teacher.to(device))


class TaughtExamples(Dataset[TaughtExample]):
    """The moments of drives, each with the logged answer, and again with its teacher's where there is one.

    student, teacher: the same stores, read as each of the two does; they may see pictures of other sizes and other
    cameras. plans: the teacher's, as `teacher.read_plans` gives them.
    Raises TrainingError where they are not all there, or not one of them is a plan.
    """

    def __init__(self, student: PlanExamples, teacher: PlanExamples, plans: Mapping[str, WrittenPlan | None]) -> None:
        self._student, self._teacher = student, teacher
        tokens = student.tokens
        if missing := [token for token in tokens if token not in plans]:
            raise TrainingError(
                f"the teacher has not planned yet at {len(missing)} of {len(tokens)} moments, such as {missing[0]};"
                " have it plan first"
            )
        written = [(index, plan) for index, token in enumerate(tokens) if (plan := plans[token]) is not None]
        if not written:
            raise TrainingError(
                f"the teacher wrote no plan at any of {len(tokens)} moments; see by `odv replay` what it lacks"
            )
        self._answers: list[tuple[int, WrittenPlan | None]] = [(index, None) for index in range(len(tokens))]
        self._answers += written

    def __len__(self) -> int:
        return len(self._answers)

    def __getitem__(self, index: int) -> TaughtExample:
        moment, plan = self._answers[index]
        student = self._student[moment]
        if plan is not None:
            student = replace(student, actions=plan.actions, thought=plan.thought)
        teacher = replace(self._teacher[moment], actions=student.actions, thought=student.thought)
        return TaughtExample(student, teacher)


class Distillation(nn.Module):
    """What the loop trains: a list of examples to the losses of the student's answers.

    teacher: is not trained, and no part of the module, so that it is in no saved state. tokens: of the vocabulary that
    both share; what an embedding has beyond them stands for nothing. temperature: of both distributions. soft: the
    share of the loss that is the teacher's. Raises TrainingError for a temperature or a share that cannot be.
    """

    def __init__(
        self, student: AnswerTraining, teacher: AnswerTraining, *, tokens: int, temperature: float, soft: float
    ) -> None:
        super().__init__()
        if not temperature > 0:
            raise TrainingError(f"the temperature of distillation must be above 0, not {temperature}")
        if not 0 <= soft <= 1:
            raise TrainingError(f"soft of distillation is a share, not {soft}; give 0 to 1")
        self.student = student
        teacher.requires_grad_(False).eval()
        self._teacher = (teacher,)  # a module in a tuple is nobody's part
        self._tokens, self._temperature, self._soft = tokens, temperature, soft

    def forward(self, examples: Sequence[TaughtExample]) -> dict[str, Tensor]:
        """{"words", "actions"} as supervised fine-tuning has them, and of the divergence {"soft_words",
        "soft_actions"} by the same means; each with its share. Its {"points"} too, whole, for no teacher tells them.
        """
        answers = [example.student for example in examples]
        own = self.student.told(answers)
        with torch.no_grad():
            taught = self._teacher[0].told([example.teacher for example in examples])
        hard = F.cross_entropy(own.logits, own.tokens, reduction="none")
        apart = softened_divergence(taught.logits[:, : self._tokens], own.logits[:, : self._tokens], self._temperature)
        losses = {name: (1 - self._soft) * loss for name, loss in self.student.means(answers, own, hard).items()}
        softened = self.student.means(answers, own, apart)
        losses |= {f"soft_{name}": self._soft * loss for name, loss in softened.items()}
        return losses if own.points is None else losses | {"points": own.points}


def softened_divergence(teacher: Tensor, student: Tensor, temperature: float) -> Tensor:
    """T^2 KL(teacher || student) [K] of logits [K, V] at a temperature T (arXiv 1503.02531, section 2)."""
    wanted, found = (F.log_softmax(logits / temperature, dim=-1) for logits in (teacher, student))
    return temperature**2 * F.kl_div(found, wanted, reduction="none", log_target=True).sum(-1)
