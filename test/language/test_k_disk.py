"""Action tokens from driven motions."""

import numpy as np
import pytest

from opendrivevla_ros.language.action_codebook import box_contours
from opendrivevla_ros.language.action_lattice import MotionLimits, arc
from opendrivevla_ros.language.k_disk import RADIUS_METRES, feasible, k_disk


def motions(count: int, seed: int = 0) -> np.ndarray:
    """Half seconds of a town: up to 15 m/s."""
    random = np.random.default_rng(seed)
    distance = random.uniform(0, 7.5, count)
    return arc(distance, random.uniform(-1, 1, count) * MotionLimits().heading(distance))


def test_every_motion_of_the_log_is_near_a_token():
    driven = motions(4000)
    found = k_disk(driven, tokens=10_000)
    assert (found.motions, found.infeasible, found.covered) == (4000, 0, 1.0)
    codebook = found.codebook
    assert len(codebook) < len(driven) / 2
    np.testing.assert_allclose(codebook.end_poses[0], 0.0, atol=1e-12)
    ids = codebook.encode(driven[:, None])[:, 0]
    corners = box_contours(driven) - codebook.contours[ids]
    assert np.hypot(corners[..., 0], corners[..., 1]).mean(axis=-1).max() < 2 * RADIUS_METRES


def test_every_token_is_feasible():
    assert feasible(k_disk(motions(4000)).codebook.end_poses).all()


def test_the_same_seed_gives_the_same_codebook():
    driven = motions(500)
    first, again, other = (k_disk(driven, tokens=50, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.codebook.contours, again.codebook.contours)
    assert not np.array_equal(first.codebook.contours, other.codebook.contours)
    assert len(first.codebook) == 50
    assert 0 < first.covered < 1


def test_motions_that_no_vehicle_makes_are_left_out_and_counted():
    impossible = [[3.0, 3.0, 0.0], [25.0, 0.0, 0.0], [1.0, 0.0, 0.9], [10.0, 1.0, 0.5], [-2.0, 0.0, 0.0], [np.nan] * 3]
    found = k_disk(np.concatenate([motions(100), impossible]))
    assert (found.motions, found.infeasible) == (106, 6)


def test_what_cannot_be_clustered_is_refused():
    with pytest.raises(ValueError, match=r"motions must be poses \[N, 3\], not \[4, 2\]"):
        k_disk(np.zeros((4, 2)))
    with pytest.raises(ValueError, match="none of 1 motions is one that a vehicle can make; check units and frames"):
        k_disk([[300.0, 0.0, 0.0]])
    with pytest.raises(ValueError, match="a codebook of 0 tokens says nothing; ask for 1 or more"):
        k_disk(motions(10), tokens=0)
