"""A running cluster of three real processes, for tests that only ask it things, and one of their own for those that break it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chaos.testbed.cluster import Cluster

OWNERS = ("clinic", "registry", "bench")


def _running(directory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster.create(directory.mktemp("vault") / "cluster", OWNERS) as made:
        made.start()
        made.wait_ready(reachable=3)
        yield made


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One for the module. Whoever kills or freezes a node takes ``own_cluster``."""
    yield from _running(tmp_path_factory)


@pytest.fixture
def own_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One for this test alone."""
    yield from _running(tmp_path_factory)
