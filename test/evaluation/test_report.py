"""Reports: every figure stands beside what it can be compared with, and nothing beside what it cannot."""

import re
from pathlib import Path

import pytest
from evaluation.report_folders import (
    VERSION,
    bag,
    change_settings,
    closed_loop,
    confidence,
    faults,
    nuscenes,
    open_loop,
    plan_scores,
    shown,
    texts,
    write_bag_run,
    write_run,
)

from opendrivevla_ros.evaluation.moments import ResultsError
from opendrivevla_ros.evaluation.report import Report, gather_report
from opendrivevla_ros.evaluation.report_page import page
from opendrivevla_ros.evaluation.report_tables import HIGHER, LOWER, UNKNOWN, Table, counted, number, side_by_side


def tables(report: Report, section: str) -> dict[str, Table]:
    found = next(one for one in report.sections if one.name == section)
    return {table.caption: table for table in found.figures.tables}


def notes(report: Report, section: str) -> str:
    return " ".join(next(one for one in report.sections if one.name == section).notes)


def test_one_run_stands_beside_its_baselines(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", open_loop=open_loop(1.25), closed_loop=closed_loop(), confidence=confidence())
    report = gather_report([run], VERSION)
    assert [section.name for section in report.sections] == ["closed-loop", "open-loop", "confidence"]
    plans = tables(report, "open-loop")["Plans"]
    column = plans.header.index("average (UniAD), m")
    assert [(row[0], row[column]) for row in plans.rows] == [("small", "1.25"), ("constant_velocity", "2.50")]
    outcomes = tables(report, "closed-loop")["Outcomes; in brackets 95 % intervals"]
    assert outcomes.rows[0][:2] == ("small", "6 of 10, 60 % (31 to 83)")
    identity = dict(report.identities[0])
    assert (identity["policy"], identity["weights of small"], identity["version"]) == (
        "checkpoints/small",
        "0123abcd",
        VERSION,
    )
    assert all(plot.alt and plot.svg.startswith("<svg") for one in report.sections for plot in one.figures.plots)


def test_two_runs_stand_beside_each_other_and_the_better_one_is_marked(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, open_loop=open_loop(of)) for name, of in (("old", 1.25), ("new", 0.75))]
    report = gather_report(runs, VERSION)
    table = tables(report, "open-loop")["The policies beside each other"]
    assert table.header == ("", "old", "new", "new less old", "better")
    rows = {row[0]: (index, row) for index, row in enumerate(table.rows)}
    index, row = rows["average (UniAD), m"]
    assert row[1:] == ("1.25", "0.75", "-0.50", "new")
    assert (index, 2) in table.better
    index, row = rows["plans that collide"]
    assert row[3:] == ("+0.0 points", "same")
    assert not {(index, 1), (index, 2)} & table.better
    assert notes(report, "open-loop") == ""


@pytest.mark.parametrize(
    ("better", "values", "marked", "verdict"),
    [
        (LOWER, (2.0, 1.0), {(0, 2)}, "b"),
        (HIGHER, (2.0, 1.0), {(0, 1)}, "a"),
        (UNKNOWN, (2.0, 1.0), set(), "-"),
        (LOWER, (1.001, 1.0), set(), "same"),  # as shown
    ],
)
def test_a_mark_says_which_way_is_better(better: int, values: tuple, marked: set, verdict: str) -> None:
    runs = [(name, {"x": value}) for name, value in zip("ab", values, strict=True)]
    table = side_by_side("", [number("x", "x", better=better)], runs, comparable=True)
    assert (set(table.better), table.rows[0][-1]) == (marked, verdict)


def test_shares_whose_intervals_overlap_are_not_told_apart() -> None:
    def share(count: int, low: float, high: float) -> dict:
        return {"passed": {"count": count, "of": 10, "interval": [low, high]}}

    metric = [counted("passed", "passed", better=HIGHER)]
    close = side_by_side("", metric, [("a", share(4, 0.2, 0.7)), ("b", share(6, 0.3, 0.8))], comparable=True)
    assert (close.rows[0][-1], set(close.better)) == ("intervals overlap", set())
    apart = side_by_side("", metric, [("a", share(1, 0.0, 0.3)), ("b", share(9, 0.6, 1.0))], comparable=True)
    assert (apart.rows[0][-1], set(apart.better)) == ("b", {(0, 2)})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"scenes": 112}, "scenes: 2 in old, 112 in new"),
        ({"seeds": [1, 2]}, "seeds: not given in old, [1, 2] in new"),
    ],
)
def test_runs_of_other_settings_are_shown_with_a_note_and_not_compared(
    tmp_path: Path, changes: dict, told: str
) -> None:
    old, new = (write_run(tmp_path / name, open_loop=open_loop(of)) for name, of in (("old", 1.25), ("new", 0.75)))
    change_settings(new, "open-loop", **changes)
    report = gather_report([old, new], VERSION)
    table = tables(report, "open-loop")["The policies beside each other"]
    assert table.header == ("", "old", "new")
    assert not table.better
    assert notes(report, "open-loop").startswith("Not comparable: ")
    assert told in notes(report, "open-loop")
    assert f'role="note">{notes(report, "open-loop")}</p>' in page(report)


def test_figures_of_other_numbers_of_plans_are_not_compared(tmp_path: Path) -> None:
    few = confidence() | {"plans": 12}
    runs = [write_run(tmp_path / name, confidence=of) for name, of in (("all", confidence()), ("few", few))]
    report = gather_report(runs, VERSION)
    assert "plans: 20 in all, 12 in few" in notes(report, "confidence")
    assert tables(report, "confidence")["The policies beside each other"].header == ("", "all", "few")


def test_another_policy_and_other_baselines_are_what_is_compared(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, open_loop=open_loop()) for name in ("old", "new")]
    change_settings(runs[1], "open-loop", policy="other", weights="4567", beside=["third"], device="cuda")
    assert notes(gather_report(runs, VERSION), "open-loop") == ""


def test_published_figures_stand_beside_nuscenes_alone_each_with_its_source(tmp_path: Path) -> None:
    world = write_run(tmp_path / "world", open_loop=open_loop(), closed_loop=closed_loop())
    real = write_run(tmp_path / "real", nuscenes=nuscenes())
    assert "arXiv" not in page(gather_report([world], VERSION))
    report = gather_report([world, real], VERSION)
    table = tables(report, "nuscenes")["Beside published figures of nuScenes"]
    assert "world" not in {cell for row in table.rows for cell in row}
    assert all(row[-1] for row in table.rows)
    rows = {(row[0], row[1]): row for row in table.rows}
    assert rows["OpenDriveVLA-0.5B", "ST-P3"][2:6] == ("0.15", "0.32", "0.57", "0.35")
    assert rows["AutoVLA, actions only", "ST-P3"][-2:] == ("0.19", "arXiv 2506.13757")
    assert rows["small", "UniAD"][5] == "0.50"
    assert notes(report, "nuscenes") == ""
    official = dict(tables(report, "nuscenes")["Detection and tracking, by nuscenes-devkit"].rows)
    assert official == {"NDS": "0.410", "mean AP": "0.330", "AMOTA": "0.200"}


@pytest.mark.parametrize("changes", [{"samples": 81}, {"split": "mini_val"}, {"complete": False}])
def test_published_figures_are_not_shown_beside_other_data(tmp_path: Path, changes: dict) -> None:
    part = write_run(tmp_path / "part", nuscenes=nuscenes(**changes))
    whole = write_run(tmp_path / "whole", nuscenes=nuscenes())
    report = gather_report([part], VERSION)
    assert "part: published figures are of all 6019 samples of nuScenes' split val" in notes(report, "nuscenes")
    assert "arXiv" not in page(report)
    both = tables(gather_report([part, whole], VERSION), "nuscenes")["Beside published figures of nuScenes"]
    assert [row[0] for row in both.rows][:3] == ["whole", "whole", "OpenDriveVLA-0.5B"]


def test_samples_that_are_in_no_figure_are_told(tmp_path: Path) -> None:
    problems = {
        "scenes": {"scene-0103": "a picture is broken"},
        "missing": ["a", "b"],
        "unknown": [],
        "duplicated": [],
    }
    results = nuscenes(6017, complete=False, problems=problems, detection=None, tracking=None)
    report = gather_report([write_run(tmp_path / "run", nuscenes=results)], VERSION)
    assert "scene-0103 is not in the figures: a picture is broken" in notes(report, "nuscenes")
    assert "2 samples are in no figure, because they have no record." in notes(report, "nuscenes")
    assert "Detection and tracking, by nuscenes-devkit" not in tables(report, "nuscenes")


def test_bags_stand_beside_the_human_and_plans_that_did_not_come_are_told(tmp_path: Path) -> None:
    run = write_bag_run(tmp_path / "run", bag({1.0: 0.5, 8.0: 1.5}, {"bad_text": 3}))
    report = gather_report([run], VERSION)
    kinds = tables(report, "bag")["By speed, and by what the human does"]
    assert [row[0] for row in kinds.rows] == ["0.5 to 3 m/s", "6 to 10 m/s", "straight"]
    assert dict(tables(report, "bag")["All plans"].rows)["average (UniAD), m"] == "1.00"
    assert notes(report, "bag") == "run: without a plan 3 times for bad text."
    speeds, distances = report.sections[0].figures.plots
    assert "0.5-3 m/s 0.50, 6-10 m/s 1.50; constant velocity: 0.5-3 m/s 0.00" in speeds.alt
    assert "ego state: 0.5-3 m/s 0.50, 6-10 m/s 0.50" in speeds.alt
    assert "0.5-1 1, 1-2 1, 2-4 0" in distances.alt


def test_bags_that_differ_in_anything_are_not_compared(tmp_path: Path) -> None:
    first = write_bag_run(tmp_path / "first", bag({1.0: 0.5, 8.0: 1.5}))
    same = write_bag_run(tmp_path / "same", bag({1.0: 0.4, 8.0: 1.6}), policy="other", weights="4567")
    other = write_bag_run(tmp_path / "other", bag({1.0: 0.5, 8.0: 1.5}), bags=["night"])
    fewer = write_bag_run(tmp_path / "fewer", bag({8.0: 1.5}, {"deadline": 1}))
    assert "Not comparable" not in notes(gather_report([first, same], VERSION), "bag")
    assert "bags: drive only in first; night only in other" in notes(gather_report([first, other], VERSION), "bag")
    report = gather_report([first, fewer], VERSION)
    assert "plans: 2 in first, 1 in fewer" in notes(report, "bag")
    speeds = report.sections[0].figures.plots[0]
    assert "fewer: 0.5-3 m/s none" in speeds.alt


def test_texts_and_faults_of_two_runs_stand_beside_each_other(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, text=texts(), faults=faults(of)) for name, of in (("old", 0), ("new", 2))]
    report = gather_report(runs, VERSION)
    blind = tables(report, "text")["old: 4 texts; tok:13a"]
    assert blind.header == ("", "small", "without scene tokens")
    assert ("right answers, all", "50.0 %", "25.0 %") in blind.rows
    killed = {row[0]: row for row in tables(report, "faults")["Beside each other: model killed"].rows}
    assert killed["collisions"][1:] == ("0", "2", "+2", "old")
    assert killed["drives"][-1] == "-"


def test_baselines_that_differ_between_the_runs_are_each_drawn(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / name, closed_loop=closed_loop(count, of), open_loop=results)
        for name, count, of, results in (
            ("old", 4, 10, open_loop()),
            (
                "new",
                1,
                2,
                open_loop() | {"policies": {**open_loop()["policies"], "constant_velocity": plan_scores(9.0)}},
            ),
        )
    ]
    for part, changes in (("closed-loop", {"scenarios": 2}), ("open-loop", {"scenes": 9})):
        change_settings(runs[1], part, **changes)
    found = {section.name: section for section in gather_report(runs, VERSION).sections}
    assert "old: bend 40 %; new: bend 50 %; expert: bend 100 %" in found["closed-loop"].figures.plots[0].alt
    assert "new: 2 scenarios of each family, so these shares are coarse." in found["closed-loop"].notes
    lines = found["open-loop"].figures.plots[0].alt
    assert "constant_velocity 1.25, 2.50, 3.75" in lines
    assert "constant_velocity, new 4.50, 9.00, 13.50" in lines


def test_a_page_needs_nothing_else_and_escapes_what_it_is_told(tmp_path: Path) -> None:
    evil = "<script>alert('x')</script> & $x^$"
    moments = [shown(scene=evil, words=evil, facts=evil, front=b"\xff\xd8")]
    results = open_loop() | {"policy": evil, "policies": {evil: open_loop()["policies"]["small"]}}
    results["families"] = {evil: results["policies"]}
    text = page(gather_report([write_run(tmp_path / "a<b>c", open_loop=results, moments=moments)], VERSION))
    assert "<script" not in text
    assert "<b>" not in text
    assert text.count("&lt;script&gt;alert") >= 5
    addresses = re.findall(r"""(?:src|href|url|@import)\s*[=(]\s*["']?([^"')\s>]+)""", text)
    assert addresses
    assert all(address.startswith(("data:image/jpeg;base64,", "#")) for address in addresses)


def test_the_words_and_pictures_of_the_worst_moments_are_shown_and_their_lack_is_told(tmp_path: Path) -> None:
    moments = [shown(off=5.0), shown("other 19", off=4.0, words="no picture here")]
    text = page(gather_report([write_run(tmp_path / "run", open_loop=open_loop(), moments=moments)], VERSION))
    assert text.index("5.0 m</span> bend 9 at 2.0 s") < text.index("4.0 m</span> other 19 at 2.0 s")
    assert text.count('class="above"') == 2
    assert text.count("no picture of the front camera") == 2
    assert "<blockquote>a car ahead</blockquote>" in text
    without = page(gather_report([write_run(tmp_path / "before", open_loop=open_loop())], VERSION))
    assert re.search(r"before: none were kept; remove \S+/open-loop.json and evaluate again", without)


@pytest.mark.parametrize("off", [0.0, 0.02, 200.0])
def test_moments_of_any_size_can_be_drawn(tmp_path: Path, off: float) -> None:
    run = write_run(tmp_path / "run", open_loop=open_loop(), moments=[shown(off=off)])
    drawn = re.search(r'<svg class="above".*?</svg>', page(gather_report([run], VERSION)), re.DOTALL)
    assert drawn
    assert "nan" not in drawn[0]
    assert f"at most {off:.1f} m apart; 2 agents" in drawn[0]


def break_json(folder: Path) -> None:
    (folder / "open-loop.json").write_text('{"settings": ')


def empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def forget_settings(folder: Path) -> None:
    (folder / "open-loop.json").unlink()


def stop_halfway(folder: Path) -> None:
    (folder / "results.json").write_text((folder / "results.json").read_text().replace("1.25", "1.5"))


def lose_figures(folder: Path) -> None:
    for name in ("open-loop.json", "results.json"):
        path = folder / name
        path.write_text(path.read_text().replace('"policies"', '"police"'))


def write_a_list(folder: Path) -> None:
    (folder / "results.json").write_text("[1, 2]")


def name_a_part(folder: Path) -> None:
    (folder / "results.json").write_text('{"moon": {}}')


def write_nothing(folder: Path) -> None:
    (folder / "results.json").write_text("{}")


def older(folder: Path) -> None:
    change_settings(folder, "open-loop", version="0.9")


def nameless(folder: Path) -> None:
    change_settings(folder, "open-loop", version=None)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (break_json, r"run/open-loop.json is broken JSON \(line 1, column 14: .*\); remove it and evaluate again"),
        (empty, "run holds no results.json; give the output folder of an `odv evaluate` that ran to its end"),
        (forget_settings, "run/open-loop.json is missing, .*; evaluate again"),
        (stop_halfway, "hold different results, as after an evaluation that was stopped; run it to its end"),
        (lose_figures, r"run/open-loop.json holds no open-loop results .*\(KeyError: 'policies'\); remove it and"),
        (write_a_list, "run/results.json holds list in place of results; remove it and evaluate again"),
        (name_a_part, "run/results.json has a part 'moon', and a page can show closed-loop, open-loop"),
        (write_nothing, "run/results.json is empty; evaluate at least one part"),
        (older, "run/open-loop.json was written by version 0.9 and this is 1.2.3; evaluate again with this one"),
        (nameless, "run/open-loop.json was written by a version that did not say which and this is 1.2.3; evaluate"),
    ],
)
def test_what_cannot_be_shown_is_one_sentence_with_its_remedy(tmp_path: Path, spoil, sentence: str) -> None:
    run = write_run(tmp_path / "run", open_loop=open_loop())
    spoil(run)
    with pytest.raises(ResultsError, match=sentence) as caught:
        gather_report([run], VERSION)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_folders_that_are_not_there_twice_or_too_many_are_refused(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, open_loop=open_loop()) for name in ("a", "b", "c")]
    with pytest.raises(ResultsError, match="nothing is no folder with results"):
        gather_report([tmp_path / "nothing"], VERSION)
    with pytest.raises(ResultsError, match="a is given twice; give every folder once"):
        gather_report([runs[0], tmp_path / "b" / ".." / "a"], VERSION)
    with pytest.raises(ResultsError, match=r"open-loop is in .*; a page sets two beside each other: leave out others"):
        gather_report(runs, VERSION)


def test_runs_of_one_name_are_told_apart_by_their_place(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name / "out", open_loop=open_loop()) for name in ("a", "b")]
    assert [run.name for run in gather_report(runs, VERSION).runs] == [str(run) for run in runs]


def test_the_same_results_give_the_same_page(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", open_loop=open_loop(), closed_loop=closed_loop(), moments=[shown()])
    assert page(gather_report([run], VERSION)) == page(gather_report([run], VERSION))
