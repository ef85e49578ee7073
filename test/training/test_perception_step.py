"""Perception's training step: it learns a frame, follows objects by their labels, and reaches every layer."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate.utils import send_to_device
from perception.test_network import CONFIG, frame
from training.samples import box_labels, map_labels, plan_label

from opendrivevla_ros.perception.network import PerceptionNetwork
from opendrivevla_ros.perception.tracks import UNTRACKED
from opendrivevla_ros.training import perception_step
from opendrivevla_ros.training.dense_head import PEAKS
from opendrivevla_ros.training.labels import BoxLabels
from opendrivevla_ros.training.loop import LoopSettings, train
from opendrivevla_ros.training.losses import track_losses
from opendrivevla_ros.training.metrics import read_metrics
from opendrivevla_ros.training.perception_step import (
    GHOST,
    LabelledFrame,
    PerceptionTraining,
    every_layer,
    move_frame,
    occupied,
)


def labelled(index: int = 0, *, objects: int = 3) -> LabelledFrame:
    return LabelledFrame(frame(index), box_labels(objects), map_labels(CONFIG.bev_size), plan_label())


@pytest.fixture
def training() -> PerceptionTraining:
    torch.manual_seed(0)
    return PerceptionTraining(PerceptionNetwork(CONFIG)).train()


def test_the_loss_of_one_frame_falls_by_half_in_thirty_steps(training: PerceptionTraining, tmp_path: Path):
    settings = LoopSettings(steps=30, learning_rate=5e-3, batch_size=1, warmup_steps=3)
    parameters = [parameter for parameter in training.parameters() if parameter.requires_grad]
    train(training, [[labelled()]], list, [{"params": parameters}], settings, tmp_path)
    rows = read_metrics(tmp_path)
    assert rows[-1]["loss"] < rows[0]["loss"] / 2
    for name in (
        "centres",
        "cell_boxes",
        "occupancy",
        "peak_class",
        "peak_box",
        "track_class",
        "track_box",
        "map_class",
        "map_box",
        "track_future",
        "track_state",
        "plan",
    ):
        assert rows[-1][name] < rows[0][name], name


def test_a_scene_of_two_frames_trains_every_part_that_has_a_say(training: PerceptionTraining):
    losses = training([[labelled(0), labelled(1)]])
    torch.stack(list(losses.values())).sum().backward()
    reached = {name for name, p in training.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert all(p.grad.isfinite().all() for p in training.parameters() if p.grad is not None)
    for layer in range(CONFIG.decoder_layers):
        for branch in ("cls", "reg"):
            assert f"perception.pts_bbox_head.{branch}_branches.{layer}.0.weight" in reached
    for part in ("img_backbone.conv1", "query_interact.linear1", "memory_bank.save_proj", "seg_head.reg_branches.0.0"):
        in_part = f"perception.{part}.weight" in reached
        assert in_part == (part != "memory_bank.save_proj"), part  # two frames are too few to read a memory


@pytest.mark.parametrize("ghosts", [False, True])
def test_what_a_frame_hands_to_the_next(monkeypatch: pytest.MonkeyPatch, ghosts: bool):
    """An object keeps its query; what is sure of something that is not there goes on as a track of nothing."""
    config = replace(CONFIG, birth_score=0.0 if ghosts else 1.0)
    training = PerceptionTraining(PerceptionNetwork(config)).train()
    seen: list[torch.Tensor] = []

    def watched(logits: torch.Tensor, codes: torch.Tensor, objects: torch.Tensor, labels: BoxLabels):
        if len(objects) != PEAKS:
            seen.append(objects)
        return track_losses(logits, codes, objects, labels)

    monkeypatch.setattr(perception_step, "track_losses", watched)
    training([[labelled(0, objects=3), labelled(1, objects=2), labelled(2, objects=2)]])
    carried = [objects[objects >= 0].tolist() for objects in seen]
    assert [sorted(set(ids) - {GHOST}) for ids in carried] == [[], [10, 11, 12], [10, 11]]
    # of all tracks, fresh and carried, each that no object was matched to in the frame before
    wrong = [0, CONFIG.queries - 3, 2 * CONFIG.queries - 2] if ghosts else [0, 0, 0]
    assert [ids.count(GHOST) for ids in carried] == wrong
    assert all((objects[: CONFIG.queries] == UNTRACKED).all() for objects in seen)


def test_scenes_do_not_know_of_each_other(training: PerceptionTraining):
    training.eval()
    both = training([[labelled(0), labelled(1)], [labelled(2)]])
    first, second = training([[labelled(0), labelled(1)]]), training([[labelled(2)]])
    expected = {name: (2 * first[name] + second[name]) / 3 for name in first}
    torch.testing.assert_close(both, expected)


def test_half_precision_gives_nearly_the_same_losses_and_finite_gradients(training: PerceptionTraining):
    scenes = [[labelled(0), labelled(1)]]
    training.eval()
    exact = training(scenes)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = training(scenes)
    torch.testing.assert_close(rounded, exact, rtol=0.1, atol=0.02)
    torch.stack(list(rounded.values())).sum().backward()
    assert all(p.grad.isfinite().all() for p in training.parameters() if p.grad is not None)


def test_accelerate_finds_the_frames_of_a_batch_and_moves_them():
    given = labelled()
    ((moved,),) = send_to_device([[given]], torch.device("cpu"))
    assert moved is not given
    for name in ("frame", "boxes", "map_elements", "plan"):
        torch.testing.assert_close(vars(getattr(moved, name)), vars(getattr(given, name)))


def test_all_of_a_frame_moves_but_what_is_read_number_by_number():
    frame = replace(labelled().frame, ego=torch.zeros(3))
    parts = vars(move_frame(frame, "meta"))
    moved = {name: part.device.type for name, part in parts.items() if isinstance(part, torch.Tensor)}
    assert moved.pop("can_bus") == "cpu"
    assert set(moved.values()) == {"meta"}
    assert "ego" in moved


def test_the_last_of_all_layers_is_what_the_head_itself_says(training: PerceptionTraining):
    head = training.perception.pts_bbox_head
    bev = torch.randn(CONFIG.bev_size**2, CONFIG.embed_dim)
    decoding = head.decode(bev, torch.randn(4, 2 * CONFIG.embed_dim), torch.randn(4, 3))
    logits, codes = every_layer(head, decoding)
    assert logits.shape == (CONFIG.decoder_layers, 4, CONFIG.classes)
    torch.testing.assert_close((logits[-1], codes[-1]), (decoding.logits, decoding.boxes))


def test_occupancy_has_a_channel_for_every_map_class():
    labels = map_labels()
    channels = occupied(labels)
    assert channels.shape == (4, 8, 8)
    assert channels.flatten(1).sum(1).tolist() == [8, 0, 8, 48]
    assert (channels[3] == labels.drivable).all()


def test_a_frame_without_objects_is_learned_from_too(training: PerceptionTraining):
    losses = training([[labelled(0, objects=0), labelled(1, objects=0)]])
    torch.stack(list(losses.values())).sum().backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert all(p.grad.isfinite().all() for p in training.parameters() if p.grad is not None)
