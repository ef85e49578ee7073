"""Action tokens: encoding and decoding motions."""

import numpy as np
import pytest
from benchmarks.golden_codebook import compare
from hypothesis import given, settings
from hypothesis import strategies as st

from opendrivevla_ros.core.geometry import wrap_angle
from opendrivevla_ros.language.action_codebook import ActionCodebook, box_contours, contour_poses


def fan(tokens: int = 60, seed: int = 0) -> ActionCodebook:
    """Distinct half-second motions between standstill and 30 m/s with turns to both sides."""
    random = np.random.default_rng(seed)
    poses = random.uniform([0.0, -1.0, -0.4], [15.0, 1.0, 0.4], (tokens, 3))
    poses[0] = 0.0
    return ActionCodebook(box_contours(poses))


CODEBOOK = fan()
id_sequences = st.lists(st.lists(st.integers(0, 59), min_size=10, max_size=10), min_size=1, max_size=4).map(np.array)


def test_ids_and_poses_are_those_of_the_reference(golden_folder):
    comparisons = list(compare(golden_folder))
    assert [str(comparison) for comparison in comparisons if not comparison.passed] == []
    assert len(comparisons) == 4


def test_a_folder_without_a_codebook_gives_no_comparison(tmp_path):
    assert list(compare(tmp_path)) == []


@given(id_sequences)
@settings(max_examples=50)
def test_encoding_a_decoded_motion_gives_the_same_ids(ids):
    poses = CODEBOOK.decode(ids)
    assert np.array_equal(CODEBOOK.encode(poses), ids)
    np.testing.assert_allclose(CODEBOOK.decode(CODEBOOK.encode(poses)), poses, rtol=0, atol=1e-9)


@given(id_sequences)
def test_a_batch_encodes_as_each_trajectory_alone(ids):
    poses = CODEBOOK.decode(ids) + 0.03
    alone = [CODEBOOK.encode(trajectory) for trajectory in poses]
    assert np.array_equal(CODEBOOK.encode(poses), np.stack(alone))


@given(st.floats(-100, 100), st.floats(-100, 100), st.floats(-3.1, 3.1), st.floats(1.0, 12.0), st.floats(0.5, 3.0))
def test_the_pose_of_a_box_is_where_it_was_placed(x, y, heading, length, width):
    pose = contour_poses(box_contours([x, y, heading], length=length, width=width))
    np.testing.assert_allclose(pose, [x, y, heading], rtol=0, atol=1e-9)


def test_corners_are_left_front_right_front_right_rear_left_rear():
    corners = box_contours([10.0, 0.0, np.pi / 2])
    np.testing.assert_allclose(corners, [[9.0, 2.4], [11.0, 2.4], [11.0, -2.4], [9.0, -2.4]], atol=1e-12)


def test_standing_still_is_encoded_as_the_standstill_token():
    assert CODEBOOK.encode(np.zeros((10, 3))).tolist() == [0] * 10


def test_encoding_corrects_errors_instead_of_adding_them_up():
    straight = ActionCodebook(box_contours([[5.0, 0.0, 0.0], [4.0, 0.0, 0.0]]))
    steady = np.column_stack([4.5 * np.arange(1, 41), np.zeros(40), np.zeros(40)])
    assert np.abs(straight.decode(straight.encode(steady)) - steady).max() <= 0.5 + 1e-9


def test_headings_stay_wrapped_through_a_full_turn():
    turning = ActionCodebook(box_contours([[3.0, 0.5, 0.5]]))
    headings = turning.decode(np.zeros(20, dtype=int))[:, 2]
    np.testing.assert_allclose(wrap_angle(headings - 0.5 * np.arange(1, 21)), 0.0, atol=1e-9)
    assert np.abs(headings).max() <= np.pi


@pytest.mark.parametrize("trajectories", [np.zeros((0, 3)), np.zeros((0, 10, 3)), np.zeros((10, 2)), np.zeros(3)])
def test_trajectories_without_poses_are_refused(trajectories):
    with pytest.raises(ValueError, match=r"trajectories must be poses \[\.\.\., T, 3\] with T > 0, not \["):
        CODEBOOK.encode(trajectories)


def test_trajectories_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="trajectories hold 30 values that are not finite; leave them out"):
        CODEBOOK.encode(np.full((10, 3), np.inf))


@pytest.mark.parametrize("ids", [[], 3, [0.0, 1.0]])
def test_ids_that_are_none_or_not_whole_are_refused(ids):
    with pytest.raises(ValueError, match=r"action ids must be integers \[\.\.\., T\] with T > 0, not "):
        CODEBOOK.decode(ids)


@pytest.mark.parametrize("outside", [-1, 60])
def test_ids_outside_the_codebook_are_refused(outside):
    with pytest.raises(ValueError, match=f"action id {outside} is outside the codebook; ids run from 0 to 59"):
        CODEBOOK.decode([0, outside])


@pytest.mark.parametrize("contours", [np.zeros((0, 4, 2)), np.zeros((5, 4)), np.full((5, 4, 2), np.nan)])
def test_a_codebook_needs_finite_contours(contours):
    with pytest.raises(ValueError, match="contours"):
        ActionCodebook(contours)


def test_a_saved_codebook_is_the_same(tmp_path):
    CODEBOOK.save(tmp_path / "tokens.npz")
    loaded = ActionCodebook.load(tmp_path / "tokens.npz")
    np.testing.assert_array_equal(loaded.contours, CODEBOOK.contours)
    assert (loaded.length, loaded.width) == (CODEBOOK.length, CODEBOOK.width)


def test_a_file_that_is_no_codebook_is_named(tmp_path):
    np.savez(tmp_path / "other.npz", contours=CODEBOOK.contours)
    with pytest.raises(ValueError, match=r"other.npz holds no action codebook .*; build it again with `odv codebook`"):
        ActionCodebook.load(tmp_path / "other.npz")
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(ValueError, match=r"broken.npz holds no action codebook"):
        ActionCodebook.load(tmp_path / "broken.npz")


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_the_nearest_of_all_tokens_is_chosen(seed):
    random = np.random.default_rng(seed)
    codebook = ActionCodebook(box_contours(random.uniform([0.0, -1.0, -0.4], [3.0, 1.0, 0.4], (200, 3))))
    poses = random.uniform([-1.0, -2.0, -1.0], [4.0, 2.0, 1.0], (50, 1, 3))
    corners = box_contours(poses) - codebook.contours
    nearest = np.hypot(corners[..., 0], corners[..., 1]).sum(axis=-1).argmin(axis=-1)
    assert np.array_equal(codebook.encode(poses)[:, 0], nearest)
