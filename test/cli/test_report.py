"""`odv report`: from real evaluations to a page that a real browser shows without a network."""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from opendrivevla_ros.cli.main import app
from opendrivevla_ros.datasets.world_bag import write_world_bag

ODV = CliRunner(env={"COLUMNS": "200"})
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PHONE, DESK = (500, 900), (1280, 900)  # headless Chromium has no window narrower than 500 pixels

# What the page is like once it is loaded, for who dumps its document. The page itself has no script, and forbids any.
PROBE = """<script>addEventListener("load", () => {  // at once: the browser does not wait for what is still to come
  const seen = element => { const box = element.getBoundingClientRect(); return box.width > 100 && box.height > 60; };
  document.documentElement.dataset.found = JSON.stringify({
    images: [...document.images].map(image => image.naturalWidth),
    drawings: [...document.querySelectorAll("svg")].map(seen),
    fetched: performance.getEntriesByType("resource").map(one => one.name).filter(name => !name.startsWith("data:")),
    blocked: blocked,
    wide: document.documentElement.scrollWidth - innerWidth,
    ids: [...document.querySelectorAll("[id]")].map(element => element.id),
    ground: getComputedStyle(document.body).backgroundColor,
    plan: getComputedStyle(document.querySelector(".above .plan") || document.body).stroke,
  });
});
const blocked = [];
addEventListener("securitypolicyviolation", event => blocked.push(event.blockedURI));</script>"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two evaluations in the world, of one scene, and one of a bag."""
    folder = tmp_path_factory.mktemp("runs")
    write_world_bag(folder / "drive", family="free_road", duration_s=6.0, image_size=(64, 36))
    world = ["evaluate", "world", "--checkpoint", "constant_velocity", "--scenes", "1", "--processes", "1"]
    closed = ["--scenarios", "1", "--family", "stopped_lead"]
    commands = {
        "first": [*world, *closed],
        "second": [*world, "--only", "open-loop"],
        "bags": ["evaluate", "bag", str(folder / "drive"), "--policy", "constant_velocity", "--processes", "1"],
    }
    for name, arguments in commands.items():
        done = ODV.invoke(app, [*arguments, "--output", str(folder / name)])
        assert done.exit_code == 0, done.output
    return {name: folder / name for name in commands}


@pytest.fixture(scope="module")
def page(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    done = ODV.invoke(app, ["report", *map(str, runs.values()), "--output", str(path)])
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith(f"{path}, 0.")
    return path


@pytest.fixture(scope="module")
def browser() -> str:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(
            "the page was not shown in a browser: none of chromium, chromium-browser and google-chrome is installed"
            " (Debian: apt install chromium)"
        )
    return found


def probed(browser: str, text: str, folder: Path, size: tuple[int, int], *flags: str) -> dict[str, Any]:
    """What the page is like in a browser that reaches no host."""
    path = folder / "probed.html"
    allowed = text.replace("default-src 'none'", "default-src 'none'; script-src 'unsafe-inline'", 1)
    assert allowed != text
    path.write_text(allowed.replace("<title>", PROBE + "<title>", 1))
    done = subprocess.run(
        [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={folder / 'profile'}",
            f"--window-size={size[0]},{size[1]}",
            "--virtual-time-budget=10000",
            *flags,
            "--dump-dom",
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    found = re.search(r'<html[^>]* data-found="([^"]*)"', done.stdout)
    assert found, done.stderr
    return json.loads(unescape(found[1]))


@pytest.mark.parametrize("size", [PHONE, DESK])
def test_a_browser_shows_everything_and_asks_for_nothing(
    browser: str, page: Path, tmp_path: Path, size: tuple[int, int]
) -> None:
    found = probed(browser, page.read_text(), tmp_path, size)
    assert len(found["images"]) >= 5
    assert min(found["images"]) > 0
    assert len(found["drawings"]) >= 9
    assert all(found["drawings"])
    assert found["fetched"] == []
    assert found["blocked"] == []
    assert found["wide"] <= 0
    assert len(set(found["ids"])) == len(found["ids"])


def test_what_the_browser_tells_is_not_always_good(browser: str, page: Path, tmp_path: Path) -> None:
    spoilt = '<img src="http://example.invalid/a.png" alt=""><div style="width:3000px">wide</div></main>'
    found = probed(browser, page.read_text().replace("</main>", spoilt), tmp_path, DESK)
    assert min(found["images"]) == 0
    assert found["blocked"] == ["http://example.invalid/a.png"]
    assert found["wide"] > 0


def test_the_page_is_light_or_dark_as_its_reader_is_used_to(browser: str, page: Path, tmp_path: Path) -> None:
    shown = {}
    for scheme in (0, 1):  # dark, light
        folder = tmp_path / str(scheme)
        folder.mkdir()
        shown[scheme] = probed(
            browser, page.read_text(), folder, DESK, f"--blink-settings=preferredColorScheme={scheme}"
        )
    dark, light = (sum(map(int, re.findall(r"\d+", shown[scheme]["ground"])[:3])) for scheme in (0, 1))
    assert dark < 150 < 600 < light
    assert shown[0]["plan"] != shown[1]["plan"]


def test_the_page_has_what_was_evaluated_figures_and_the_worst_moments(page: Path, runs: dict[str, Path]) -> None:
    text = page.read_text()
    for told in ("Closed loop", "Open loop", "Bags, beside the human", "The policies beside each other"):
        assert told in text
    for run in runs.values():
        assert str(run) in text
    figures = json.loads((runs["first"] / "results.json").read_text())["open-loop"]["policies"]
    average = figures["constant_velocity"]["displacement"]["uniad"]["average"]
    assert f"<td>{average:.2f}</td>" in text
    worst = json.loads((runs["first"] / "open-loop" / "moments.json").read_text())[0]
    assert f"{worst['metres']:.1f} m</span> {worst['scene']} at {worst['seconds']:.1f} s" in text
    assert page.stat().st_size < 1_000_000


def test_results_of_another_version_are_refused_in_one_sentence(runs: dict[str, Path], tmp_path: Path) -> None:
    old = shutil.copytree(runs["bags"], tmp_path / "old")
    content = json.loads((old / "results.json").read_text())
    content["settings"]["version"] = "0.0.1"
    (old / "results.json").write_text(json.dumps(content))
    output = tmp_path / "report.html"
    done = ODV.invoke(app, ["report", str(old), "--output", str(output)])
    assert done.exit_code == 1
    assert done.stderr.count("\n") == 1
    assert f"error: {old}/results.json was written by version 0.0.1 and this is " in done.stderr
    assert not output.exists()


@pytest.mark.parametrize("output", ["", "missing/report.html"])
def test_a_page_that_cannot_be_written_is_one_sentence(runs: dict[str, Path], tmp_path: Path, output: str) -> None:
    done = ODV.invoke(app, ["report", str(runs["bags"]), "--output", str(tmp_path / output)])
    assert done.exit_code == 1
    assert done.stderr.count("\n") == 1
    assert f"cannot write {tmp_path / output}: " in done.stderr
    assert "choose another --output" in done.stderr
    assert list(tmp_path.iterdir()) == []
