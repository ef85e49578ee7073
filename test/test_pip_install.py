"""`pip install .` on a machine without ROS: the module imports, plans and reads messages, with no rclpy in sight."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
FOLDERS = ("src", "msg", "srv", "action", "config", "checkpoints", "requirements")
COPIED = (*FOLDERS, "setup.py", "pyproject.toml", "README.md")

WITHOUT_ROS = """
import sys

class NoRos:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("rclpy", "sensor_msgs", "rosidl_generator_py"):
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, NoRos())
import opendrivevla_ros
from opendrivevla_ros.policies.registry import load_policy
assert opendrivevla_ros.__file__.startswith(sys.argv[1]), opendrivevla_ros.__file__
print(load_policy("constant_velocity").info.model_id, load_policy("opendrivevla-small").info.trained)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `pip install --prefix` made, from a copy, so that the tree stays clean."""
    source, prefix = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("prefix")
    for name in COPIED:
        path = REPOSITORY / name
        (shutil.copytree if path.is_dir() else shutil.copy)(path, source / name)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--prefix", str(prefix), str(source)], check=True, timeout=120)
    return prefix


def test_a_policy_loads_where_there_is_no_ros(installed: Path) -> None:
    packages = next(installed.glob("lib/python3*/site-packages"))
    environment = {**os.environ, "PYTHONPATH": str(packages)}
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_ROS, str(packages)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.stdout == "constant_velocity True\n", result.stderr


def test_messages_and_configuration_are_installed(installed: Path) -> None:
    share = installed / "share/opendrivevla_ros"
    assert (share / "msg/PlannedTrajectory.msg").is_file()
    assert (share / "config/vla.param.yaml").is_file()
    assert (installed / "bin/odv").is_file()
