"""Reasoning about nuScenes keyframes from DriveLM's file (arXiv 2312.14150): the passages of a thought before a plan.

AutoVLA's reasoning data (arXiv 2506.13757, section 4) takes the answers of DriveLM in this order: the scene, the
objects that matter and what they will do, the intent, the action.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from opendrivevla_ros.datasets.instruction_data import REMEDY, Instruction
from opendrivevla_ros.datasets.nuscenes_tables import DatasetError, read_json
from opendrivevla_ros.world.narration import CAPTION_QUESTIONS

SOURCE = "drivelm"
TAG = re.compile(r"<c\d+,(CAM_\w+),[\d.]+,[\d.]+>")
IDS = re.compile(r"\s*The IDs? of ")  # what follows repeats the tags
IMPORTANT, FUTURE = "What are the important objects", "What is the future state of"
BEHAVIOUR, SAFE = "Predict the behavior of the ego vehicle", "what are safe actions to take for the ego vehicle"


def read_drivelm(path: str | Path) -> Iterator[Instruction]:
    """DriveLM (`v1_1_train_nus.json`): {scene: {scene_description, key_frames: {sample: {key_object_infos, QA}}}}.

    Of each keyframe one instruction for each passage that its answers make, of kind "scene", "critical_objects",
    "intent" or "action", as the world's narration has them. An object's tag becomes its description and its camera.
    Raises DatasetError.
    """
    content = read_json(Path(path), REMEDY)
    if not isinstance(content, Mapping):
        raise DatasetError(f"{path} holds a {type(content).__name__} where a mapping of scenes belongs; {REMEDY}")
    for scene, entry in content.items():
        where = f"the scene {scene!r}"
        described = _field(path, where, entry, "scene_description", str)
        for sample, frame in _field(path, where, entry, "key_frames", Mapping).items():
            where = f"the keyframe {sample!r}"
            names = _names(path, where, _field(path, where, frame, "key_object_infos", Mapping))
            answers = _answers(path, where, _field(path, where, frame, "QA", Mapping))
            passages = {
                "scene": described,
                "critical_objects": _critical_objects(answers, names),
                "intent": _first(answers, BEHAVIOUR),
                "action": _action(_first(answers, SAFE)),
            }
            for kind, text in passages.items():
                if text.strip():
                    question = CAPTION_QUESTIONS[kind]
                    yield Instruction(SOURCE, str(sample), question, _told(text, names), kind=kind)


def _names(path: str | Path, where: str, objects: Mapping[str, Any]) -> dict[str, str]:
    """What stands for the tag of each object."""
    names = {}
    for tag, about in objects.items():
        described = _field(path, where, about, "Visual_description", str).strip().rstrip(".")
        camera = TAG.match(tag)
        if camera is None:
            raise DatasetError(f"{path} names an object {tag!r} in {where}, which is no <cN,CAMERA,x,y>; {REMEDY}")
        view = camera[1].removeprefix("CAM_").replace("_", " ").lower()
        names[tag] = f"the {described[:1].lower()}{described[1:]} in the {view} camera"
    return names


def _answers(path: str | Path, where: str, topics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(question, answer) of all topics, in their order."""
    found = []
    for topic in ("perception", "prediction", "planning", "behavior"):
        for pair in topics.get(topic, ()):
            found.append((_field(path, where, pair, "Q", str), _field(path, where, pair, "A", str)))
    return found


def _critical_objects(answers: list[tuple[str, str]], names: Mapping[str, str]) -> str:
    """What matters, then where each of them will go."""
    sentences = [IDS.split(_first(answers, IMPORTANT))[0].strip()]
    for question, answer in answers:
        tag = TAG.search(question)
        if question.startswith(FUTURE) and tag is not None and tag[0] in names:
            name = names[tag[0]]
            state = answer.strip().rstrip(".")
            sentences.append(f"{name[:1].upper()}{name[1:]}: {state[:1].lower()}{state[1:]}.")
    return " ".join(filter(None, sentences))


def _action(answer: str) -> str:
    """A list of actions as a sentence."""
    actions = answer.strip().rstrip(".")
    return f"Safe actions: {actions[:1].lower()}{actions[1:]}." if actions else ""


def _first(answers: list[tuple[str, str]], beginning: str) -> str:
    return next((answer for question, answer in answers if beginning in question), "")


def _told(text: str, names: Mapping[str, str]) -> str:
    """Words without tags, on one line."""
    spoken = TAG.sub(lambda tag: names.get(tag[0], "an object"), text)
    return " ".join(spoken.split())


def _field(path: str | Path, where: str, entry: Any, name: str, kind: type) -> Any:
    value = entry.get(name) if isinstance(entry, Mapping) else None
    if not isinstance(value, kind):
        raise DatasetError(f"{path} lacks {name!r} in {where}; {REMEDY}")
    return value
