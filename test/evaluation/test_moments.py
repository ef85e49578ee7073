"""The moments that a person should look at: the worst, different ones, and files that are whole."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from evaluation.report_folders import shown
from evaluation.scenes import Oracle, make_renderer
from hypothesis import given
from hypothesis import strategies as st

from opendrivevla_ros.core.observation import CameraFrame
from opendrivevla_ros.core.plan import Agent, MapElement, Plan
from opendrivevla_ros.evaluation.moments import (
    APART_S,
    FRONT_WIDTH,
    ResultsError,
    candidates,
    front_jpeg,
    keep_worst,
    read_moments,
    shown_moment,
    write_moments,
)
from opendrivevla_ros.evaluation.world_scenes import Scene, drive_scene, record_scene

OFFS = st.lists(st.floats(0, 9, allow_subnormal=False), min_size=1, max_size=260)


@given(offs=OFFS, count=st.integers(1, 10))
def test_the_worst_come_first_and_no_two_show_the_same_thing(offs: list[float], count: int) -> None:
    moments = [shown(f"scene {index % 3}", 0.5 * (index // 3), off) for index, off in enumerate(offs)]
    kept = keep_worst(moments, count)
    assert 1 <= len(kept) <= count
    assert [one.metres for one in kept] == sorted((one.metres for one in kept), reverse=True)
    assert kept[0].metres == max(offs)
    for one, other in itertools.combinations(kept, 2):
        assert one.scene != other.scene or abs(one.seconds - other.seconds) > APART_S
    for left_out in moments:  # each gave way to a worse one beside it, or there was no place
        near = [one for one in kept if one.scene == left_out.scene and abs(one.seconds - left_out.seconds) <= APART_S]
        assert any(one.metres >= left_out.metres for one in near) or (
            len(kept) == count and left_out.metres <= kept[-1].metres
        )


@given(offs=OFFS, count=st.integers(1, 10))
def test_what_a_long_bag_keeps_on_the_way_is_enough(offs: list[float], count: int) -> None:
    moments = [shown("bag", 0.5 * index, off) for index, off in enumerate(offs)]
    few: list = []
    for moment in moments:
        few = candidates([*few, moment], count)
    assert len(few) <= 13 * count
    assert [one.seconds for one in keep_worst(few, count)] == [one.seconds for one in keep_worst(moments, count)]


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    first, second = shown(off=4.0, front=b"\xff\xd8 a picture"), shown("other 1", 7.25, 2.0, words="")
    write_moments(tmp_path, [first, second])
    found = read_moments(tmp_path)
    assert [one.title for one in found] == ["bend 9 at 2.0 s", "other 1 at 7.2 s"]
    for read, written in zip(found, (first, second), strict=True):
        assert (read.metres, read.words, read.facts, read.front) == (
            written.metres,
            written.words,
            written.facts,
            written.front,
        )
        for name in ("plan", "reference", "agents"):
            np.testing.assert_allclose(getattr(read, name), getattr(written, name), atol=6e-4)
        for line, expected in zip(read.lines, written.lines, strict=True):
            np.testing.assert_allclose(line, expected, atol=6e-4)


def test_writing_again_replaces_all_and_leaves_other_files_alone(tmp_path: Path) -> None:
    (tmp_path / "overview.png").write_text("mine")
    write_moments(tmp_path, [shown(front=b"one"), shown("b", front=b"two")])
    write_moments(tmp_path, [shown("c", front=b"three")])
    assert [one.front for one in read_moments(tmp_path)] == [b"three"]
    assert len(list(tmp_path.glob("*.jpg"))) == 1
    assert {path.name for path in tmp_path.iterdir()} >= {"overview.png", "moments.json"}
    write_moments(tmp_path, [])
    assert read_moments(tmp_path) == ()


def test_moments_that_cannot_be_written_leave_those_before(tmp_path: Path) -> None:
    write_moments(tmp_path, [shown(front=b"one")])
    with pytest.raises(TypeError):
        write_moments(tmp_path, [shown("b", front=b"two"), replace(shown("c"), words=object())])  # type: ignore[arg-type]
    assert [one.front for one in read_moments(tmp_path)] == [b"one"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda row: row.pop("plan"), "KeyError: 'plan'"),
        (lambda row: row.update(plan=[[1.0, 2.0]]), "1 points where 6 finite ones belong"),
        (lambda row: row.update(agents=[[1.0, 2.0]]), "cannot reshape"),
        (lambda row: row.update(reference=[[float("nan")] * 2] * 6), "finite"),
        (lambda row: row.update(front="../secret.jpg"), "is not a file of this folder"),
    ],
)
def test_a_file_that_holds_something_else_is_one_sentence(tmp_path: Path, change, problem: str) -> None:
    write_moments(tmp_path, [shown()])
    rows = json.loads((tmp_path / "moments.json").read_text())
    change(rows[0])
    (tmp_path / "moments.json").write_text(json.dumps(rows))
    with pytest.raises(ResultsError, match=r"moments\.json holds no moments of an evaluation") as caught:
        read_moments(tmp_path)
    assert problem in str(caught.value)
    assert str(caught.value).endswith("evaluate again")


def test_a_picture_that_is_gone_is_named(tmp_path: Path) -> None:
    write_moments(tmp_path, [shown(front=b"one")])
    picture = next(tmp_path.glob("*.jpg"))
    picture.unlink()
    with pytest.raises(ResultsError, match=f"cannot read {picture}: No such file"):
        read_moments(tmp_path)


def moved_aside(plan: Plan) -> Plan:
    agents = (Agent(1, "car", 0.9, np.array([9.0, 1.0, 0.5]), np.array([4.0, 2.0, 1.5]), 0.3, np.zeros(2)),)
    crossing = MapElement("ped_crossing", 0.9, np.array([[5.0, 1.0], [6.0, 1.0], [6.0, -1.0]]), closed=True)
    xy = plan.trajectory.xy + np.array([0.0, 2.0])
    return replace(plan, trajectory=replace(plan.trajectory, xy=xy), agents=agents, map_elements=(crossing,))


def test_a_scene_keeps_its_worst_beside_what_was_true() -> None:
    scene, renderer = Scene("oncoming", 109), make_renderer()
    policy = Oracle(scene, renderer, samples=4, change=moved_aside)
    record = record_scene(scene, {"aside": policy}, renderer, samples=4)
    (moment,) = record.moments  # all four are within 3 s
    samples = [sample for _, sample in drive_scene(scene, renderer, samples=4)]
    sample = samples[round(moment.seconds / 0.5)]
    assert moment.scene == "oncoming 109"
    assert moment.metres == pytest.approx(2.0)
    np.testing.assert_allclose(moment.reference, sample.future[:, :2])
    np.testing.assert_allclose(moment.plan - moment.reference, [[0.0, 2.0]] * 6, atol=1e-9)
    assert len(moment.agents) == len(sample.agents or ()) > 0  # the true ones, not the plan's one
    assert len(moment.lines) == len(sample.map_elements or ()) > 1
    assert cv2.imdecode(np.frombuffer(moment.front, np.uint8), cv2.IMREAD_COLOR).shape == (18, 32, 3)
    assert "command" in moment.facts


def test_a_plan_that_did_not_come_has_no_moment() -> None:
    scene, renderer = Scene("oncoming", 109), make_renderer()
    silent = Oracle(scene, renderer, samples=1, change=lambda plan: None)
    assert record_scene(scene, {"silent": silent}, renderer, samples=1).moments == ()


def test_pictures_are_small_closed_lines_are_closed_and_raw_text_stands_in_for_words() -> None:
    scene, renderer = Scene("oncoming", 109), make_renderer()
    _, sample = next(drive_scene(scene, renderer, samples=1))
    plan = moved_aside(Oracle(scene, renderer, samples=1).plan(sample.observation))
    wide = CameraFrame("cam_front", 0, np.full((900, 1600, 3), 90, np.uint8))
    observation = replace(sample.observation, frames=(wide,))
    planned, reference = plan.trajectory.xy, sample.future
    moment = shown_moment(
        "bag",
        1.0,
        observation=observation,
        plan=replace(plan, raw_text="(1.0, 0.0)"),
        planned=planned,
        reference=reference,
        agents=plan.agents,
        elements=plan.map_elements,
    )
    assert moment.words == "(1.0, 0.0)"
    assert cv2.imdecode(np.frombuffer(moment.front, np.uint8), cv2.IMREAD_COLOR).shape == (270, FRONT_WIDTH, 3)
    np.testing.assert_array_equal(moment.lines[0][0], moment.lines[0][-1])
    np.testing.assert_array_equal(moment.agents, [[9.0, 1.0, 0.3, 4.0, 2.0]])
    assert front_jpeg(replace(observation, frames=(replace(wide, blank=True),))) == b""
    assert front_jpeg(replace(observation, frames=())) == b""
