"""The world as a data set and as samples drawn on line: the same truth by both ways."""

from dataclasses import replace

import numpy as np
import pytest

from opendrivevla_ros.core.geometry import apply, invert
from opendrivevla_ros.datasets.driving_samples import DrivingSample
from opendrivevla_ros.datasets.nuscenes_export import export_nuscenes
from opendrivevla_ros.datasets.nuscenes_scenes import NuScenesScenes
from opendrivevla_ros.datasets.world_samples import WorldSampler, world_observation
from opendrivevla_ros.datasets.world_scenes import StaggeredCameras, world_scene
from opendrivevla_ros.world.families import make_scenario
from opendrivevla_ros.world.renderer import Renderer
from opendrivevla_ros.world.rig import nuscenes_rig
from opendrivevla_ros.world.seeds import Split, seed_of
from opendrivevla_ros.world.simulation import StartError, World

FAMILY, SEED = "crossing_pedestrian", seed_of(Split.VALIDATION, 3)
SIZE = (96, 54)
SAMPLES = 9


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> list[DrivingSample]:
    root = tmp_path_factory.mktemp("world") / "set"
    cameras = StaggeredCameras(nuscenes_rig(*SIZE))
    export_nuscenes(root, [world_scene(FAMILY, SEED, cameras, duration_s=(SAMPLES - 1) / 2)])
    cameras.close()
    scenes = NuScenesScenes(root, "v1.0-world", image_size=SIZE, split="world_validation")
    return list(scenes["scene-2001"])


@pytest.fixture(scope="module")
def drawn() -> list[DrivingSample]:
    renderer = Renderer(nuscenes_rig(*SIZE))
    samples = list(WorldSampler(make_scenario(FAMILY, SEED), renderer).drive(SAMPLES))
    renderer.close()
    return samples


def test_both_ways_tell_the_same_motion(exported, drawn) -> None:
    assert len(exported) == len(drawn) == SAMPLES
    for first, second in zip(exported, drawn, strict=True):
        assert first.observation.stamp_ns == second.observation.stamp_ns
        assert first.observation.command == second.observation.command
        mask = first.future_mask
        np.testing.assert_allclose(first.future[mask], second.future[mask], atol=1e-6)
        for name in ("velocity", "acceleration", "angular_velocity", "steering"):
            found, truth = getattr(first.observation.ego, name), getattr(second.observation.ego, name)
            np.testing.assert_allclose(found, truth, atol=1e-9)
        assert first.observation.ego.history_observed == second.observation.ego.history_observed


def test_both_ways_tell_the_same_road_users(exported, drawn) -> None:
    for first, second in zip(exported, drawn, strict=True):
        assert len(first.agents) == len(second.agents) > 0
        for found, truth in zip(
            sorted(first.agents, key=lambda agent: agent.position.tolist()),
            sorted(second.agents, key=lambda agent: agent.position.tolist()),
            strict=True,
        ):
            np.testing.assert_allclose(found.position, truth.position, atol=1e-6)
            np.testing.assert_allclose(found.size, truth.size)
            assert (found.label, found.points, found.visibility) == (truth.label, truth.points, truth.visibility)
            assert found.attribute == truth.attribute
            both = found.future_mask & truth.future_mask
            np.testing.assert_allclose(found.future[both], truth.future[both], atol=1e-6)


def test_both_ways_tell_the_same_map(exported, drawn) -> None:
    for first, second in zip(exported, drawn, strict=True):
        assert [element.label for element in first.map_elements].count("boundary") > 0
        for label in ("divider", "boundary", "ped_crossing", "drivable_area"):
            sums = []
            for sample in (first, second):
                lines = [element.points for element in sample.map_elements if element.label == label]
                lengths = [np.hypot(*np.diff(line, axis=0).T).sum() for line in lines]
                sums.append((len(lines), sum(lengths)))
            assert sums[0][0] == sums[1][0]
            assert sums[0][1] == pytest.approx(sums[1][1], abs=0.1)


def test_exported_pictures_are_taken_one_after_another(exported) -> None:
    offsets = {
        frame.camera: frame.stamp_ns - sample.observation.stamp_ns
        for sample in exported
        for frame in sample.observation.frames
    }
    assert offsets["cam_front_left"] == -43_100_000
    assert offsets["cam_back_left"] == -600_000
    assert len(set(offsets.values())) == 6


def test_pictures_show_what_the_labels_say(drawn) -> None:
    """Where a near box projects to, the picture changes when its actor is taken away."""
    scenario = make_scenario(FAMILY, SEED)
    world, rig = World(scenario), nuscenes_rig(*SIZE)
    renderer = Renderer(rig)
    state = world.state
    full = renderer.render(state)
    checked = 0
    for label in drawn[0].agents:
        if label.points < 100 or label.visibility < 4:
            continue
        without = replace(state, actors=tuple(actor for actor in state.actors if actor.id != label.track_id))
        empty = renderer.render(without)
        for camera, one, other in zip(rig.cameras, full, empty, strict=True):
            pixel, depth = camera.project(label.position)
            column, row = np.round(pixel).astype(int)
            if depth > 1 and 0 <= column < SIZE[0] and 0 <= row < SIZE[1]:
                assert (one[row, column] != other[row, column]).any()
                checked += 1
    renderer.close()
    assert checked >= 2


def test_a_perturbed_start_comes_back_to_the_lane() -> None:
    renderer = Renderer(nuscenes_rig(*SIZE))
    sampler = WorldSampler(make_scenario("free_road", 0), renderer)
    (straight,) = sampler.drive(1)
    (pushed,) = sampler.drive(1, start_error=StartError(lateral=0.6))
    renderer.close()
    ahead = pushed.observation.ego.base_to_world
    lane = apply(
        invert(ahead) @ straight.observation.ego.base_to_world, np.column_stack([straight.future[:, :2], np.zeros(6)])
    )
    off = pushed.future[:, 1] - lane[:, 1]
    assert abs(off[-1]) < 0.5 * abs(off[0])


def test_observations_of_the_world_are_whole() -> None:
    renderer = Renderer(nuscenes_rig(*SIZE))
    observation = world_observation(World(make_scenario("bend", 0)), renderer)
    renderer.close()
    assert observation.ego.stamp_ns == observation.stamp_ns
    assert observation.ego.is_finite
    assert observation.skew_ns == 0
    assert observation.rig.problems() == []
    assert all(frame.image.shape == (54, 96, 3) for frame in observation.frames)
