"""One vla_node process and one client for all tests that can share them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from ros.harness import Client, NodeProcess, own_domain


@pytest.fixture(scope="package")
def domain() -> int:
    return own_domain()


@pytest.fixture(scope="package")
def node(domain: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """Runs constant_velocity; one of its cameras is raw."""
    folder: Path = tmp_path_factory.mktemp("node")
    snapshots = str(folder / "snapshots")
    node = NodeProcess(folder, domain, sync__frozen_after=5, snapshot_folder=snapshots)
    yield node
    node.end()


@pytest.fixture(scope="package")
def client(domain: int, node: NodeProcess) -> Iterator[Client]:
    client = Client(domain)
    yield client
    client.close()
