"""Launch files: every argument described, and launch_testing's tests run where launch_testing is installed."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
LAUNCH_FILES = sorted((HERE.parent.parent / "launch").glob("*.launch.py"))
LAUNCH_TESTS = sorted(HERE.glob("*_launch_test.py"))


def declared_arguments(path: Path) -> list[ast.Call]:
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    return [call for call in calls if getattr(call.func, "id", "") == "DeclareLaunchArgument"]


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.name)
def test_every_launch_argument_has_a_description(path: Path) -> None:
    arguments = declared_arguments(path)
    assert arguments
    for argument in arguments:
        assert "description" in {keyword.arg for keyword in argument.keywords}, ast.unparse(argument)


@pytest.mark.parametrize("path", LAUNCH_TESTS, ids=lambda path: path.name)
def test_with_launch_testing(path: Path) -> None:
    if importlib.util.find_spec("launch_testing") is None:
        pytest.skip(f"{path.name} was not run: launch_testing is not installed (it comes with a full ROS 2)")
    subprocess.run([sys.executable, "-m", "launch_testing.launch_test", str(path)], check=True, timeout=180)
