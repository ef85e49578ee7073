"""The path that sight proposes is learned by itself, from ground that sight has read once.

The tower and the ground rest meanwhile, so a core learns from hundreds of moments a second, and soon from those that
the model met when it drove by its proposals (DAgger, arXiv 1011.0686).
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from opendrivevla_ros.datasets.drive_store import DriveStore
from opendrivevla_ros.perception.ego_query import EgoAnswer
from opendrivevla_ros.policies.autovla.model import AutoVlaModel, load_model
from opendrivevla_ros.policies.autovla.reading import Memory, PromptReader
from opendrivevla_ros.policies.autovla.sight import Sight
from opendrivevla_ros.policies.loading import read_tokenizer
from opendrivevla_ros.training.autovla.sight import sight_of
from opendrivevla_ros.training.ego_step import query_matrices, scales
from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.training.frame_labels import plan_label
from opendrivevla_ros.training.labels import PlanLabel
from opendrivevla_ros.training.token_reader import proposal_losses

SUFFIX = ".pt"
PART = 24  # stretches of one file
BATCH = 256


class GroundMoment(NamedTuple):
    """A moment whose plan is known to its end. ground: float16 [rows, columns, C], see `Sight`."""

    ground: Tensor
    plan: PlanLabel


@dataclass(frozen=True)
class _Part:
    """Of one file, N moments: ground [N, rows, columns, C], which stays on disk, and their plans."""

    ground: Tensor
    plans: Sequence[PlanLabel]


class GroundMoments(Dataset[GroundMoment]):
    """The moments in folders that `write_ground` filled. Raises TrainingError where there is none."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._parts = [_read(path) for folder in folders for path in sorted(folder.glob(f"*{SUFFIX}"))]
        self._places = [(part, row) for part in self._parts for row in range(len(part.plans))]
        if not self._places:
            where = ", ".join(str(folder) for folder in folders)
            raise TrainingError(f"no moment in {where} has a known future; draw or record longer drives")

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> GroundMoment:
        part, row = self._places[index]
        return GroundMoment(part.ground[row], part.plans[row])


class ProposalTraining(nn.Module):
    """What the loop trains: moments to the error of what is proposed there. Of the model the query alone learns."""

    def __init__(self, model: AutoVlaModel) -> None:
        super().__init__()
        self.model = model
        model.requires_grad_(False)
        sight_of(model).query.requires_grad_(True)

    def forward(self, moments: Sequence[GroundMoment]) -> dict[str, Tensor]:
        """See `proposal_losses`."""
        sight = sight_of(self.model)
        device = sight.read.weight.device
        plans = [moment.plan.to(device) for moment in moments]
        return proposal_losses(_proposed(sight, moments), plans)

    def inner_matrices(self) -> list[nn.Parameter]:
        """What multiplies states in the query's layers."""
        return query_matrices(sight_of(self.model).query)


@torch.inference_mode()
def proposal_scales(moments: GroundMoments, sight: Sight) -> tuple[tuple[float, ...], ...]:
    """By how much the errors of proposed paths are larger than the query expects them to be, see `scales`."""
    batches = (
        [moments[index] for index in range(start, min(start + BATCH, len(moments)))]
        for start in range(0, len(moments), BATCH)
    )
    return scales((_proposed(sight, some), [moment.plan.path for moment in some]) for some in batches)


def write_ground(store: DriveStore, folder: Path, checkpoint: Path, *, processes: int) -> Iterator[float]:
    """Writes the ground that a checkpoint's sight reads at the moments of a store; yields the share that is done.

    Parts that are there are kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    starts = range(0, len(store.names), PART)
    left = [start for start in starts if not _file(folder, store, start).exists()]
    yield 1 - len(left) / max(len(starts), 1)
    if not left:
        return
    with ProcessPoolExecutor(processes, get_context("spawn"), _Reader.start, (checkpoint,)) as pool:
        jobs = [pool.submit(_Reader.write, store.folder, start, _file(folder, store, start)) for start in left]
        for count, job in enumerate(jobs, start=1):
            job.result()
            yield 1 - (len(left) - count) / len(starts)


class _Reader:
    """A checkpoint's sight, in a process of its own."""

    model: AutoVlaModel
    reader: PromptReader

    @classmethod
    def start(cls, checkpoint: Path) -> None:
        torch.set_num_threads(1)
        cls.model = load_model(checkpoint)[0].float().eval()
        config = cls.model.autovla_config
        cls.reader = PromptReader(config, read_tokenizer(checkpoint, config.language.vocabulary_size))

    @classmethod
    @torch.inference_mode()
    def write(cls, drives: Path, start: int, path: Path) -> None:
        store, memory = DriveStore(drives), Memory()
        grounds: list[Tensor] = []
        plans: list[PlanLabel] = []
        for stretch in range(start, min(start + PART, len(store.names))):
            for stored in store.read(stretch, cameras=cls.reader.config.cameras):
                memory = cls.reader.followed(memory, stored.sample.observation)
                plan = plan_label(stored.sample)
                if plan.known.all():
                    seen = cls.model.seen([cls.reader.videos(memory)])
                    grounds.append(cls.model.ground(seen, [stored.sample.observation.rig])[0].half())
                    plans.append(plan)
        side, width = len(cls.model.sight.places[0]), len(cls.model.sight.places)  # type: ignore[union-attr]
        content = {
            "ground": torch.stack(grounds) if grounds else torch.zeros(0, side, side, width).half(),
            "plans": [(plan.ego, plan.path, plan.known) for plan in plans],
        }
        temporary = path.with_suffix(".tmp")
        torch.save(content, temporary)
        temporary.replace(path)


def _proposed(sight: Sight, moments: Sequence[GroundMoment]) -> EgoAnswer:
    like = sight.read.weight
    ground = torch.stack([moment.ground for moment in moments]).to(like)
    return sight.proposed(ground, torch.stack([moment.plan.ego for moment in moments]).to(like))


def _read(path: Path) -> _Part:
    content = torch.load(path, weights_only=True, mmap=True)
    return _Part(content["ground"], [PlanLabel(*(part.clone() for part in plan)) for plan in content["plans"]])


def _file(folder: Path, store: DriveStore, start: int) -> Path:
    return folder / f"{store.names[start]}{SUFFIX}"
