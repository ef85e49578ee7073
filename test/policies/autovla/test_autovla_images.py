"""Pictures into patches as Qwen2.5-VL's own processor makes them, and frames of the past by their stamps."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from opendrivevla_ros.policies.autovla.images import (
    FRAME_STEP_NS,
    STAMP_TOLERANCE_NS,
    CameraHistory,
    patches,
    resized,
    steps_back,
)

MS = 1_000_000


def picture(seed: int = 0, width: int = 1600, height: int = 900) -> np.ndarray:
    """BGR, smooth with noise, so that resizing has something to blur."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    smooth = 127 + 100 * np.sin(rows / 40 + seed)[..., None] * np.cos(columns / 60)[..., None] * [1.0, 0.5, -1.0]
    return np.clip(smooth + random.normal(0, 20, (height, width, 3)), 0, 255).astype(np.uint8)


def theirs(rgb: np.ndarray, pixels: int) -> tuple[np.ndarray, list[int]]:
    processor = Qwen2VLImageProcessorPil(size={"shortest_edge": 56 * 56, "longest_edge": pixels})
    done = processor(Image.fromarray(rgb), return_tensors="np")
    return done["pixel_values"], done["image_grid_thw"][0].tolist()


def test_the_published_frame_size_is_what_the_processor_makes_of_a_nuscenes_picture() -> None:
    _, grid = theirs(picture()[..., ::-1], pixels=28 * 28 * 128)
    assert grid == [1, 224 // 14, 420 // 14]


def test_patches_of_a_still_video_are_those_of_the_processors_image() -> None:
    """An image is a video of one frame, twice."""
    rgb = resized(picture(), (420, 224))
    expected, grid = theirs(rgb.permute(1, 2, 0).numpy(), pixels=420 * 224)
    found = patches(torch.stack([rgb, rgb]), patch=14, temporal_patch=2, merge=2)
    assert list(found.shape) == [np.prod(grid), 3 * 2 * 14 * 14]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_resizing_differs_from_the_processors_by_rounding_alone() -> None:
    bgr = picture()
    pil = Image.fromarray(np.ascontiguousarray(bgr[..., ::-1])).resize((420, 224), Image.Resampling.BICUBIC)
    apart = np.abs(resized(bgr, (420, 224)).permute(1, 2, 0).numpy().astype(int) - np.asarray(pil).astype(int))
    assert apart.max() <= 1


def test_each_time_step_of_a_video_holds_its_own_two_frames() -> None:
    frames = torch.stack([resized(picture(seed), (112, 56)) for seed in range(4)])
    found = patches(frames, patch=14, temporal_patch=2, merge=2)
    halves = [patches(frames[2 * step : 2 * step + 2], patch=14, temporal_patch=2, merge=2) for step in range(2)]
    torch.testing.assert_close(found, torch.cat(halves))
    swapped = patches(frames[[1, 0, 2, 3]], patch=14, temporal_patch=2, merge=2)
    cut = found.reshape(-1, 3, 2, 14, 14)
    torch.testing.assert_close(swapped.reshape(-1, 3, 2, 14, 14)[: len(cut) // 2], cut[: len(cut) // 2].flip(2))


def test_a_picture_of_the_right_size_is_only_turned_to_rgb() -> None:
    bgr = picture(width=112, height=56)
    assert np.array_equal(resized(bgr, (112, 56)).permute(1, 2, 0).numpy(), bgr[..., ::-1])


# ------------------------------------------------------------------ history


def test_at_two_hertz_every_instant_has_its_own_picture() -> None:
    stamps = [500 * MS * step for step in range(6)]
    assert steps_back(stamps, stamps[-1], 4) == (2, 3, 4, 5)


def test_at_ten_hertz_every_fifth_picture_is_taken() -> None:
    stamps = [100 * MS * step for step in range(31)]
    assert steps_back(stamps, stamps[-1], 4) == (15, 20, 25, 30)


def test_the_first_picture_of_a_drive_stands_for_the_past_that_is_not_known() -> None:
    assert steps_back([0], 0, 4) == (0, 0, 0, 0)
    assert steps_back([0, 500 * MS], 500 * MS, 4) == (0, 0, 0, 1)


def test_a_gap_is_filled_with_the_picture_after_it() -> None:
    stamps = [0, 1500 * MS]
    assert steps_back(stamps, 1500 * MS, 4) == (0, 1, 1, 1)


def test_a_camera_without_pictures_has_no_video() -> None:
    with pytest.raises(ValueError, match="without any picture"):
        steps_back([], 0, 4)


gaps = st.lists(st.integers(1, 900), min_size=0, max_size=40)


@given(gaps, st.integers(-60, 60), st.integers(1, 8))
def test_every_instant_gets_the_nearest_picture_or_the_one_of_the_next(gaps_ms, jitter_ms, count) -> None:
    stamps = np.cumsum([0, *gaps_ms]).tolist()
    stamps = [stamp * MS for stamp in stamps]
    now = stamps[-1] + jitter_ms * MS
    chosen = steps_back(stamps, now, count)
    assert len(chosen) == count
    assert chosen[-1] == len(stamps) - 1
    assert list(chosen) == sorted(chosen)
    for step in range(1, count):
        wanted, index, following = now - step * FRAME_STEP_NS, chosen[-1 - step], chosen[-step]
        least = min(abs(stamp - wanted) for stamp in stamps)
        if least <= STAMP_TOLERANCE_NS:
            assert abs(stamps[index] - wanted) == least
        else:
            assert index == following


@given(st.lists(st.integers(20, 900), min_size=4, max_size=40))
def test_what_a_history_forgets_is_never_missed(gaps_ms) -> None:
    stamps = [stamp * MS for stamp in np.cumsum(gaps_ms).tolist()]
    history = CameraHistory()
    for index, stamp in enumerate(stamps):
        history = history.with_picture(stamp, torch.full((3, 1, 1), index % 256, dtype=torch.uint8), 4)
        expected = [i % 256 for i in steps_back(stamps[: index + 1], stamp, 4)]
        assert history.video(stamp, 4)[:, 0, 0, 0].tolist() == expected
        assert stamp - history.stamps[0] <= 3 * FRAME_STEP_NS + STAMP_TOLERANCE_NS


def test_a_picture_that_is_held_or_older_adds_nothing() -> None:
    one = CameraHistory().with_picture(5, torch.zeros((3, 1, 1), dtype=torch.uint8), 4)
    assert one.with_picture(5, torch.ones((3, 1, 1), dtype=torch.uint8), 4) is one
    assert one.with_picture(4, torch.ones((3, 1, 1), dtype=torch.uint8), 4) is one
