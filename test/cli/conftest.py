"""What the tests of the command line share: a short bag, a ROS domain, and the command as a process."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ros.harness import own_domain

from opendrivevla_ros.cli.processes import Process, loopback_environment
from opendrivevla_ros.datasets.world_bag import write_world_bag

STREET_SECONDS = 2.5


@pytest.fixture(scope="session")
def street_bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two and a half seconds of six small cameras; tests must not change it."""
    path = tmp_path_factory.mktemp("street") / "bag"
    write_world_bag(path, duration_s=STREET_SECONDS, image_size=(320, 180))
    return path


@pytest.fixture(scope="session")
def domain() -> int:
    return own_domain()


@pytest.fixture(scope="session")
def environment(domain: int) -> dict[str, str]:
    """Loopback only, in `domain`."""
    return loopback_environment(domain)


@pytest.fixture
def odv(environment: dict[str, str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `odv` with arguments to its end."""

    def run(*arguments: str, timeout_s: float = 100.0, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "opendrivevla_ros.cli.main", *arguments],
            env={**os.environ, **environment, "COLUMNS": "200", **variables},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    return run


@pytest.fixture
def start(environment: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts a module of the package with arguments; it is stopped after the test."""
    started: list[Process] = []

    def begin(module: str, *arguments: str) -> Process:
        log = tmp_path / f"{module}_{len(started)}.log"
        name = f"opendrivevla_ros.{module}"
        started.append(Process(module, name, arguments, log=log, environment=environment))
        return started[-1]

    yield begin
    for process in started:
        process.stop()


@pytest.fixture
def ros_node(environment: dict[str, str], domain: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An rclpy node in `domain`, with a context and an executor of its own (`node.executor`)."""
    import rclpy
    from rclpy.executors import SingleThreadedExecutor

    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain)
    node = rclpy.create_node("test_listener", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    yield node
    executor.shutdown()
    node.destroy_node()
    rclpy.shutdown(context=context)
