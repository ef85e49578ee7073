"""The checkpoint that ships: it is what the preset says, small enough for the repository, and plans."""

from dataclasses import replace

from opendrivevla_ros.core.installation import install_file
from opendrivevla_ros.datasets.world_samples import world_observation
from opendrivevla_ros.policies.loading import read_tokenizer
from opendrivevla_ros.policies.opendrivevla import config as configs
from opendrivevla_ros.policies.opendrivevla.model import load_config
from opendrivevla_ros.policies.registry import SHIPPED, SHIPPED_FOLDERS, load_policy
from opendrivevla_ros.training.world_drives import eyes_of
from opendrivevla_ros.world.expert import STEP_S, expert_command
from opendrivevla_ros.world.families import make_scenario
from opendrivevla_ros.world.seeds import Split, seed_of
from opendrivevla_ros.world.simulation import World

MOST_BYTES = 16e6


def test_it_is_the_preset_and_fits_the_repository():
    folder = install_file(SHIPPED_FOLDERS[SHIPPED])
    config = load_config(folder)
    tokenizer = read_tokenizer(folder, config.language.vocabulary_size)
    preset = configs.small(len(tokenizer), int(tokenizer.eos_token_id))
    assert config == replace(preset, proposal_scales=config.proposal_scales)  # which are measured
    assert config.proposal_scales != preset.proposal_scales
    assert config.trained
    assert sum(path.stat().st_size for path in folder.iterdir()) < MOST_BYTES
    assert "SHA-256 of the drives" in (folder / "README.md").read_text()


def test_it_plans_to_go_on_along_the_road_where_the_street_is_free():
    world = World(make_scenario("free_road", seed_of(Split.TEST, 3)))
    policy = load_policy(SHIPPED, samples=0)
    renderer = eyes_of(policy.info.image_size)
    while world.time_ns < 2_000_000_000:
        if world.time_ns % 500_000_000 == 0:
            plan = policy.plan(world_observation(world, renderer))
        world.step(STEP_S, expert_command(world))
    forward, left = plan.trajectory.xy[-1]
    assert 0.5 < forward / (3.0 * world.ego.speed) < 1.5
    assert abs(left) < 5.0
    assert "divider" in {element.label for element in plan.map_elements}
