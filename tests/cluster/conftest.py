"""A running cluster of three real processes, for tests that only ask it things, and one of their own for those that break it."""

from collections.abc import Iterator

import pytest

from chaos.testbed.cluster import Cluster

OWNERS = ("clinic", "registry", "bench")


def _running(made: Cluster) -> Cluster:
    made.bring_up()
    return made


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One for the module. Whoever kills or freezes a node takes ``own_cluster``."""
    with Cluster.create(tmp_path_factory.mktemp("vault") / "cluster", OWNERS) as made:
        yield _running(made)


@pytest.fixture
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One for this test alone, of which no node was started."""
    with Cluster.create(tmp_path_factory.mktemp("vault") / "cluster", OWNERS) as made:
        yield made


@pytest.fixture
def own_cluster(made: Cluster) -> Cluster:
    """One for this test alone."""
    return _running(made)
