"""scripts/setup.sh: what it refuses, each in one sentence, and that a second run does nothing."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
NEEDED = ("bash", "dirname", "cat", "sha256sum", "cut", "awk", "df", "python3", "cc", "c++", "make")


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A copy of the tree's setup, and bin/ with only the programs that setup.sh needs."""
    tree = tmp_path / "tree"
    shutil.copytree(REPOSITORY / "scripts", tree / "scripts")
    for name in ("requirements", "msg", "srv", "action"):
        shutil.copytree(REPOSITORY / name, tree / name)
    for name in ("CMakeLists.txt", "package.xml"):
        shutil.copy(REPOSITORY / name, tree / name)
    (tree / "bin").mkdir()
    for name in NEEDED:
        found = shutil.which(name)
        assert found, f"this test needs {name}"
        (tree / "bin" / name).symlink_to(found)
    return tree


def stand_in(machine: Path, name: str, line: str) -> None:
    path = machine / "bin" / name
    path.unlink(missing_ok=True)
    path.write_text(f"#!{shutil.which('bash')}\n{line}\n")
    path.chmod(0o755)


def setup(machine: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(machine / "bin/bash"), str(machine / "scripts/setup.sh"), *arguments]
    environment = {"PATH": str(machine / "bin")}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def assert_refused(result: subprocess.CompletedProcess[str], *words: str) -> None:
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    for word in words:
        assert word in result.stderr


def test_a_missing_compiler_is_named_with_the_remedy(machine: Path) -> None:
    (machine / "bin/c++").unlink()
    assert_refused(setup(machine), "no 'c++'", "apt install build-essential")


def test_an_old_python_is_refused_with_the_remedy(machine: Path) -> None:
    stand_in(machine, "python3", "echo 3.9")
    assert_refused(setup(machine), "Python 3.9", "3.10 to 3.13", "make PYTHON=")


def test_a_python_that_is_not_there_is_named(machine: Path) -> None:
    assert_refused(setup(machine, "python9"), "no 'python9'", "make PYTHON=")


def test_a_full_disk_is_refused_before_anything_is_made(machine: Path) -> None:
    stand_in(machine, "python3", "echo 3.12")
    stand_in(machine, "df", "echo head; echo disk 100 90 51000 90% /")
    assert_refused(setup(machine), "51 MB are free", "GB", "free some space")
    assert not (machine / ".venv").exists()


def test_setting_up_twice_does_nothing_the_second_time() -> None:
    if not (REPOSITORY / "install/build.txt").exists():
        pytest.fail("set this tree up first: make setup")
    python = (REPOSITORY / ".venv/environment.txt").read_text().split()[0]
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    command = ["scripts/setup.sh", str(REPOSITORY / ".venv/bin" / f"python{python}")]
    result = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True)
    assert result.stdout == "setup: nothing to do\n"
