"""Clusters of three real processes: one shared by tests that only send requests, and one for each test that breaks nodes."""

from collections.abc import Iterator

import pytest

from chaos.testbed.cluster import Cluster

OWNERS = ("clinic", "registry", "bench")


def _running(made: Cluster) -> Cluster:
    made.bring_up()
    return made


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One cluster for the module. A test that kills or freezes a node uses ``own_cluster`` instead."""
    with Cluster.create(tmp_path_factory.mktemp("vault") / "cluster", OWNERS) as made:
        yield _running(made)


@pytest.fixture
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster for this test alone. None of its nodes has been started."""
    with Cluster.create(tmp_path_factory.mktemp("vault") / "cluster", OWNERS) as made:
        yield made


@pytest.fixture
def own_cluster(made: Cluster) -> Cluster:
    """A running cluster for this test alone."""
    return _running(made)
