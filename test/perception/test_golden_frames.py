"""Every stored tensor of the published perception network, compared by the code behind benchmarks/golden.py."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks import golden_checksums, golden_frames
from benchmarks.golden import uncovered_files, worst_by_group
from benchmarks.golden_compare import Comparison


def test_frames_of_a_scene_and_the_zeroed_frame_agree_with_the_published_network(golden_folder: Path) -> None:
    comparisons = list(golden_frames.compare(golden_folder))
    assert [comparison for comparison in comparisons if not comparison.passed] == []
    files = {comparison.name.split()[0] for comparison in comparisons}
    assert {"frame0_variant0", "frame1_variant0", "frame2_variant0", "frame0_variant0_zeroed"} <= files
    assert len(comparisons) > 400


def test_generated_inputs_have_their_checksums(golden_folder: Path) -> None:
    names = ["frame0_variant0_small", "frame4_variant0_small", "frame2_variant1_small", "sample_indices_640000"]
    expected = json.loads((golden_folder / "checksums.json").read_text())
    assert {name: golden_checksums.digest(golden_folder, name) for name in names} == {
        name: expected[name] for name in names
    }


@pytest.mark.parametrize(
    ("key", "change"),
    [("track.logits", 1e-3), ("seg.masks__bits", 1), ("active.ids", 1), ("bev.layer0__sample", 1e-2)],
)
def test_a_changed_reference_is_over_its_limit(golden_folder: Path, key: str, change: float) -> None:
    """The comparison itself: equal values pass, a changed array of each stored form does not."""
    with np.load(golden_folder / "frame0_variant0.npz") as archive:
        stored = dict(archive)
    name = key.split("__")[0]
    true = dict(stored)
    changed = np.array(stored[key])
    changed.flat[:100] += np.asarray(change).astype(changed.dtype)
    stored[key] = changed
    limit = golden_frames.MASK_BITS_LIMIT if name == "seg.masks" else 1e-4
    if key == name:
        comparison = golden_frames.compare_arrays(name, name, true[key], stored[key], limit=limit)
    elif key.endswith("__bits"):
        whole = np.unpackbits(true[key], count=int(np.prod(stored[f"{name}__shape"])))
        actual = whole.reshape(stored[f"{name}__shape"])
        passing = golden_frames.compare_tensor(name, name, actual, true, name, folder=golden_folder, limit=limit)
        assert passing.passed
        comparison = golden_frames.compare_tensor(name, name, actual, stored, name, folder=golden_folder, limit=limit)
    else:
        whole = np.full(stored[f"{name}__shape"], stored[f"{name}__stats"][0])
        comparison = golden_frames.compare_tensor(name, name, whole, stored, name, folder=golden_folder, limit=limit)
    assert not comparison.passed


def test_a_file_that_nothing_compares_is_named(golden_folder: Path, tmp_path: Path) -> None:
    shutil.copy(golden_folder / "frame0_variant0.npz", tmp_path / "frame7_variant1.npz")
    (tmp_path / "unknown.npz").touch()
    assert uncovered_files(tmp_path) == ["unknown.npz"]


def test_every_file_of_the_reference_folder_has_a_comparer(golden_folder: Path) -> None:
    assert uncovered_files(golden_folder) == []


def test_a_group_with_a_failure_shows_it_even_if_a_passing_member_is_further_off() -> None:
    loose, failing = Comparison("group", "loose", 0.5, 1.0), Comparison("group", "failing", 0.1, 0.0)
    assert list(worst_by_group([loose, failing])) == [(failing, 2, 1)]


def test_not_a_number_fails() -> None:
    assert not golden_frames.compare_arrays("group", "name", np.array([np.nan]), np.array([1.0])).passed


def test_a_second_scene_has_the_published_numbers_of_tracks_and_masks_and_goes_on_counting_ids(
    golden_folder: Path,
) -> None:
    """The folder's README states these counts for frames 0 to 4, of which 3 and 4 are another scene."""
    network = golden_frames.build(golden_folder, golden_frames.Sequence(0, "small", 50, zeroed=False))
    generate = golden_frames.load_module(golden_folder / "inputs.py").frame
    active, agents, accepted, lowest_id = [], [], [], []
    for index in range(5):
        if index == 3:
            network.reset()
        with torch.no_grad():
            output = network(golden_frames.frame_input(generate(index), network.config))
        active.append(len(output.tracks.ids))
        agents.append(len(output.agent_tokens))
        accepted.append(len(output.map.labels))
        lowest_id.append(int(output.tracks.ids.min()))
    assert active == [24, 34, 48, 30, 40]
    assert agents == [23, 33, 47, 29, 39]
    assert accepted == [12, 8, 8, 18, 11]
    assert lowest_id[3] == 83
