"""The path that sight proposes is learned by itself, from ground that sight has read once.

The tower and the ground rest meanwhile, so a core learns from hundreds of moments a second, and soon from those that
were met when what is proposed was driven (DAgger, arXiv 1011.0686).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from opendrivevla_ros.core.observation import Observation
from opendrivevla_ros.core.workers import worked
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
from opendrivevla_ros.training.whole_files import load_tensors, reading, save_tensors, seen_by

SUFFIX = ".pt"
BATCH = 256
SEEING, QUERY = ("model.visual.", "sight."), "sight.query."  # the ground is read without the query


class GroundMoment(NamedTuple):
    """A moment whose plan is known to its end. ground: float16 [rows, columns, C], see `Sight`."""

    ground: Tensor
    plan: PlanLabel


@dataclass(frozen=True)
class _Part:
    """Of one stretch, N moments: ground [N, rows, columns, C], which stays on disk, and their plans."""

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
    """What the loop trains: moments to the error of what is proposed there. Of the model the query alone learns.

    caution: see `proposal_losses`.
    """

    def __init__(self, model: AutoVlaModel, caution: float = 0.0) -> None:
        super().__init__()
        self.model, self._caution = model, caution
        model.requires_grad_(False)
        sight_of(model).query.requires_grad_(True)

    def forward(self, moments: Sequence[GroundMoment]) -> dict[str, Tensor]:
        """See `proposal_losses`."""
        sight = sight_of(self.model)
        device = sight.read.weight.device
        plans = [moment.plan.to(device) for moment in moments]
        return proposal_losses(_proposed(sight, moments), plans, self._caution)

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

    Stretches that are there are kept, but for those that other weights have seen.
    """
    seeing = load_model(checkpoint)[0].state_dict()
    seen_by(folder, {name: seeing[name] for name in seeing if name.startswith(SEEING) and not name.startswith(QUERY)})
    left = [index for index, name in enumerate(store.names) if not _file(folder, name).exists()]
    count = max(len(store.names), 1)
    yield 1 - len(left) / count
    tasks = [(store.folder, index, folder, checkpoint) for index in left]
    written = worked(_write, tasks, processes=processes, begin=torch.set_num_threads, given=(1,))
    for done, _ in enumerate(written, start=1):
        yield 1 - (len(left) - done) / count


class GroundReader:
    """A checkpoint's sight, which follows a drive. Raises CheckpointError."""

    def __init__(self, checkpoint: Path) -> None:
        self.model = load_model(checkpoint)[0].float().eval()
        self.config = self.model.autovla_config
        self._reader = PromptReader(self.config, read_tokenizer(checkpoint, self.config.language.vocabulary_size))
        self.reset()

    def reset(self) -> None:
        """Forgets what was seen."""
        self._memory = Memory()

    def follow(self, observation: Observation) -> None:
        """Takes the next observation in."""
        self._memory = self._reader.followed(self._memory, observation)

    @torch.inference_mode()
    def ground(self) -> Tensor:
        """What is read at the last observation, [rows, columns, C]."""
        assert self._memory.last is not None
        seen = self.model.seen([self._reader.videos(self._memory)])
        return self.model.ground(seen, [self._memory.last.rig])[0]


def save_ground(moments: Sequence[GroundMoment], folder: Path, name: str) -> None:
    """Writes the moments of the stretch of that name. Raises TrainingError where they cannot be written."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "ground": torch.stack([moment.ground for moment in moments]) if moments else torch.zeros(0),
        "plans": [tuple(vars(moment.plan).values()) for moment in moments],
    }
    save_tensors(content, _file(folder, name), "what was seen of the ground")


@cache
def _reader(checkpoint: Path) -> GroundReader:
    return GroundReader(checkpoint)


def _write(drives: Path, index: int, folder: Path, checkpoint: Path) -> None:
    store, reader, found = DriveStore(drives), _reader(checkpoint), []
    reader.reset()
    for stored in store.read(index, cameras=reader.config.cameras):
        reader.follow(stored.sample.observation)
        plan = plan_label(stored.sample)
        if plan.known.all():
            found.append(GroundMoment(reader.ground().half(), plan))
    save_ground(found, folder, store.names[index])


def _proposed(sight: Sight, moments: Sequence[GroundMoment]) -> EgoAnswer:
    like = sight.read.weight
    ground = torch.stack([moment.ground for moment in moments]).to(like)
    return sight.proposed(ground, torch.stack([moment.plan.ego for moment in moments]).to(like))


def _read(path: Path) -> _Part:
    what, remedy = "file of the ground", "delete it and run the same command again, which looks at that drive anew"
    content = load_tensors(path, what, remedy, mmap=True)
    with reading(path, what, remedy):
        return _Part(content["ground"], [PlanLabel(*(part.clone() for part in plan)) for plan in content["plans"]])


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}{SUFFIX}"
