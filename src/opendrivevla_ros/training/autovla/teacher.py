"""The checkpoint that a smaller model learns from, and the plans that it writes itself at the moments of drives.

Plans are kept on disk, a file a scene, so that whoever goes on after a break does not plan again.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

import torch

from opendrivevla_ros.core.plan import PlanError, ThinkingMode
from opendrivevla_ros.core.policy import ThinkingLimits
from opendrivevla_ros.core.workers import worked
from opendrivevla_ros.datasets.drive_store import DriveStore, StoredSample
from opendrivevla_ros.language.action_codebook import ActionCodebook
from opendrivevla_ros.language.action_tokens import ActionTokens
from opendrivevla_ros.policies.autovla.config import ACTIONS_PER_PLAN, AutoVlaConfig
from opendrivevla_ros.policies.autovla.loading import from_folder
from opendrivevla_ros.policies.autovla.model import CODEBOOK, codebook_hash, load_codebook, load_config
from opendrivevla_ros.policies.autovla.policy import AutoVlaPolicy
from opendrivevla_ros.policies.loading import read_tokenizer
from opendrivevla_ros.training.autovla.examples import Place, scenes
from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.training.whole_files import reading, save_json

SUFFIX = ".json"
REMEDY = "delete it and run the same command again, in which the teacher plans there anew"
# A thought ends by itself or is not taught; a clock would make what is taught depend on the machine.
LIMITS = ThinkingLimits(max_tokens=512, max_milliseconds=10**9)


@dataclass(frozen=True)
class WrittenPlan:
    """thought: None where the answer is fast. actions: of the codebook, ACTIONS_PER_PLAN of them."""

    thought: str | None
    actions: tuple[int, ...]


def check_teacher(folder: Path, config: AutoVlaConfig, tokenizer: Any, codebook: ActionCodebook) -> None:
    """Whether a teacher's tokens are those of a model with this configuration, tokenizer and codebook.

    A distribution over tokens can be learned only where they mean the same. Raises TrainingError where they do not,
    and CheckpointError for a folder that holds no such checkpoint.
    """
    own = load_config(folder)
    words, learned = read_tokenizer(folder, own.language.vocabulary_size).get_vocab(), tokenizer.get_vocab()
    if words != learned:
        both = len(words.items() & learned.items())
        raise TrainingError(
            f"the teacher in {folder} has another tokenizer than its student: {both} of its {len(words)} tokens stand"
            " for the same there; give a teacher with the student's tokenizer, or train a student from nothing, which"
            " takes over its teacher's"
        )
    found, wanted = (codebook_hash(one) for one in (load_codebook(folder / CODEBOOK), codebook))
    if found != wanted:
        raise TrainingError(
            f"the teacher in {folder} has the action codebook {found[:12]}, but its student {wanted[:12]}: their"
            " actions are other motions; give a teacher with the student's codebook, or train a student from nothing,"
            " which takes over its teacher's"
        )
    if own.eos_ids[0] != config.eos_ids[0]:
        raise TrainingError(
            f"the teacher in {folder} ends an answer with token {own.eos_ids[0]}, but its student with"
            f" {config.eos_ids[0]}; give a teacher whose config.eos_ids begin with the student's"
        )


def write_plans(store: DriveStore, folder: Path, teacher: Path, processes: int) -> Iterator[float]:
    """Has a teacher plan at all moments of a store, as it drives: greedy, and as fast or slow as it finds right.

    teacher: a checkpoint folder. Yields the share that is done; scenes that are there are kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    all_scenes = list(scenes(0, store))
    left = [scene for scene in all_scenes if not _is_whole(_file(folder, store, scene), scene)]
    yield 1 - len(left) / max(len(all_scenes), 1)
    if not left:
        return
    context = get_context("spawn")
    devices: SimpleQueue[str] = context.SimpleQueue()
    for number in range(processes):
        count = torch.cuda.device_count()
        devices.put(f"cuda:{number % count}" if count else "cpu")
    tasks = [
        (store.folder, [(one.stretch, one.offset) for one in scene], _file(folder, store, scene)) for scene in left
    ]
    planned = worked(_plan, tasks, processes=processes, begin=_Planner.start, given=(teacher, devices))
    for count, _ in enumerate(planned, start=1):
        yield 1 - (len(left) - count) / len(all_scenes)


def read_plans(folder: Path) -> dict[str, WrittenPlan | None]:
    """The plans in a folder by their samples' tokens; None where it found none or ended no thought.

    Raises TrainingError for a broken file.
    """
    found: dict[str, WrittenPlan | None] = {}
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        with reading(path, "file of a teacher's plans", REMEDY):
            for token, plan in json.loads(path.read_text()).items():
                found[token] = None if plan is None else WrittenPlan(plan["thought"], tuple(plan["actions"]))
    return found


class _Planner:
    """The teacher as a policy, in a process of its own."""

    policy: AutoVlaPolicy
    actions: ActionTokens

    @classmethod
    def start(cls, teacher: Path, devices: "SimpleQueue[str]") -> None:
        device = devices.get()
        precision = "float32" if device == "cpu" else "bfloat16"
        cls.policy = from_folder(teacher, device=device, precision=precision, seed=0, samples=0)
        torch.set_num_threads(1)
        cls.policy.set_thinking_mode(ThinkingMode.AUTO)
        cls.policy.set_thinking_limits(LIMITS)
        cls.actions = ActionTokens(cls.policy.tokenizer, load_codebook(teacher / CODEBOOK))

    @classmethod
    def plan(cls, stored: StoredSample) -> dict[str, Any] | None:
        try:
            plan = cls.policy.plan(stored.sample.observation)
        except PlanError:
            return None
        if plan.token_counts["thought"] >= LIMITS.max_tokens:
            return None
        ids = cls.policy.tokenizer.encode(plan.raw_text, add_special_tokens=False)
        spoken = [one for one in ids if cls.actions.first_id <= one < cls.actions.stop_id]
        actions = cls.actions.actions(spoken[-ACTIONS_PER_PLAN:])  # letters of a thought may spell one too
        thinks = plan.reasoning.actual_mode is ThinkingMode.SLOW
        return {"thought": plan.reasoning.text if thinks else None, "actions": actions.tolist()}


def _plan(drives: Path, places: Sequence[tuple[int, int]], path: Path) -> None:
    """Plans at the samples of one scene, (stretch, offset) each, one after the other."""
    store, found = DriveStore(drives), {}
    _Planner.policy.reset()
    for stretch, some in groupby(places, key=lambda place: place[0]):
        samples = store.read(stretch)
        for _, offset in some:
            found[samples[offset].sample.token] = _Planner.plan(samples[offset])
    save_json(found, path, "what the teacher planned")


def _is_whole(path: Path, scene: Sequence[Place]) -> bool:
    """Whether a file holds the plans of just this scene, which may have been longer or shorter once."""
    if not path.is_file():
        return False
    with reading(path, "file of a teacher's plans", REMEDY):
        planned = json.loads(path.read_text())
    return planned.keys() == {place.sample.token for place in scene}


def _file(folder: Path, store: DriveStore, scene: Sequence[Place]) -> Path:
    return folder / f"{store.names[scene[0].stretch]}{SUFFIX}"
