"""How a process that is a node ends: in a process of its own, since signals are its matter."""

import subprocess
import sys

import pytest

HEAD = """
import os, signal
import rclpy
from opendrivevla_ros.ros.spinning import running
"""
FAILS_BY_CTRL_C = """
with running():
    try:
        os.kill(os.getpid(), signal.SIGINT)
        signal.pause()
    except KeyboardInterrupt:
        raise SystemError("a conversion was interrupted")  # as extension modules put it
"""
SHUT_DOWN_BETWEEN = """
asked, is_ok = [], rclpy.ok
def ok():
    was = is_ok()
    if was and not asked:
        asked.append(True)
        rclpy.get_default_context()._Context__context.shutdown()
    return was
with running():
    rclpy.ok = ok
    raise KeyboardInterrupt
"""
FAILS_BY_ITSELF = """
with running():
    raise ValueError("of its own")
"""


@pytest.mark.parametrize(
    ("script", "exit_code"),
    [(FAILS_BY_CTRL_C, 0), (SHUT_DOWN_BETWEEN, 0), (FAILS_BY_ITSELF, 1)],
    ids=["what Ctrl-C interrupts fails", "ROS is shut down meanwhile", "an error of its own"],
)
def test_only_an_error_of_its_own_ends_a_node_with_one(script: str, exit_code: int) -> None:
    done = subprocess.run([sys.executable, "-c", HEAD + script], capture_output=True, text=True, timeout=60)
    assert done.returncode == exit_code, done.stderr
    assert ("of its own" in done.stderr) == (exit_code == 1)
