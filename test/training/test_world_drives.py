"""The disturbed expert: it stays out of trouble, and its motion does not give away what it is about to do."""

from pathlib import Path

import numpy as np

from opendrivevla_ros.training.world_drives import disturbed_expert, draw_drives, scenario_of
from opendrivevla_ros.world.expert import STEP_S, roll_out
from opendrivevla_ros.world.families import make_scenario
from opendrivevla_ros.world.seeds import Split
from opendrivevla_ros.world.simulation import StartError, World

SAMPLE_STEPS = 5
MUST_BRAKE_METRES = 6.0  # less than at steady speed, in 3 s


def moments(number: int) -> tuple[World, list[tuple[float, float]]]:
    """A disturbed drive to its end or a collision; speed and acceleration at every moment that asks for the brakes."""
    family, seed = scenario_of(number, Split.VALIDATION)
    random = np.random.default_rng(number)
    world = World(make_scenario(family, seed), StartError.drawn(random))
    driver, found, step = disturbed_expert(random), [], 0
    while not world.finished and world.time_ns < world.scenario.time_limit_s * 1e9 and world.collision() is None:
        if step % SAMPLE_STEPS == 0:
            way = np.hypot(*roll_out(world).ego_in_base[-1, :2])
            if 3.0 * world.ego.speed - way > MUST_BRAKE_METRES:
                found.append((world.ego.speed, world.ego.acceleration))
        world.step(STEP_S, driver(world))
        step += 1
    return world, found


def test_a_scenario_of_which_a_stretch_is_missing_is_drawn_again(tmp_path: Path):
    def drawn() -> list[int]:
        return list(draw_drives(tmp_path, scenarios=1, split=Split.TRAIN, image_size=None, processes=1))

    assert drawn() == [0, 1]
    whole = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert len(whole) == 2
    assert max(tmp_path.iterdir(), key=lambda path: path.stat().st_mtime_ns).name.startswith("train000000-0-")
    next(tmp_path.glob("train000000-0-*")).unlink()  # which is written last
    assert drawn() == [0, 1]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == whole
    assert drawn() == [1]


def test_disturbed_drives_end_well_and_their_motion_does_not_tell_that_they_will_brake():
    steady = braking = 0
    for number in range(14):
        world, found = moments(number)
        assert world.collision() is None, world.scenario.family
        steady += sum(abs(acceleration) < 0.5 for _, acceleration in found)
        braking += len(found)
    assert braking > 20
    assert steady / braking > 0.25  # without lapses, a sixth
