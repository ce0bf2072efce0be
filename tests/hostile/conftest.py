"""A cluster in which each node may use at most 1.5 GB of memory, and the attacker has two keys."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.testbed.cluster import Cluster, check
from tests.hostile.limited import LOUD, LOUD_TOO, QUIET

#: Bytes of address space, which is more than the memory in use.
LIMIT = 1_500_000_000


def second_key(directory: Path, first: str) -> str:
    """A key made by rotating the first one, which stays valid for a while."""
    key_id, config = first.split("_")[1], str(directory / "cluster.yaml")
    key: str = json.loads(check("keys", "rotate", key_id, "--grace", "24h", "--config", config, "--json"))["key"]
    return key


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    first = Cluster.create(tmp_path_factory.mktemp("limited") / "cluster", (LOUD, QUIET))
    keys = {owner: first.api_key(owner) for owner in (LOUD, QUIET)}
    keys[LOUD_TOO] = second_key(first.directory, keys[LOUD])
    with Cluster(first.directory, {name: node.address for name, node in first.nodes.items()}, keys) as made:
        for node in made.nodes.values():
            node.within = (str(shutil.which("prlimit")), f"--as={LIMIT}")
        made.bring_up()
        for node in made.nodes.values():
            node.log.write_bytes(b"")  # drops what a starting node logs about peers that are not up yet
        yield made
