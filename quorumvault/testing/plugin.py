"""The pytest plugin, found by its entry point: fixtures ``vault`` and ``vault_cluster``. It imports nothing until one is used.

To configure fields other than those of a new cluster, define this fixture in conftest.py:

    @pytest.fixture(scope="session")
    def vault_fields():
        return ["$.ssn", "$.name.family"]
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from quorumvault.testing import FakeVault, VaultCluster
    from quorumvault.testing.fake import FakeNode

#: The folder of the run's cluster, and the id of the run's main process, which tells both to the workers of pytest-xdist.
_RUN = pytest.StashKey[tuple[Path, int]]()
_FOLDER, _PROCESS = "quorumvault_folder", "quorumvault_process"


def pytest_configure(config: pytest.Config) -> None:
    told = getattr(config, "workerinput", None)
    if told is not None:
        config.stash[_RUN] = Path(told[_FOLDER]), told[_PROCESS]
    else:  # an unguessable name; the folder is made when it is needed
        config.stash[_RUN] = Path(tempfile.gettempdir(), f"quorumvault-{secrets.token_hex(16)}"), os.getpid()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Called by pytest-xdist before it starts a worker."""
    folder, process = node.config.stash[_RUN]
    node.workerinput |= {_FOLDER: str(folder), _PROCESS: process}


def pytest_unconfigure(config: pytest.Config) -> None:
    folder, process = config.stash[_RUN]
    if process == os.getpid() and folder.exists():
        from quorumvault.testing.cluster import end

        end(folder)


@pytest.fixture(scope="session")
def vault_fields() -> Sequence[str] | None:
    """The fields of records, as JSONPath expressions; None: those of a new cluster. Override this fixture to change them."""
    return None


@pytest.fixture(scope="session")
def _fake_node(vault_fields: Sequence[str] | None) -> Iterator[FakeNode]:
    from quorumvault.testing.fake import FakeNode

    with FakeNode(vault_fields) as node:
        yield node


@pytest.fixture
def vault(_fake_node: FakeNode) -> Iterator[FakeVault]:
    """A client of a vault in memory, new for each test: a ``quorumvault.testing.FakeVault``."""
    from quorumvault.testing import FakeVault

    with FakeVault(_fake_node) as fake:
        yield fake


@pytest.fixture(scope="session")
def vault_cluster(pytestconfig: pytest.Config, vault_fields: Sequence[str] | None) -> Iterator[VaultCluster]:
    """A client of three real nodes, which all tests of the run share: a ``quorumvault.testing.VaultCluster``.

    Values and rotations of one test remain for the next.
    """
    from quorumvault.testing.cluster import VaultCluster, joined

    folder, process = pytestconfig.stash[_RUN]
    with VaultCluster(folder, joined(folder, process, vault_fields)) as cluster:
        yield cluster
