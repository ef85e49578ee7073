"""The reader of DriveLM's reasoning on a small file of the published schema."""

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from opendrivevla_ros.datasets.drivelm import read_drivelm
from opendrivevla_ros.datasets.nuscenes_tables import DatasetError

UNASKED = {"C": None, "con_up": None, "con_down": None, "cluster": None, "layer": None}
SUV, LIGHT = "<c1,CAM_BACK,1088.3,497.5>", "<c2,CAM_FRONT_LEFT,1043.2,82.2>"
CONTENT: dict[str, Any] = {
    "scene1": {
        "scene_description": "The ego vehicle proceeds through\nthe intersection.",
        "key_frames": {
            "sample1": {
                "key_object_infos": {
                    SUV: {
                        "Category": "Vehicle",
                        "Status": "Moving",
                        "Visual_description": "Brown SUV.",
                        "2d_bbox": [],
                    },
                    LIGHT: {"Category": "Traffic element", "Status": None, "Visual_description": "Green light."},
                },
                "QA": {
                    "perception": [
                        {
                            "Q": "What are the important objects in the current scene? They will be considered.",
                            "A": f"There is a brown SUV to the back. The IDs of these objects are {SUV}, and {LIGHT}.",
                            **UNASKED,
                        },
                        {"Q": f"What is the moving status of object {SUV}?", "A": "Going ahead.", **UNASKED},
                    ],
                    "prediction": [
                        {"Q": f"What is the future state of {SUV}?", "A": "Keep going straight.", **UNASKED},
                    ],
                    "planning": [
                        {
                            "Q": "In this scenario, what are safe actions to take for the ego vehicle?",
                            "A": f"Brake gently because of {LIGHT}, go on.",
                            **UNASKED,
                        },
                    ],
                    "behavior": [
                        {"Q": "Predict the behavior of the ego vehicle.", "A": "It is going straight.", **UNASKED},
                    ],
                },
                "image_paths": {"CAM_FRONT": "../nuscenes/samples/CAM_FRONT/x.jpg"},
            },
            "sample2": {"key_object_infos": {}, "QA": {"perception": [], "planning": []}, "image_paths": {}},
        },
    }
}


def written(folder: Path, content: Any) -> Path:
    path = folder / "v1_1_train_nus.json"
    path.write_text(json.dumps(content))
    return path


def test_the_answers_of_a_keyframe_become_the_passages_of_a_thought(tmp_path: Path):
    found = list(read_drivelm(written(tmp_path, CONTENT)))
    assert [(one.sample, one.kind) for one in found] == [
        ("sample1", "scene"),
        ("sample1", "critical_objects"),
        ("sample1", "intent"),
        ("sample1", "action"),
        ("sample2", "scene"),
    ]
    assert {one.source for one in found} == {"drivelm"}
    assert found[0].question == "Describe the scene."
    assert [one.answer for one in found[:4]] == [
        "The ego vehicle proceeds through the intersection.",
        "There is a brown SUV to the back. The brown SUV in the back camera: keep going straight.",
        "It is going straight.",
        "Safe actions: brake gently because of the green light in the front left camera, go on.",
    ]


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        (
            lambda content: content["scene1"].pop("scene_description"),
            "lacks 'scene_description' in the scene 'scene1'",
        ),
        (lambda content: content["scene1"].pop("key_frames"), "lacks 'key_frames' in the scene 'scene1'"),
        (
            lambda content: content["scene1"]["key_frames"]["sample1"].pop("QA"),
            "lacks 'QA' in the keyframe 'sample1'; download it again",
        ),
        (
            lambda content: content["scene1"]["key_frames"]["sample2"].update(key_object_infos={"c9": {}}),
            "lacks 'Visual_description' in the keyframe 'sample2'",
        ),
        (
            lambda content: content["scene1"]["key_frames"]["sample2"].update(
                key_object_infos={"c9": {"Visual_description": "Bus."}}
            ),
            "names an object 'c9' in the keyframe 'sample2', which is no <cN,CAMERA,x,y>",
        ),
    ],
)
def test_an_entry_that_lacks_something_is_named(tmp_path: Path, broken: Callable[[Any], Any], complaint: str):
    content = deepcopy(CONTENT)
    broken(content)
    with pytest.raises(DatasetError, match=complaint):
        list(read_drivelm(written(tmp_path, content)))


def test_a_file_of_another_shape_is_refused(tmp_path: Path):
    with pytest.raises(DatasetError, match="holds a list where a mapping of scenes belongs"):
        list(read_drivelm(written(tmp_path, [])))
