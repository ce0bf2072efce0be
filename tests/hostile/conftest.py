"""A cluster whose nodes may have no more than 1.5 GB of memory each."""

import shutil
from collections.abc import Iterator

import pytest

from chaos.testbed.cluster import Cluster
from tests.hostile.limited import LOUD, QUIET

#: Bytes of address space, which is more than what is in memory.
LIMIT = 1_500_000_000


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster.create(tmp_path_factory.mktemp("limited") / "cluster", (LOUD, QUIET)) as made:
        for node in made.nodes.values():
            node.within = (str(shutil.which("prlimit")), f"--as={LIMIT}")
        made.bring_up()
        for node in made.nodes.values():
            node.log.write_bytes(b"")  # what a start says of peers that are not there yet
        yield made
