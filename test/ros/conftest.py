"""One vla_node process and one client for all tests of a file that can share them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from ros.harness import Client, NodeProcess, own_domain


@pytest.fixture(scope="module")
def domain() -> int:
    return own_domain()


@pytest.fixture(scope="module")
def node(domain: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """Runs constant_velocity; one of its cameras is raw."""
    folder: Path = tmp_path_factory.mktemp("node")
    snapshots = str(folder / "snapshots")
    node = NodeProcess(folder, domain, sync__frozen_after=5, snapshot_folder=snapshots)
    yield node
    node.end()


@pytest.fixture(scope="module")
def client(domain: int, node: NodeProcess) -> Iterator[Client]:
    client = Client(domain)
    yield client
    client.close()
