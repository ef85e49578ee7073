"""The vision tower's first lessons: where the ground is in the pictures, and that what is there is learned."""

from dataclasses import replace

import pytest
import torch
from policies.autovla.tiny import PROPOSING, tiny_model, tiny_tokenizer
from policies.observations import make_rig
from torch.optim import AdamW
from training.autovla.drives import stored
from training.autovla.warm import actions, dataset

from opendrivevla_ros.datasets.drive_store import DriveStore
from opendrivevla_ros.policies.autovla.config import FRONT_CAMERAS
from opendrivevla_ros.policies.autovla.images import patches
from opendrivevla_ros.policies.autovla.sight import GROUND_SIZE as SIDE
from opendrivevla_ros.policies.autovla.sight import lift, places_in
from opendrivevla_ros.training.autovla.examples import PlanExamples
from opendrivevla_ros.training.autovla.sight import SeenMoments, SightTraining, sight_of
from opendrivevla_ros.training.errors import TrainingError

FRONT, LEFT, RIGHT = range(3)  # of FRONT_CAMERAS
WIDTH = PROPOSING["sight_width"]


@pytest.fixture(scope="module")
def moments(tmp_path_factory: pytest.TempPathFactory) -> SeenMoments:
    """Of an empty road, and of one with a car ahead."""
    return SeenMoments(dataset(tmp_path_factory.mktemp("drives")), tiny_model().autovla_config.cameras)


def seen_by(column: int, row: int) -> list[bool]:
    """Which of the cameras show anything above a cell."""
    shown = places_in(make_rig(), FRONT_CAMERAS).isfinite().all(-1).unflatten(1, (SIDE, SIDE, -1)).any(-1)
    return shown[:, row, column].tolist()


def test_the_ground_ahead_is_where_the_cameras_see_it():
    assert FRONT_CAMERAS == ("cam_front", "cam_front_left", "cam_front_right")
    assert seen_by(SIDE // 2, SIDE - 1) == [True, False, False]
    assert seen_by(0, 4) == [False, True, False]
    assert seen_by(SIDE - 1, 4) == [False, False, True]
    places = places_in(make_rig(), FRONT_CAMERAS).unflatten(1, (SIDE, SIDE, -1))
    ahead = places[FRONT, :, SIDE // 2 - 1 : SIDE // 2 + 1, 1]
    across = ahead[-1, :, 0]
    assert across[0] < 0 < across[1]  # the column left of the middle lies left of it
    assert across.abs().max() < 0.1
    down = ahead[8:, 0, 1]
    assert (down.diff() < 0).all()  # the further, the higher in the picture


def test_patches_stand_where_their_pixels_are():
    model = tiny_model(sight_width=WIDTH, image_size=(224, 168))  # wider and higher than a window
    model.model.visual.blocks = torch.nn.ModuleList()  # so that a patch knows of no other
    vision, config = model.autovla_config.vision, model.autovla_config
    size = (config.frames, 3, config.image_size[1], config.image_size[0])

    def patches_of(frames: torch.Tensor) -> torch.Tensor:
        videos = [patches(video, patch=vision.patch, temporal_patch=2, merge=vision.merge) for video in frames]
        (found,) = model.seen([torch.cat(videos)]).patches
        return found

    black = torch.zeros(3, *size, dtype=torch.uint8)
    before = patches_of(black)
    assert before.shape == (3, 2, 12, 16, vision.hidden_size)
    for camera, time, row, column in ((0, 0, 0, 0), (1, 1, 9, 3), (2, 0, 5, 14), (1, 0, 11, 15)):
        frames = black.clone()
        y, x = row * vision.patch, column * vision.patch
        frames[camera, 2 * time, :, y : y + vision.patch, x : x + vision.patch] = 255
        changed = (patches_of(frames) != before).any(-1).nonzero().tolist()
        assert changed == [[camera, time, row, column]]


def test_only_patches_that_show_a_cell_change_it():
    features = torch.randn(1, len(FRONT_CAMERAS), 2, 4, 8, WIDTH, requires_grad=True)
    places = places_in(make_rig(), FRONT_CAMERAS)[None]
    for column, row, camera in ((SIDE // 2, SIDE - 1, FRONT), (0, 4, LEFT), (SIDE - 1, 4, RIGHT)):
        cells = lift(features, places)[0, :, row, column]
        (gradient,) = torch.autograd.grad(cells.abs().sum(), features)
        of_camera = gradient[0].abs().flatten(1).sum(1) > 0
        assert of_camera.tolist() == [number == camera for number in range(len(FRONT_CAMERAS))]


def test_a_cell_is_what_the_pictures_show_at_its_points():
    features = torch.randn(1, len(FRONT_CAMERAS), 2, 4, 8, WIDTH)
    places = places_in(make_rig(), FRONT_CAMERAS)
    sampled = torch.nn.functional.grid_sample(
        features[0].permute(0, 1, 4, 2, 3).flatten(1, 2),
        places.nan_to_num(posinf=-2.0)[:, None],
        padding_mode="border",
        align_corners=False,
    )[:, :, 0]  # [cameras, times * C, P]
    seen = places.isfinite().all(-1)
    total = (sampled * seen[:, None]).sum(0).unflatten(1, (SIDE * SIDE, -1)).sum(2)
    often = seen.sum(0).unflatten(0, (SIDE * SIDE, -1)).sum(1).clamp(min=1)
    wanted = (total / often).unflatten(1, (SIDE, SIDE))
    torch.testing.assert_close(lift(features, places[None])[0], wanted, atol=1e-4, rtol=1e-4)


def test_a_handful_of_moments_is_learned_by_the_tower_and_by_what_reads_it(moments: SeenMoments):
    torch.manual_seed(0)
    model = tiny_model(sight_width=WIDTH)
    model.requires_grad_(False).model.visual.requires_grad_(True)
    sight_of(model).requires_grad_(True)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    training = SightTraining(model)
    optimizer = AdamW([parameter for parameter in training.parameters() if parameter.requires_grad], 3e-3)
    batch = [moments[index] for index in (0, 3, 6, 9)]
    sums = []
    for _ in range(40):
        losses = training(batch)
        assert set(losses) == {"centres", "cell_boxes", "occupancy", "plan", "doubt"}
        total = torch.stack(list(losses.values())).sum()
        sums.append(total.item())
        total.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert sums[-1] < 0.5 * sums[0]
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert {name.split(".")[0] for name in changed} == {"model", "sight"}
    assert all(name.startswith(("model.visual.", "sight.")) for name in changed)
    assert any(name.startswith("sight.query.look.") for name in changed)


def test_the_tower_learns_in_bfloat16_and_all_else_in_float32(moments: SeenMoments, attended: list[torch.dtype]):
    model = tiny_model(sight_width=WIDTH)
    types: list[torch.dtype] = []
    model.model.visual.blocks[-1].register_forward_hook(lambda _part, _given, found: types.append(found.dtype))
    for part in (sight_of(model).mix, sight_of(model).query.look):
        part.register_forward_hook(lambda _part, _given, found: types.append(torch.as_tensor(found).dtype))
    losses = SightTraining(model)([moments[0]])
    assert types[0] == torch.bfloat16
    assert set(types[1:]) == {torch.float32}
    assert set(attended) == {torch.float32}
    assert {loss.dtype for loss in losses.values()} == {torch.float32}


def test_a_model_without_sight_is_refused():
    with pytest.raises(TrainingError, match="no part that reads the ground; set sight_width in its configuration"):
        SightTraining(tiny_model())


def test_what_was_there_stands_where_it_was(moments: SeenMoments):
    empty, behind_a_car = moments[0], moments[6]
    assert (len(empty.boxes), len(behind_a_car.boxes)) == (0, 1)
    x, y = behind_a_car.boxes.codes[0, :2].tolist()  # in the lidar frame, a metre ahead of base_link
    assert (x, y) == (pytest.approx(0.0, abs=0.2), pytest.approx(8.0, abs=0.2))
    drivable = behind_a_car.map_elements.drivable
    assert drivable[10, SIDE // 2].item()
    assert not drivable[10, 0].item()  # the road is 8 m wide, the ground that is learned 40 m


def test_moments_without_labels_are_refused_in_one_sentence(tmp_path):
    store = DriveStore(tmp_path)
    unlabelled = [replace(one, sample=replace(one.sample, agents=None)) for one in map(stored, range(6))]
    store.write("scene", unlabelled)
    config = tiny_model().autovla_config
    seen = SeenMoments(PlanExamples([DriveStore(tmp_path)], config, tiny_tokenizer(), actions()), config.cameras)
    with pytest.raises(TrainingError, match=r"scene 0 has no agents or no map to learn sight from; leave that stage"):
        seen[0]
