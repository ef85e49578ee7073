"""Questions, captions and plans in words about nuScenes samples, from the published files of five data sets.

The files are read as published; a reader names the file, the entry and what it lacks where one differs.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opendrivevla_ros.datasets.nuscenes_tables import DatasetError, read_json

REMEDY = "download it again, or give the file of this data set"
OBJECT_QUESTION = "Describe this object: what it is, what it does, and where it is."
BEHAVIOUR_QUESTION = "What is the ego vehicle doing, and why?"
# TOD3Cap describes an object in these parts, each an object whose own name holds the words.
TOD3CAP_PARTS = ("attribute_caption", "motion_caption", "localization_caption", "depth_caption", "map_caption")


@dataclass(frozen=True)
class Instruction:
    """A question about a nuScenes sample, and its answer.

    kind: the type of question, where the data set has types. annotation: token of the sample_annotation that it is
    about, empty where it is about the whole scene.
    """

    source: str
    sample: str
    question: str
    answer: str
    kind: str = ""
    annotation: str = ""


def read_nuscenes_qa(path: str | Path) -> Iterator[Instruction]:
    """NuScenes-QA (`NuScenes_train_questions.json`): {"questions": [{sample_token, question, answer, template_type}]}.

    Answers are one or two words: yes, no, a number, a class or a state. Raises DatasetError.
    """
    questions = _field(path, "the file", _content(path, dict), "questions", list)
    for index, entry in enumerate(questions):
        where = f"question {index}"
        yield Instruction(
            "nuscenes-qa",
            _text(path, where, entry, "sample_token"),
            _text(path, where, entry, "question"),
            _text(path, where, entry, "answer"),
            kind=_text(path, where, entry, "template_type"),
        )


def read_tod3cap(path: str | Path) -> Iterator[Instruction]:
    """TOD3Cap (`final_caption_bbox_token.json`): {annotation token: {sample_token, attribute_caption: {...}, ...}}.

    The answer joins the words of TOD3CAP_PARTS that there are; "none" stands for a part without. Raises DatasetError.
    """
    for annotation, entry in _content(path, dict).items():
        where = f"the entry {annotation!r}"
        parts = []
        for name in TOD3CAP_PARTS:
            if isinstance(entry, Mapping) and name in entry:
                words = _text(path, where, _field(path, where, entry, name, dict), name).strip().rstrip(".")
                if words and words.lower() != "none":
                    parts.append(words)
        if not parts:
            raise _lacks(path, where, f"any of {', '.join(TOD3CAP_PARTS)}")
        sample, caption = _text(path, where, entry, "sample_token"), ", ".join(parts)
        answer = f"{caption[0].upper()}{caption[1:]}."
        yield Instruction("tod3cap", sample, OBJECT_QUESTION, answer, annotation=annotation)


def read_nucaption(path: str | Path) -> Iterator[Instruction]:
    """nuCaption: [{sample_token, question, answer, answer_lidar}], the last without what only cameras see.

    `answer` comes before `answer_lidar`; either may be alone. Raises DatasetError.
    """
    for index, entry in enumerate(_content(path, list)):
        where = f"entry {index}"
        name = "answer" if isinstance(entry, Mapping) and "answer" in entry else "answer_lidar"
        yield Instruction(
            "nucaption",
            _text(path, where, entry, "sample_token"),
            _text(path, where, entry, "question"),
            _text(path, where, entry, name),
        )


def read_nux(path: str | Path) -> Iterator[Instruction]:
    """Nu-X (`Nu_X_train.json`): {sample token: {narration, reasoning}}: what the ego vehicle does, and why.

    Raises DatasetError.
    """
    for sample, entry in _content(path, dict).items():
        where = f"the entry {sample!r}"
        narration, reasoning = (_text(path, where, entry, name).strip() for name in ("narration", "reasoning"))
        joint = " " if reasoning[0].islower() else ". "  # "because ..." goes on with the sentence
        answer = f"{narration.rstrip('.')}{joint}{reasoning.rstrip('.')}."
        yield Instruction("nu-x", sample, BEHAVIOUR_QUESTION, answer)


def read_gpt_driver(path: str | Path, split_path: str | Path, part: str = "train") -> Iterator[Instruction]:
    """GPT-Driver (`train.json` and `split.json`): a line of {"messages": [{role, content}]} for each token of a part.

    The question is the user's message (perception, ego states, history, goal), the answer the assistant's (thoughts,
    meta action, trajectory in the lidar's frame). The lines have no tokens: they are those of split.json, in order.
    Raises DatasetError, also when the two files do not have the same length.
    """
    samples = _field(split_path, "the file", _content(split_path, dict), part, list)
    lines = _lines(Path(path))
    if len(lines) != len(samples):
        counts = f"{len(lines)} lines, and {split_path} {len(samples)} samples in {part!r}"
        raise DatasetError(f"{path} has {counts}; the two files do not belong together")
    for index, (sample, entry) in enumerate(zip(samples, lines, strict=True)):
        where = f"line {index + 1}"
        by_role = {
            _text(path, where, message, "role"): _text(path, where, message, "content")
            for message in _field(path, where, entry, "messages", list)
        }
        question, answer = (_text(path, where, by_role, role) for role in ("user", "assistant"))
        yield Instruction("gpt-driver", str(sample), question.strip(), answer.strip())


def _content(path: str | Path, kind: type) -> Any:
    content = read_json(Path(path), REMEDY)
    if not isinstance(content, kind):
        wanted = "list" if kind is list else "mapping"
        raise DatasetError(f"{path} holds a {type(content).__name__} where a {wanted} belongs; {REMEDY}")
    return content


def _lines(path: Path) -> list[Any]:
    try:
        return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror}); {REMEDY}") from None
    except ValueError as error:
        raise DatasetError(f"{path} is not JSON line by line ({error}); {REMEDY}") from None


def _field(path: str | Path, where: str, entry: Any, name: str, kind: type) -> Any:
    value = entry.get(name) if isinstance(entry, Mapping) else None
    if not isinstance(value, kind):
        raise _lacks(path, where, repr(name))
    return value


def _text(path: str | Path, where: str, entry: Any, name: str) -> str:
    """A field of words; a number counts as its digits, as some answers are counts."""
    value = entry.get(name) if isinstance(entry, Mapping) else None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value.strip():
        raise _lacks(path, where, f"{name!r} in words")
    return value


def _lacks(path: str | Path, where: str, what: str) -> DatasetError:
    return DatasetError(f"{path} lacks {what} in {where}; {REMEDY}")
