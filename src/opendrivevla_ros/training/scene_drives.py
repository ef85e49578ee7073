"""Drives from nuScenes-format scenes, with what instruction data says about them: the small recipe's other source."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from opendrivevla_ros.core.geometry import apply, invert
from opendrivevla_ros.datasets.drive_store import DriveStore, StoredSample, Words
from opendrivevla_ros.datasets.driving_samples import DrivingSample
from opendrivevla_ros.datasets.instruction_data import Instruction
from opendrivevla_ros.datasets.nuscenes_scenes import NuScenesScene, NuScenesScenes
from opendrivevla_ros.language.prompt import InstructionError, checked_text
from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.training.text_tasks import written_place

STRETCH_SAMPLES = 8
CAPTION_SOURCES = ("tod3cap", "nucaption", "drivelm")  # the rest of the published data sets asks and answers
PLAN_SOURCE = "gpt-driver"  # its questions are whole prompts, in place of which the model has features
PLAN_QUESTION = "What should the ego vehicle do, why, and along which trajectory?"


def store_scenes(scenes: NuScenesScenes, store: DriveStore, instructions: Iterable[Instruction]) -> Iterator[float]:
    """Puts all scenes into a store, in stretches of STRETCH_SAMPLES; yields the share that is done.

    Raises DatasetError for broken scenes and a full disk, TrainingError for instructions that fit no prompt.
    """
    said: Mapping[str, list[Instruction]] = defaultdict(list)
    for instruction in instructions:
        said[instruction.sample].append(instruction)
    there = {name.rsplit("-", 1)[0] for name in store.names}
    for done, scene in enumerate(scenes, start=1):
        for stretch in stretches(StoredSample(one, words_about(one, scene, said[one.token])) for one in scene):
            write_stretch(store, stretch, there)
        yield done / len(scenes)


def words_about(sample: DrivingSample, scene: NuScenesScene, instructions: Sequence[Instruction]) -> Words:
    """What instruction data says about a sample; an object is named by its place in the lidar frame.

    Raises TrainingError for an instruction about another sample, and for words that a prompt cannot carry;
    DatasetError for an unknown object.
    """
    base_to_lidar = invert(sample.observation.rig.lidar_to_base)
    captions: list[tuple[str, str, str]] = []
    questions: list[tuple[str, str, str]] = []
    for instruction in instructions:
        if instruction.sample != sample.token:
            raise TrainingError(f"an instruction about the sample {instruction.sample} was given for {sample.token}")
        question = PLAN_QUESTION if instruction.source == PLAN_SOURCE else " ".join(instruction.question.split())
        if instruction.annotation:
            place = apply(base_to_lidar, scene.object_position(instruction.annotation))
            question = f"{question} The object is at {written_place(place)}."
        try:
            checked_text(question, "question")
        except InstructionError as error:
            where = f"{instruction.source} for the sample {instruction.sample}"
            raise TrainingError(f"{where}: {error}; leave this entry out") from None
        said = (f"{instruction.source} {instruction.kind}".strip(), question, instruction.answer)
        (captions if instruction.source in CAPTION_SOURCES else questions).append(said)
    return Words(tuple(captions), tuple(questions))


def stretches(samples: Iterable[StoredSample]) -> Iterator[list[StoredSample]]:
    """Runs of at most STRETCH_SAMPLES samples in a row of one scene."""
    stretch: list[StoredSample] = []
    for stored in samples:
        if stretch and (len(stretch) == STRETCH_SAMPLES or stored.sample.scene != stretch[0].sample.scene):
            yield stretch
            stretch = []
        stretch.append(stored)
    if stretch:
        yield stretch


def write_stretch(store: DriveStore, stretch: Sequence[StoredSample], there: set[str]) -> None:
    """Adds a stretch under its scene and first sample, unless that is among those `there`. Raises DatasetError."""
    name = f"{stretch[0].sample.scene}-{stretch[0].sample.index:04d}"
    if name not in there:
        store.write(name, stretch)
