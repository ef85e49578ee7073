"""Plans beside the human of a bag: figures that are plain, events that are told once, and bags that give nothing."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from training.finetune_inputs import cut_bag
from typer.testing import CliRunner

from opendrivevla_ros.cli.console import package_version
from opendrivevla_ros.cli.main import app
from opendrivevla_ros.cli.replay import rig_of
from opendrivevla_ros.datasets.world_bag import write_world_bag
from opendrivevla_ros.evaluation.bag_evaluation import (
    EVENT_GAP_S,
    EVENT_METRES,
    BagRecord,
    BagTask,
    Moment,
    bag_results,
    evaluate_bags,
    events,
    record_bag,
)
from opendrivevla_ros.evaluation.bag_report import bag_markdown
from opendrivevla_ros.evaluation.moments import read_moments
from opendrivevla_ros.evaluation.world_scenes import EvaluationError
from opendrivevla_ros.policies.baselines import ConstantVelocityPolicy
from opendrivevla_ros.policies.registry import BLIND, load_policy

TIMES = np.arange(1, 7) * 0.5


def moment(seek_s: float = 0.0, off: float = 0.0, bag: str = "a", speed: float = 8.0, turned: float = 0.0) -> Moment:
    """A human who drives straight on, turned by so much at the end, and a plan that is `off` metres ahead."""
    human = np.column_stack([speed * TIMES, np.zeros(6), np.linspace(0, turned, 6)])
    plan = human + np.array([off, 0.0, 0.0])
    return Moment(
        bag, seek_s, round(seek_s * 1e9), speed, plan, human, {"still": np.zeros((6, 2))}, 0.9, None, True, True, 0.1
    )


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("drive") / "bag"
    write_world_bag(path, family="free_road", duration_s=6.0, image_size=(64, 36))
    return path


def test_blind_policies_stand_beside_the_one_that_is_evaluated(bag: Path) -> None:
    blind = {name: load_policy(name) for name in BLIND}
    record = record_bag(BagTask(bag, rig_of(bag, None)), ConstantVelocityPolicy(), blind)
    assert len(record.moments) >= 5
    assert record.unknown >= 4  # the last 3 s have no whole future
    results = bag_results([record])
    everything = results["all"]
    assert everything["uniad"] == everything["baselines"]["constant_velocity"]["uniad"]
    assert everything["baselines"]["ego_state"]["uniad"] < everything["uniad"]  # it was trained in this world
    assert everything["l2"][1] < everything["l2"][3]
    assert sum(row["plans"] for row in results["by_turn"].values()) == results["plans"] == len(record.moments)
    assert 0 < results["latency_s"]["p50"] < 0.1
    assert 0 < results["jitter"]["p50"] < 3.0
    assert 0 <= record.moments[0].seek_s < 1
    worst = max(record.moments, key=lambda moment: moment.distance.max())
    assert record.shown[0].metres == pytest.approx(worst.distance.max())
    assert (record.shown[0].scene, record.shown[0].seconds) == (str(bag), worst.seek_s)
    np.testing.assert_array_equal(record.shown[0].reference, worst.human[:, :2])
    assert record.shown[0].front[:2] == b"\xff\xd8"
    assert sum(results["distances"]["counts"]) == results["plans"]


def test_lengthwise_and_sideways_are_in_the_humans_heading() -> None:
    turned = replace(moment(turned=np.pi / 2), plan=moment().human + np.array([2.0, 0.0, 0.0]))
    np.testing.assert_allclose(turned.offset[-1], [0.0, -2.0], atol=1e-9)
    assert turned.turn == "left"
    results = bag_results([BagRecord("a", (moment(off=1.5), turned))])
    assert results["all"]["lengthwise"] == pytest.approx(0.75)
    assert results["all"]["left"] == pytest.approx(-1.0)
    assert set(results["by_turn"]) == {"straight", "left"}
    assert list(results["by_speed"]) == ["6 to 10 m/s"]


@given(offs=st.lists(st.floats(0, 6), min_size=1, max_size=40))
def test_events_are_the_worst_moments_each_told_once(offs: list[float]) -> None:
    found = events([moment(0.5 * index, off) for index, off in enumerate(offs)])
    metres = [event["metres"] for event in found]
    assert metres == sorted(metres, reverse=True)
    assert all(value >= round(EVENT_METRES, 2) for value in metres)
    assert len(found) > 0 or max(offs) < EVENT_METRES
    if max(offs) >= EVENT_METRES:
        assert metres[0] == pytest.approx(max(offs), abs=0.006)
    seeks = sorted(event["seek_s"] for event in found)
    assert len(set(seeks)) == len(seeks)


def test_moments_of_another_bag_or_much_later_are_another_event() -> None:
    apart = EVENT_GAP_S + 0.5
    told = [moment(0.0, 3.0), moment(0.5, 4.0), moment(0.5 + apart, 5.0), moment(0.5, 3.5, bag="b")]
    assert [(event["bag"], event["metres"]) for event in events(told)] == [("a", 5.0), ("a", 4.0), ("b", 3.5)]


def test_bags_that_give_nothing_are_named_and_counted_and_not_averaged(bag: Path, tmp_path: Path) -> None:
    short = cut_bag(bag, tmp_path / "short", 0.3)
    tasks = [BagTask(path, rig_of(path, None)) for path in (bag, short)]
    one = evaluate_bags("constant_velocity", tasks, processes=1)
    two = evaluate_bags("constant_velocity", tasks, processes=2)
    assert [len(record.moments) for record in one] == [len(record.moments) for record in two]
    assert "gives no training sample" in one[1].problem or not one[1].moments
    results = bag_results(one)
    assert results["plans"] == len(one[0].moments)
    assert results["bags"][1]["plans"] == 0
    assert str(short) in bag_markdown(results)
    with pytest.raises(EvaluationError, match="no plan could be held against a human's way"):
        bag_results(one[1:])
    with pytest.raises(EvaluationError, match="is given twice, and would count twice"):
        evaluate_bags("constant_velocity", [tasks[0], tasks[0]], processes=1)


def test_the_command_writes_figures_and_tables(bag: Path, tmp_path: Path) -> None:
    arguments = ["evaluate", "bag", str(bag), "--policy", "constant_velocity", "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(app, [*arguments, "--processes", "1"])
    assert result.exit_code == 0, result.output
    written = json.loads((tmp_path / "out" / "results.json").read_text())
    assert written["plans"] >= 5
    assert (written["settings"]["policy"], written["settings"]["bags"]) == ("constant_velocity", [str(bag)])
    assert written["settings"]["version"] == package_version()
    assert read_moments(tmp_path / "out" / "bag")[0].scene == str(bag)
    assert "Plans beside the human" in (tmp_path / "out" / "results.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["{folder}/nothing"], "nothing does not exist; give a bag's folder"),
        (["{bag}", "--policy", "no_such_policy"], "'no_such_policy' is neither a checkpoint folder nor a policy name"),
    ],
)
def test_what_cannot_be_evaluated_is_one_sentence(
    bag: Path, tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    given = [argument.format(folder=tmp_path, bag=bag) for argument in arguments]
    refused = CliRunner().invoke(app, ["evaluate", "bag", *given, "--output", str(tmp_path / "out")])
    assert refused.exit_code == 1
    assert refused.stderr.count("\n") == 1, refused.output
    assert sentence in refused.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("off", "place"), [(0.0, 0), (0.2, 0), (0.3, 1), (1.5, 3), (7.0, 5), (8.5, 6), (100.0, 6)])
def test_a_plan_counts_once_where_its_greatest_distance_is(off: float, place: int) -> None:
    found = bag_results([BagRecord("a", (moment(off=off),))])["distances"]
    assert found["counts"] == [int(index == place) for index in range(len(found["metres"]) + 1)]
