"""Stores with unreadable blocks, on real disks: every node reports them, and the nodes repair each other while any disk can."""

import json
from pathlib import Path

import pytest

from chaos.testbed.cluster import NODES, Cluster, run, wait_for
from chaos.testbed.host import flip_bits
from tests.rigs.clusters import (
    OWNER,
    SECONDS,
    Acknowledged,
    becomes_active,
    exits,
    filled,
    health,
    identical,
    metrics,
    resolves,
    through_each_pair,
)

#: Where bits flip, as shares of each store's largest table. n1 and n2 share one damaged part, which only n3 can still read.
FLIPPED = {"n1": (0.3, 0.6), "n2": (0.6, 0.8)}


def flip(store: Path, *places: float) -> None:
    table = max(store.glob("*.ldb"), key=lambda path: path.stat().st_size)
    size = table.stat().st_size
    flip_bits(table, [(int(size * place), 1) for place in places])


@pytest.fixture
def damaged(own_cluster: Cluster) -> tuple[Cluster, Acknowledged]:
    """Two stores have damaged blocks, and no running process has read them yet."""
    acknowledged = filled(own_cluster, 6)
    assert wait_for(lambda: identical(own_cluster, 6000), SECONDS)
    own_cluster.stop()
    own_cluster.bring_up(*NODES)  # by now the logs have been written to tables
    own_cluster.kill()
    for node, places in FLIPPED.items():
        flip(own_cluster.nodes[node].data / "store", *places)
    return own_cluster, acknowledged


def tells_what_it_knows(cluster: Cluster, node: str, tokens: dict[str, str]) -> None:
    """Every token resolves to its value or is "unavailable": where two stores are unreadable, the third alone is not enough."""
    answer = cluster.api(node, OWNER).detokenize(list(tokens.values()))
    assert answer.status == 200, answer
    told = dict(zip(tokens, answer.body["results"], strict=True))
    unknown = {value for value, result in told.items() if result.get("value") != value}
    assert all(told[value]["status"] == "unavailable" for value in unknown), [told[value] for value in unknown]
    assert 0 < len(unknown) < 100


def says_damaged(cluster: Cluster, node: str, about: str) -> bool:
    return metrics(cluster, node)[f'quorumvault_store_damaged{{node="{about}"}}'] == 1


def gaps(cluster: Cluster) -> dict[str, float]:
    return {node: metrics(cluster, node)[f'quorumvault_store_gaps{{node="{node}"}}'] for node in NODES}


def test_two_damaged_stores_are_known_everywhere_and_mend_each_other(damaged: tuple[Cluster, Acknowledged]) -> None:
    """No node reports anything as absent, and everything that some disk can read ends up on all three.

    Proves: what is not known is not absent.
    """
    cluster, acknowledged = damaged
    cluster.start()
    cluster.wait_ready()
    assert wait_for(lambda: all(says_damaged(cluster, node, about) for node in NODES for about in FLIPPED), SECONDS)
    for node in NODES:
        words = " ".join(health(cluster, node).body["warnings"])
        assert "damaged" in words
        assert health(cluster, node).body["status"] == "degraded"
        tells_what_it_knows(cluster, node, acknowledged.tokens)
    for node in FLIPPED:  # one after the other, restarted as by a service manager
        identity = cluster.identity(node)["disk"]
        assert "a block of its store fails its checksum" in exits(cluster, node, 3)
        cluster.start(node)
        becomes_active(cluster, node)
        assert cluster.identity(node)["disk"] == identity
    # n1 and n2 each keep one gap: the part that neither of them could read. Every record that a disk has is on all three.
    assert wait_for(lambda: gaps(cluster) == {"n1": 1, "n2": 1, "n3": 0}, SECONDS), gaps(cluster)
    through_each_pair(cluster, lambda node: resolves(cluster, node, acknowledged.tokens))
    for node in NODES:
        assert "does not know" in " ".join(health(cluster, node).body["warnings"]), node
    told = run("repair", str(cluster.directory), "--node", "n1", "--json")
    assert (told.returncode, json.loads(told.stdout)["gaps"]) == (1, 1)
    told = run("repair", str(cluster.directory), "--node", "n1", "--accept-loss")
    assert told.returncode == 0, told
    assert b"gave up 1 parts" in told.stdout
    assert run("repair", str(cluster.directory), "--node", "n2").returncode in (0, 1)
    assert wait_for(lambda: set(gaps(cluster).values()) == {0}, SECONDS)
    assert wait_for(lambda: identical(cluster, 6000), SECONDS)
    assert wait_for(lambda: all(health(cluster, node).body["status"] == "ok" for node in NODES), SECONDS)
