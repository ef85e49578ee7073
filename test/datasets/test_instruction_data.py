"""Readers of instruction data on small files of the published schemas."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from opendrivevla_ros.datasets.instruction_data import (
    Instruction,
    read_gpt_driver,
    read_nucaption,
    read_nuscenes_qa,
    read_nux,
    read_tod3cap,
)
from opendrivevla_ros.datasets.nuscenes_tables import DatasetError

QA = {
    "info": {"version": "1.0"},
    "questions": [
        {
            "split": "train",
            "sample_token": "s1",
            "question": "How many moving cars are there?",
            "answer": "3",
            "template_type": "count",
            "num_hop": 0,
        },
        {"sample_token": "s2", "question": "Is there a bus?", "answer": "no", "template_type": "exist", "num_hop": 0},
    ],
}
TOD3CAP = {
    "a1": {
        "sample_token": "s1",
        "cam_file": "samples/CAM_FRONT/x.jpg",
        "attribute_caption": {"attribute_caption": "a white car"},
        "motion_caption": {"motion_caption": "moving slowly.", "x_vel": 0.1, "y_vel": 1.2},
        "localization_caption": {"localization_caption": "in front of the ego car", "x_offset": 1.0},
        "depth_caption": {"depth_caption": "12 meters away", "depth": 12.1},
        "map_caption": {"map_caption": "none"},
    }
}
NUCAPTION = [
    {"sample_token": "s1", "question": "Describe it.", "answer": "A red car.", "answer_lidar": "A car."},
    {"sample_token": "s2", "question": "Describe it.", "answer_lidar": "A truck ahead."},
]
NUX = {
    "s1": {"narration": "The car slows down", "reasoning": "because the light is red."},
    "s2": {"narration": "The car stops.", "reasoning": "A bus is in the way"},
}
GPT = [
    {
        "messages": [
            {"role": "system", "content": "Plan."},
            {
                "role": "user",
                "content": "\nPerception and Prediction:\n - car at (1.00,2.00)\nMission Goal: FORWARD\n",
            },
            {"role": "assistant", "content": "Thoughts:\nTrajectory:\n[(0.00,1.00)]"},
        ]
    }
]


def written(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_nuscenes_qa_gives_its_questions_by_type(tmp_path: Path) -> None:
    first, second = read_nuscenes_qa(written(tmp_path / "qa.json", QA))
    assert first == Instruction("nuscenes-qa", "s1", "How many moving cars are there?", "3", kind="count")
    assert second.answer == "no"


def test_tod3cap_joins_the_parts_that_there_are(tmp_path: Path) -> None:
    (caption,) = read_tod3cap(written(tmp_path / "captions.json", TOD3CAP))
    assert caption.answer == "A white car, moving slowly, in front of the ego car, 12 meters away."
    assert (caption.sample, caption.annotation) == ("s1", "a1")


def test_nucaption_prefers_what_cameras_see(tmp_path: Path) -> None:
    answers = [entry.answer for entry in read_nucaption(written(tmp_path / "train.json", NUCAPTION))]
    assert answers == ["A red car.", "A truck ahead."]


def test_nux_says_what_and_why(tmp_path: Path) -> None:
    first, second = read_nux(written(tmp_path / "nux.json", NUX))
    assert first.answer == "The car slows down because the light is red."
    assert second.answer == "The car stops. A bus is in the way."
    assert (first.sample, second.sample) == ("s1", "s2")


def gpt_files(folder: Path, split: object, lines: list) -> tuple[Path, Path]:
    path = folder / "train.json"
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n")
    return path, written(folder / "split.json", split)


def test_gpt_driver_takes_its_tokens_from_the_split(tmp_path: Path) -> None:
    (entry,) = read_gpt_driver(*gpt_files(tmp_path, {"train": ["s1"], "val": []}, GPT))
    assert entry.sample == "s1"
    assert entry.question.startswith("Perception and Prediction:")
    assert entry.answer.endswith("[(0.00,1.00)]")


def test_gpt_driver_files_of_different_lengths_do_not_belong_together(tmp_path: Path) -> None:
    files = gpt_files(tmp_path, {"train": ["s1", "s2"]}, GPT)
    with pytest.raises(DatasetError, match=r"train.json has 1 lines, and .*split.json 2 samples in 'train'"):
        list(read_gpt_driver(*files))
    with pytest.raises(DatasetError, match=r"split.json lacks 'test' in the file"):
        list(read_gpt_driver(*files, part="test"))


Reader = Callable[[Path], Iterator[Instruction]]


@pytest.mark.parametrize(
    ("reader", "content", "message"),
    [
        (read_nuscenes_qa, [], "holds a list where a mapping belongs"),
        (read_nuscenes_qa, {"questions": 3}, "lacks 'questions' in the file"),
        (read_nuscenes_qa, {"questions": [{"sample_token": "s"}]}, "lacks 'question' in words in question 0"),
        (read_tod3cap, {"a": {"sample_token": "s"}}, "lacks any of attribute_caption"),
        (read_tod3cap, {"a": {"sample_token": "s", "map_caption": "road"}}, "lacks 'map_caption' in the entry 'a'"),
        (read_nucaption, {}, "holds a dict where a list belongs"),
        (read_nucaption, [{"sample_token": "s", "question": "?"}], "lacks 'answer_lidar' in words in entry 0"),
        (read_nux, {"s": "text"}, "lacks 'narration' in words in the entry 's'"),
        (read_nux, {"s": {"narration": "x", "reasoning": " "}}, "lacks 'reasoning' in words"),
    ],
)
def test_a_file_of_another_schema_is_refused_by_entry(tmp_path: Path, reader: Reader, content, message: str) -> None:
    path = written(tmp_path / "file.json", content)
    with pytest.raises(DatasetError) as caught:
        list(reader(path))
    assert f"{path} {message}" in str(caught.value)
    assert "download it again" in str(caught.value)


@pytest.mark.parametrize("reader", [read_nuscenes_qa, read_nux, partial(read_gpt_driver, split_path="")])
def test_a_file_that_is_cut_off_or_missing_is_refused(tmp_path: Path, reader: Reader) -> None:
    path = tmp_path / "file.json"
    if isinstance(reader, partial):
        reader = partial(read_gpt_driver, split_path=written(tmp_path / "split.json", {"train": ["s"]}))
    with pytest.raises(DatasetError, match=r"file.json cannot be read"):
        list(reader(path))
    path.write_text('{"questions": [')
    with pytest.raises(DatasetError, match=r"file.json is not (whole JSON|JSON line by line)"):
        list(reader(path))
