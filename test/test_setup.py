"""scripts/setup.sh on stand-in machines: what it refuses, each in one sentence, and what it does how often."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from packaging.requirements import Requirement

REPOSITORY = Path(__file__).parent.parent
NEEDED = ("bash", "dirname", "cat", "sha256sum", "cut", "flock", "awk", "mkdir", "rm", "chmod", "uname", "sleep")
COMPILERS = ("cc", "c++", "make")

# Answers what setup.sh asks an interpreter, and `-m venv` with an environment that holds itself as python.
PYTHON = """
case "$*" in
*version_info*) echo 3.12 ;;
*sysconfig*) echo "$PROGRAMS/include" ;;
*"import rclpy"*) [ -e "$PROGRAMS/rclpy" ] ;;
*"-m venv"*)
  interpreter=$(cat "$0")
  rm -rf .venv; mkdir -p .venv/bin
  echo "$interpreter" >.venv/bin/python
  chmod +x .venv/bin/python
  ;;
*"-m pip"*) echo "pip $*" >>"$LOG"; eval "${PIP:-:}" ;;
*mend_ros_wheels*) echo mend >>"$LOG" ;;
esac
"""
COLCON = 'echo "colcon $*" >>"$LOG"; eval "${COLCON:-:}"; mkdir install'


class Machine:
    """A copy of what setup.sh reads, and bin/ with only the programs that it needs, python and colcon stood in for."""

    def __init__(self, folder: Path) -> None:
        self.tree = folder / "tree"
        self.programs = folder / "bin"
        self.log = folder / "log.txt"
        self.log.touch()
        for name in ("scripts", "requirements", "msg", "srv", "action"):
            shutil.copytree(REPOSITORY / name, self.tree / name)
        for name in ("CMakeLists.txt", "package.xml"):
            shutil.copy(REPOSITORY / name, self.tree / name)
        (self.programs / "include").mkdir(parents=True)
        (self.programs / "include/Python.h").touch()
        for name in NEEDED + COMPILERS:
            found = shutil.which(name)
            assert found, f"this test needs {name}"
            (self.programs / name).symlink_to(found)
        self.stand_in("python3", PYTHON)
        self.stand_in("python", ":")
        self.stand_in("colcon", COLCON)
        self.stand_in("df", "echo head; echo disk 100 90 51000000 90% /")

    def stand_in(self, name: str, lines: str) -> None:
        """Puts a shell script where the program `name` is looked for."""
        path = self.programs / name
        path.unlink(missing_ok=True)
        path.write_text(f"#!{shutil.which('bash')}\n{lines}\n")
        path.chmod(0o755)

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        """Runs setup.sh in a process group of its own; `variables` join its environment."""
        return subprocess.Popen(
            [str(self.programs / "bash"), str(self.tree / "scripts/setup.sh"), *arguments],
            env={"PATH": str(self.programs), "PROGRAMS": str(self.programs), "LOG": str(self.log), **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job's is ignored
        )

    def start_and_reach(self, step: str) -> subprocess.Popen[str]:
        """Starts setup.sh with a `step` (PIP, COLCON) that hangs; returns once it does."""
        process = self.start(**{step: "echo reached >>$LOG; exec sleep 100"})
        deadline = time.monotonic() + 60
        while "reached" not in self.log.read_text():
            assert time.monotonic() < deadline, f"setup.sh did not reach {step}"
            time.sleep(0.01)
        return process

    def setup(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments, **variables)
        output, errors = process.communicate(timeout=60)
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    def done(self) -> list[str]:
        """What pip, the mending of the wheels and colcon were called with since the last call of this."""
        lines = self.log.read_text().splitlines()
        self.log.write_text("")
        return lines


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def assert_refused(result: subprocess.CompletedProcess[str], *words: str) -> None:
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1, result.stderr
    for word in words:
        assert word in result.stderr


def test_a_missing_compiler_is_named_with_the_remedy(machine: Machine) -> None:
    (machine.programs / "c++").unlink()
    assert_refused(machine.setup(), "no 'c++'", "apt install build-essential")


def test_missing_python_headers_are_named_with_the_remedy(machine: Machine) -> None:
    (machine.programs / "include/Python.h").unlink()
    assert_refused(machine.setup(), "no Python.h", "apt install python3.12-dev")


def test_another_processor_needs_a_sourced_ros(machine: Machine) -> None:
    machine.stand_in("uname", "echo aarch64")
    assert_refused(machine.setup(), "aarch64", "x86_64 only", "source its setup.bash")
    (machine.programs / "rclpy").touch()
    assert machine.setup(ROS_DISTRO="jazzy").returncode == 0


def test_an_old_python_is_refused_with_the_remedy(machine: Machine) -> None:
    machine.stand_in("python3", "echo 3.9")
    assert_refused(machine.setup(), "Python 3.9", "3.10 to 3.13", "make PYTHON=")


def test_a_python_that_is_not_there_is_named(machine: Machine) -> None:
    assert_refused(machine.setup("python9"), "no 'python9'", "make PYTHON=")


def test_a_full_disk_is_refused_before_anything_is_made(machine: Machine) -> None:
    machine.stand_in("df", "echo head; echo disk 100 90 51000 90% /")
    assert_refused(machine.setup(), "51 MB are free", "GB", "free some space")
    assert not (machine.tree / ".venv").exists()


def test_a_python_without_venv_is_refused_with_the_remedy(machine: Machine) -> None:
    machine.stand_in("python3", PYTHON.replace("rm -rf .venv;", "exit 1;"))
    assert_refused(machine.setup(), "-m venv' failed", "apt install python3.12-venv")


def test_a_disk_that_fills_while_pip_runs_is_one_sentence(machine: Machine) -> None:
    full = machine.setup(PIP="echo 'ERROR: [Errno 28] No space left on device' >&2; exit 1")
    assert_refused(full, "filled up", "GB", "free some space")


def test_what_pip_says_stands_above_the_refusal_and_the_next_run_recovers(machine: Machine) -> None:
    result = machine.setup(PIP="echo 'ERROR: no network' >&2; exit 1")
    assert result.returncode == 1
    said, refusal = result.stderr.splitlines()
    assert said == "ERROR: no network"
    assert "pip could not install requirements/runtime.txt" in refusal
    assert machine.setup().returncode == 0


def test_setting_up_twice_does_nothing_the_second_time(machine: Machine) -> None:
    first = machine.setup()
    assert first.returncode == 0, first.stderr
    upgrade, install, mend, colcon = machine.done()
    assert upgrade.endswith("--upgrade pip")
    assert "--requirement=requirements/ros-jazzy.txt" in install
    assert (mend, colcon.split()[:4]) == ("mend", ["colcon", "--log-level", "error", "build"])
    assert machine.setup().stdout == "setup: nothing to do\n"
    assert machine.done() == []


def test_the_interpreter_that_was_named_stays_until_another_is_named(machine: Machine) -> None:
    machine.stand_in("python3.13", PYTHON.replace("3.12", "3.13"))
    assert "with Python 3.13" in machine.setup("python3.13").stdout
    assert machine.setup().stdout == "setup: nothing to do\n"
    assert "with Python 3.12" in machine.setup("python3").stdout


def test_a_changed_message_is_built_again_in_the_same_environment(machine: Machine) -> None:
    machine.setup()
    machine.done()
    with (machine.tree / "msg/PlanStatus.msg").open("a") as file:
        file.write("bool another  # field\n")
    assert machine.setup().returncode == 0
    assert [line.split()[0] for line in machine.done()] == ["colcon"]


def test_a_tree_that_moved_is_set_up_again(machine: Machine, tmp_path: Path) -> None:
    machine.setup()
    machine.done()
    machine.tree = machine.tree.rename(tmp_path / "elsewhere")
    assert machine.setup().returncode == 0
    assert [line.split()[0] for line in machine.done()] == ["pip", "pip", "mend", "colcon"]


def test_a_failed_build_is_one_sentence_and_is_tried_again(machine: Machine) -> None:
    assert_refused(machine.setup(COLCON="exit 2"), "colcon could not build")
    assert machine.setup().returncode == 0
    assert [line.split()[0] for line in machine.done()] == ["pip", "pip", "mend", "colcon", "colcon"]


@pytest.mark.parametrize("step", ["PIP", "COLCON"])
def test_an_interrupted_setup_says_so_and_the_next_one_finishes_it(machine: Machine, step: str) -> None:
    process = machine.start_and_reach(step)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors == "setup: interrupted; run it again to finish\n"
    machine.done()
    assert machine.setup().returncode == 0
    assert "colcon" in machine.done()[-1]


def test_a_killed_setup_whose_pip_still_runs_is_waited_for(machine: Machine) -> None:
    process = machine.start_and_reach("PIP")
    process.kill()
    process.wait(timeout=60)
    assert_refused(machine.setup(), "another setup", "is still running")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert machine.setup().returncode == 0


def test_a_sourced_ros_is_used_as_it_is(machine: Machine) -> None:
    (machine.programs / "rclpy").touch()
    assert machine.setup(ROS_DISTRO="jazzy").returncode == 0
    upgrade, install, colcon = machine.done()
    assert upgrade.endswith("--upgrade pip")
    assert "ros-jazzy.txt" not in install
    assert colcon.startswith("colcon")
    assert machine.setup(ROS_DISTRO="jazzy").stdout == "setup: nothing to do\n"


def test_a_python_that_is_not_the_sourced_ros_one_is_refused(machine: Machine) -> None:
    assert_refused(machine.setup(ROS_DISTRO="jazzy"), "can't import rclpy", "jazzy", "make PYTHON=/usr/bin/python3")


def test_a_sourced_ros_without_colcon_is_refused_with_the_remedy(machine: Machine) -> None:
    (machine.programs / "rclpy").touch()
    (machine.programs / "colcon").unlink()
    assert_refused(machine.setup(ROS_DISTRO="jazzy"), "no 'colcon'", "python3-colcon-common-extensions")


def environment_of(machine: Machine, **variables: str) -> dict[str, str]:
    """What `source scripts/env.sh` leaves of `variables`."""
    script = f"source {machine.tree}/scripts/env.sh; while read name; do echo $name=${{!name}}; done < <(compgen -e)"
    command = [str(machine.programs / "bash"), "-c", script]
    environment = {"PATH": str(machine.programs), **variables}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert result.stderr == ""
    return dict(line.split("=", 1) for line in result.stdout.splitlines())


def test_the_environment_keeps_a_sourced_ros_behind_this_build(machine: Machine) -> None:
    packages = machine.tree / "install/opendrivevla_ros/lib/python3.12/site-packages"
    packages.mkdir(parents=True)
    ros = {"ROS_DISTRO": "jazzy", "AMENT_PREFIX_PATH": "/opt/ros/jazzy", "LD_LIBRARY_PATH": "/opt/ros/jazzy/lib"}
    ros["PYTHONPATH"] = "/opt/ros/jazzy/lib/python3.12/site-packages"
    found = environment_of(machine, **ros)
    prefix = machine.tree / "install/opendrivevla_ros"
    assert found["AMENT_PREFIX_PATH"] == f"{prefix}:/opt/ros/jazzy"
    assert found["LD_LIBRARY_PATH"].split(":")[:2] == [f"{prefix}/lib", "/opt/ros/jazzy/lib"]
    assert found["PYTHONPATH"].split(":") == [f"{machine.tree}/src", ros["PYTHONPATH"], str(packages)]
    assert not any(".venv" in found.get(name, "") for name in ("AMENT_PREFIX_PATH", "CMAKE_PREFIX_PATH"))


def test_the_environment_without_ros_is_the_one_in_the_tree(machine: Machine) -> None:
    found = environment_of(machine)
    assert found["AMENT_PREFIX_PATH"] == f"{machine.tree}/.venv"
    assert found["PATH"].split(":")[:2] == [f"{machine.tree}/scripts", f"{machine.tree}/.venv/bin"]
    assert "ROS_DISTRO" not in found


@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12", "3.13"])
def test_each_python_has_one_version_of_every_requirement_to_run(version: str) -> None:
    lines = (REPOSITORY / "requirements/runtime.txt").read_text().splitlines()
    requirements = [Requirement(line) for line in lines if not line.startswith("#")]
    applying = [
        requirement.name
        for requirement in requirements
        if requirement.marker is None or requirement.marker.evaluate({"python_version": version})
    ]
    assert sorted(applying) == sorted({requirement.name for requirement in requirements})
