"""nuScenes-format scenes as drives, with the words of instruction data, and a recipe that learns from them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from opendrivevla_ros.core.geometry import NUSCENES_LIDAR_TO_BASE, apply, invert
from opendrivevla_ros.datasets.drive_store import DriveStore
from opendrivevla_ros.datasets.instruction_data import Instruction
from opendrivevla_ros.datasets.nuscenes_export import export_nuscenes
from opendrivevla_ros.datasets.nuscenes_scenes import NuScenesScene, NuScenesScenes
from opendrivevla_ros.datasets.world_scenes import StaggeredCameras, world_scene
from opendrivevla_ros.policies.opendrivevla.config import small
from opendrivevla_ros.training.errors import TrainingError
from opendrivevla_ros.training.frame_labels import Clips
from opendrivevla_ros.training.language_samples import NOTHING_SEEN, spoken
from opendrivevla_ros.training.scene_drives import PLAN_QUESTION, store_scenes, words_about
from opendrivevla_ros.training.text_tasks import written_place
from opendrivevla_ros.world.rig import nuscenes_rig


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> NuScenesScenes:
    root = tmp_path_factory.mktemp("nuscenes") / "set"
    cameras = StaggeredCameras(nuscenes_rig(224, 126))
    export_nuscenes(root, [world_scene("bend", 0, cameras, duration_s=5.0)])
    cameras.close()
    return NuScenesScenes(root, "v1.0-world", image_size=(224, 126))


@pytest.fixture(scope="module")
def scene(scenes: NuScenesScenes) -> NuScenesScene:
    return next(iter(scenes))


def test_scenes_become_stretches_that_perception_and_language_learn_from(scenes: NuScenesScenes, tmp_path: Path):
    token = next(iter(scenes))[2].token
    said = [Instruction("nuscenes-qa", token, "Are there any cars?", "yes", kind="exist")]
    for _ in range(2):  # what is there is kept
        assert list(store_scenes(scenes, DriveStore(tmp_path), said)) == [1.0]
    store = DriveStore(tmp_path)
    assert sum(store.lengths) == len(list(next(iter(scenes))))
    assert store.lengths[0] == 8
    config = small(vocabulary_size=900, eos_id=1)
    first, second = Clips(store, config.perception, 2)[0]
    assert first.frame.images.shape == (6, 3, 128, 224)
    assert second.frame.timestamp_s - first.frame.timestamp_s == pytest.approx(0.5, abs=0.05)
    kinds = [{task.kind for task in spoken(one, NOTHING_SEEN, config).tasks} for one in store.read(0)]
    assert all("plan" in of_sample for of_sample in kinds[:4])
    assert "question nuscenes-qa exist" in kinds[2]
    last = store.read(len(store.lengths) - 1)[-1]
    assert not last.sample.future_mask.all()
    assert "plan" not in {task.kind for task in spoken(last, NOTHING_SEEN, config).tasks}


def test_captions_and_questions_keep_their_kinds_and_lose_their_line_breaks(scene: NuScenesScene):
    sample = scene[1]
    words = words_about(
        sample,
        scene,
        [
            Instruction("nuscenes-qa", sample.token, "Are there\nany  cars?", "yes", kind="exist"),
            Instruction("nucaption", sample.token, "What is there?", "A street."),
            Instruction("gpt-driver", sample.token, "Perception:\n<car>" * 200, "Thoughts: ..."),
        ],
    )
    assert words.captions == (("nucaption", "What is there?", "A street."),)
    assert words.questions == (
        ("nuscenes-qa exist", "Are there any cars?", "yes"),
        ("gpt-driver", PLAN_QUESTION, "Thoughts: ..."),
    )


def test_an_object_is_named_by_its_place(scenes: NuScenesScenes, scene: NuScenesScene):
    sample = scene[1]
    row, label = scenes.annotations(sample.token)[0], sample.agents[0]
    about = Instruction("tod3cap", sample.token, "Describe this object.", "A car.", annotation=row["token"])
    ((kind, question, answer),) = words_about(sample, scene, [about]).captions
    place = written_place(apply(invert(np.array(NUSCENES_LIDAR_TO_BASE)), label.position))
    assert (kind, question, answer) == ("tod3cap", f"Describe this object. The object is at {place}.", "A car.")


def test_instructions_that_fit_no_prompt_or_another_sample_are_refused(scene: NuScenesScene):
    sample = scene[1]
    wrong = Instruction("nucaption", sample.token, "What is <MAP>?", "A map.")
    with pytest.raises(
        TrainingError, match=r"nucaption for the sample .*: the question holds '<' .* leave this entry"
    ):
        words_about(sample, scene, [wrong])
    with pytest.raises(TrainingError, match=f"an instruction about the sample other was given for {sample.token}"):
        words_about(sample, scene, [replace(wrong, sample="other")])
