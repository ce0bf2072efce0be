"""A disk restored from an older copy, with real processes: the node never votes with it, and rejoins."""

import shutil
from pathlib import Path

from chaos.testbed.cluster import Cluster
from tests.rigs.clusters import Acknowledged, becomes_active, exits, filled, passes, resolves, streaming, without


def copy_of(cluster: Cluster, node: str) -> Path:
    """A copy of the node's data directory, made while the node is down."""
    copy = cluster.directory / f"copy-of-{node}"
    shutil.copytree(cluster.directory / node, copy, ignore=shutil.ignore_patterns("admin.sock"))
    return copy


def put_back(cluster: Cluster, node: str, copy: Path) -> None:
    shutil.rmtree(cluster.directory / node)
    copy.rename(cluster.directory / node)


def withdraws(cluster: Cluster, node: str, peer: str) -> None:
    """Watches until the process ends: the node never reports that it can serve, and neither node reports its disk as active."""
    process, said = cluster.nodes[node].require_process(), list[tuple[int, str]]()
    while process.poll() is None:
        own, others = cluster.health(node), cluster.health(peer)
        assert others is not None
        seen = others.body["peers"][node]
        assert (seen["status"], seen["state"]) != ("up", "active")
        if own is not None:
            said.append((own.status, own.body["state"]))
    assert {status for status, _ in said} == {503}
    assert said[-1] == (503, "draining")


def write_without_n1(cluster: Cluster, acknowledged: Acknowledged) -> None:
    """Makes n3 rely on n2's acknowledgements. A rollback loses nothing that no other node has relied on."""
    with without(cluster, "n1"):
        acknowledged.tokenize(cluster, "n3", [f"seen by n2 and n3 {number}" for number in range(50)])


def test_a_disk_put_back_while_the_others_run_is_found_out_and_replaced(own_cluster: Cluster) -> None:
    """Proves: rollback marks."""
    acknowledged = filled(own_cluster, 1)
    own_cluster.kill("n2")
    copy = copy_of(own_cluster, "n2")
    own_cluster.bring_up("n2")
    with streaming(own_cluster, acknowledged) as progress:
        passes(progress)
        write_without_n1(own_cluster, acknowledged)
        own_cluster.kill("n2")
        put_back(own_cluster, "n2", copy)
        own_cluster.start("n2")
        withdraws(own_cluster, "n2", "n1")
        assert "put back from an older copy" in exits(own_cluster, "n2", 3)
        own_cluster.start("n2")
        becomes_active(own_cluster, "n2")
        passes(progress)
    for away in ("n1", "n3"):
        with without(own_cluster, away):
            resolves(own_cluster, "n2", acknowledged.tokens)


def test_it_is_found_out_by_nodes_that_were_stopped_meanwhile_and_by_one_alone(own_cluster: Cluster) -> None:
    """n1 keeps its rollback marks on disk. n3 is down, so an undetected rollback would give wrong answers through n1 and n2."""
    acknowledged = Acknowledged()
    own_cluster.stop("n2")
    copy = copy_of(own_cluster, "n2")
    own_cluster.bring_up("n2")
    write_without_n1(own_cluster, acknowledged)
    own_cluster.stop("n1", "n2", "n3")
    put_back(own_cluster, "n2", copy)
    own_cluster.start("n1", "n2")
    exits(own_cluster, "n2", 3)
    own_cluster.start("n2", "n3")
    becomes_active(own_cluster, "n2")
    resolves(own_cluster, "n2", acknowledged.tokens)


def test_a_disk_that_is_moved_without_losing_anything_is_taken_for_what_it_is(own_cluster: Cluster) -> None:
    acknowledged = filled(own_cluster, 1)
    own_cluster.stop("n2")
    put_back(own_cluster, "n2", copy_of(own_cluster, "n2"))
    own_cluster.bring_up("n2")
    own_cluster.kill("n1")
    resolves(own_cluster, "n2", acknowledged.tokens)
