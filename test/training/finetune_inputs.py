"""A tiny checkpoint and short bags for the tests of fine-tuning."""

from dataclasses import replace
from pathlib import Path

from policies.published import TOKENIZER, tiny_model, tiny_perception

from opendrivevla_ros.datasets.bags import RIG_FILE, BagReader, BagWriter
from opendrivevla_ros.datasets.world_bag import write_world_bag
from opendrivevla_ros.policies.opendrivevla.model import OpenDriveVlaModel, save_model
from opendrivevla_ros.sensing.calibration import load_rig
from opendrivevla_ros.training.bag_drives import Recording

SIZE = (112, 63)
BAG_SECONDS = 4.6  # moments of which the first few have a whole future


def write_checkpoint(folder: Path, *, seed: int = 0, trained: bool = True) -> Path:
    """A checkpoint of random weights that says that it is trained, with the published way to tell the heading."""
    model = tiny_model()
    config = replace(model.config, perception=replace(tiny_perception(), image_size=SIZE))
    config = replace(config, trained=trained, heading_as_trained=True)
    model.config = config
    if seed:
        next(model.language.parameters()).data.add_(seed)
    save_model(model.bfloat16(), folder, card="made for a test\n")
    TOKENIZER.save_pretrained(folder)
    return folder


def write_perception_alone(folder: Path) -> Path:
    """A checkpoint without a language model."""
    config = replace(tiny_model().config, trained=True, language=None)
    save_model(OpenDriveVlaModel(config), folder, card="made for a test\n")
    return folder


def write_bag(path: Path) -> Path:
    """A drive through a bend of the world."""
    write_world_bag(path, duration_s=BAG_SECONDS, image_size=SIZE)
    return path


def cut_bag(source: Path, target: Path, seconds: float) -> Path:
    """The beginning of a bag."""
    with BagReader(source) as bag, BagWriter(target) as writer:
        for entry in bag.messages():
            if entry.stamp_ns - bag.start_ns <= seconds * 1e9:
                writer.write_bytes(entry.topic, entry.type, entry.data, entry.stamp_ns)
    (target / RIG_FILE).write_bytes((source / RIG_FILE).read_bytes())
    return target


def recording(path: Path) -> Recording:
    """A bag with the rig beside it."""
    return Recording(path, load_rig(path / RIG_FILE))
