"""What sight proposes: learned from ground that was read once, and measured where nothing learned."""

import shutil
from pathlib import Path

import pytest
import torch
from policies.autovla.tiny import PROPOSING, tiny_config, tiny_model, tiny_policy, write_folder
from training.autovla.drives import drives

from opendrivevla_ros.datasets.drive_store import DriveStore
from opendrivevla_ros.perception.ego_query import EgoAnswer
from opendrivevla_ros.policies.autovla.model import load_model
from opendrivevla_ros.policies.autovla.sight import Sight
from opendrivevla_ros.training.autovla.proposals import (
    GroundMoments,
    ProposalTraining,
    proposal_scales,
    write_ground,
)
from opendrivevla_ros.training.autovla.sight import sight_of
from opendrivevla_ros.training.errors import TrainingError


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("checkpoint"), tiny_model(**PROPOSING).bfloat16())


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> DriveStore:
    folder = tmp_path_factory.mktemp("drives")
    drives(folder)
    return DriveStore(folder)


@pytest.fixture(scope="module")
def ground(checkpoint: Path, store: DriveStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ground")
    assert list(write_ground(store, folder, checkpoint, processes=1)) == [0.0, 0.5, 1.0]
    assert list(write_ground(store, folder, checkpoint, processes=1)) == [1.0]  # what is there is kept
    return folder


def test_what_another_sight_has_read_is_not_kept_but_another_query_reads_the_same(
    checkpoint: Path, store: DriveStore, ground: Path, tmp_path: Path
):
    folder = tmp_path / "ground"
    shutil.copytree(ground, folder)
    for part, shares in (("query", [1.0]), ("read", [0.0, 0.5, 1.0])):
        model = load_model(checkpoint)[0]
        with torch.no_grad():
            next(getattr(sight_of(model), part).parameters()).add_(1.0)
        other = write_folder(tmp_path / part, model)
        assert list(write_ground(store, folder, other, processes=1)) == shares


def test_the_ground_is_what_the_model_reads_when_it_drives(checkpoint: Path, store: DriveStore, ground: Path):
    moments = GroundMoments([ground])
    model = load_model(checkpoint)[0].float()
    read = []
    own = sight_of(model).forward

    def noted(patches: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        read.append(own(patches, places))
        return read[-1]

    sight_of(model).forward = noted  # type: ignore[method-assign]
    model.autovla_config = tiny_config(**PROPOSING)
    policy = tiny_policy(model)
    for stored in store.read(0)[:3]:
        policy.plan(stored.sample.observation)
    for moment, wanted in zip((moments[index] for index in range(3)), read, strict=True):
        torch.testing.assert_close(moment.ground.float(), wanted[0], atol=2e-2, rtol=1e-2)


def off(moments: GroundMoments, sight: Sight) -> float:
    """Mean absolute error of what is proposed."""
    every = [moments[index] for index in range(len(moments))]
    with torch.inference_mode():
        ground = torch.stack([moment.ground.float() for moment in every])
        answer = sight.proposed(ground, torch.stack([moment.plan.ego for moment in every]))
    return float((answer.paths - torch.stack([moment.plan.path for moment in every])).abs().mean())


def test_the_query_learns_and_nothing_else(checkpoint: Path, ground: Path):
    torch.manual_seed(0)
    model = load_model(checkpoint)[0].float()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    moments = GroundMoments([ground])
    batch = [moments[index] for index in range(len(moments))]
    training = ProposalTraining(model)
    untrained = off(moments, sight_of(model))
    optimizer = torch.optim.Adam([part for part in training.parameters() if part.requires_grad], 3e-3)
    losses = []
    for _ in range(60):
        loss = training(batch)["plan"]
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < 0.25 * losses[0]
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed
    assert all(name.startswith("sight.query.") for name in changed)
    trained = off(moments, sight_of(model))
    assert trained < 0.5 * untrained


def test_scales_stand_across_and_along_the_way(checkpoint: Path, ground: Path):
    moments = GroundMoments([ground])
    sight = sight_of(load_model(checkpoint)[0].float())
    ahead = torch.tensor([0.0, 10.0])  # metres in the lidar's frame: across, along

    def proposed(cells: torch.Tensor, egos: torch.Tensor) -> EgoAnswer:
        paths = torch.stack([moments[i].plan.path + ahead for i in range(len(cells))])
        return EgoAnswer(egos, paths, torch.full_like(paths, 4.0))

    sight.proposed = proposed  # type: ignore[method-assign]
    assert proposal_scales(moments, sight) == ((0.001, 2.5),) * 6


def test_muon_gets_what_multiplies_states_in_the_query(checkpoint: Path):
    training = ProposalTraining(load_model(checkpoint)[0].float())
    matrices = training.inner_matrices()
    assert matrices
    assert all(matrix.ndim == 2 and matrix.requires_grad for matrix in matrices)


def test_folders_without_moments_are_refused(tmp_path: Path):
    with pytest.raises(TrainingError, match=r"no moment in .* has a known future; draw or record longer drives"):
        GroundMoments([tmp_path])
