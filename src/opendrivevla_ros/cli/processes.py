"""Processes that a command starts: their ROS environment, their log, and their clean end."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from opendrivevla_ros.core.installation import install_file

LOOPBACK_PROFILE = "config/dds/loopback.xml"
STOP_TIMEOUT_S = 15.0


def loopback_environment(domain: int) -> dict[str, str]:
    """The variables that keep ROS on this machine and in a domain of its own."""
    profile = str(install_file(LOOPBACK_PROFILE))
    return {
        "FASTRTPS_DEFAULT_PROFILES_FILE": profile,
        "FASTDDS_DEFAULT_PROFILES_FILE": profile,
        "RMW_IMPLEMENTATION": "rmw_fastrtps_cpp",
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "SYSTEM_DEFAULT",
        "ROS_DOMAIN_ID": str(domain),
    }


class Process:
    """A Python module in a process and a session of its own, which `stop` ends; a context manager.

    name: for messages. log: where its output goes. environment: variables beside those of this process.
    """

    def __init__(
        self,
        name: str,
        module: str,
        arguments: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name, self.log = name, log
        with log.open("wb") as output:
            # A session of its own: Ctrl-C in the terminal ends the command, which then ends this one in order.
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})},
                start_new_session=True,
            )

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._process.poll()

    @property
    def last_words(self) -> str:
        """The last line of its log, or "nothing"."""
        lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1] if lines else "nothing"

    def stop(self) -> int:
        """Interrupts it as Ctrl-C does, kills it when that does not help, and returns its exit code."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        try:
            return self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
