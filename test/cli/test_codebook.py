"""`odv codebook`: action tokens from bags."""

from pathlib import Path

import numpy as np
from typer.testing import CliRunner

from opendrivevla_ros.cli.main import app
from opendrivevla_ros.core.geometry import planar_transform
from opendrivevla_ros.datasets.bag_messages import message
from opendrivevla_ros.datasets.bag_tracks import BagTracks
from opendrivevla_ros.datasets.bags import BagReader, BagWriter
from opendrivevla_ros.datasets.world_bag import write_world_bag
from opendrivevla_ros.language.action_codebook import ActionCodebook
from opendrivevla_ros.language.action_lattice import lattice
from opendrivevla_ros.world.expert import STEP_S, expert_command
from opendrivevla_ros.world.families import make_scenario
from opendrivevla_ros.world.simulation import World


def test_a_drive_is_followed_by_the_tokens_that_were_made_of_it(tmp_path: Path):
    bag, output = tmp_path / "bag", tmp_path / "tokens.npz"
    write_world_bag(bag, family="bend", seed=0, duration_s=6.0, image_size=(80, 45))
    result = CliRunner().invoke(app, ["codebook", str(bag), "--output", str(output)])
    assert result.exit_code == 0, result.output
    codebook = ActionCodebook.load(output)
    assert f"{len(codebook)} tokens of 12 motions" in " ".join(result.output.split())
    world, poses = World(make_scenario("bend", 0)), []
    start = world.ego.x, world.ego.y, world.ego.yaw
    for _ in range(12):
        for _ in range(round(0.5 / STEP_S)):
            world.step(STEP_S, expert_command(world))
        away = np.array([world.ego.x, world.ego.y]) - start[:2]
        turned = np.cos(start[2]), np.sin(start[2])
        ahead, left = away @ turned, away[1] * turned[0] - away[0] * turned[1]
        poses.append([ahead, left, world.ego.yaw - start[2]])
    followed = codebook.decode(codebook.encode(np.array(poses)))
    assert np.hypot(*(followed - poses)[:, :2].T).max() < 0.1


def test_motions_are_those_between_the_odometry_of_a_piece(tmp_path: Path):
    bag = tmp_path / "bag"
    write_world_bag(bag, family="free_road", seed=3, duration_s=3.0, image_size=(80, 45))
    with BagReader(bag) as reader:
        topic = next(name for name, topic in reader.topics.items() if topic.type == "nav_msgs/msg/Odometry")
        tracks = BagTracks(reader, topic)
    ((_, poses),) = tracks.tracks
    motions = tracks.motions(1.0)
    assert len(motions) == 3
    pose = poses[0]
    for ahead, left, turn in motions:  # one after the other, they lead to where the vehicle was in the end
        pose = pose @ planar_transform(ahead, left, turn)
    np.testing.assert_allclose(pose, poses[-1], atol=1e-6)


def test_without_bags_the_tokens_are_of_what_a_vehicle_can_do(tmp_path: Path):
    output = tmp_path / "tokens.npz"
    result = CliRunner().invoke(app, ["codebook", "--output", str(output)])
    assert result.exit_code == 0, result.output
    np.testing.assert_array_equal(ActionCodebook.load(output).contours, lattice().contours)


def test_a_bag_without_odometry_is_one_sentence(tmp_path: Path):
    with BagWriter(tmp_path / "bag") as writer:
        writer.write("/chatter", message("std_msgs/msg/String", data="hello"), 1)
    result = CliRunner().invoke(app, ["codebook", str(tmp_path / "bag"), "--output", str(tmp_path / "tokens.npz")])
    assert result.exit_code == 1
    assert "has no odometry; record nav_msgs/Odometry of base_link" in " ".join(result.output.split())
    assert not (tmp_path / "tokens.npz").exists()
