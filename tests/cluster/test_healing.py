"""Three processes converge by themselves: hinted handoff or anti-entropy brings a node the writes that it missed."""

from chaos.testbed.cluster import NODES, Cluster, check, wait_for
from tests.rigs.clusters import SECONDS, Acknowledged, filled, identical, resolves


def test_what_a_node_missed_reaches_it_when_it_is_back_and_nobody_reads(own_cluster: Cluster) -> None:
    own_cluster.api("n1", "clinic").tokenize([f"before {number}" for number in range(100)])
    own_cluster.kill("n3")
    for via in ("n1", "n2"):
        own_cluster.api(via, "clinic").tokenize([f"{via} while n3 is away {number}" for number in range(500)])
        own_cluster.api(via, "registry").tokenize([f"{via} {number}" for number in range(50)])
    assert own_cluster.api("n1", "registry").post("/rotate-epoch", {"from_epoch": 1}).status == 200
    assert own_cluster.owed("n2", "n3") == 550
    # Two nodes acknowledged the first hundred. n3 may have died before it stored them.
    assert own_cluster.owed("n1", "n3") in (550, 650)
    own_cluster.bring_up("n3")
    assert wait_for(lambda: own_cluster.owed("n1", "n3") + own_cluster.owed("n2", "n3") == 0, SECONDS)
    assert wait_for(lambda: identical(own_cluster, 1200), SECONDS)
    assert "read_repair" not in (own_cluster.directory / "n1" / "events.jsonl").read_text()


def test_hints_that_died_with_their_coordinator_are_made_up_for_by_a_repair(own_cluster: Cluster) -> None:
    own_cluster.kill("n3")
    own_cluster.api("n1", "clinic").tokenize([f"{number}" for number in range(300)])
    own_cluster.kill("n1")  # perhaps before it stored its hints
    own_cluster.bring_up("n1", "n3")
    check("repair", str(own_cluster.directory), "--node", "n2", "--json")
    assert wait_for(lambda: identical(own_cluster, 300), SECONDS)


def test_lag_behind_a_stopped_peer_grows_and_drains_and_reads_are_right_throughout(own_cluster: Cluster) -> None:
    acknowledged = Acknowledged()
    acknowledged.tokenize(own_cluster, "n1", [f"{number}" for number in range(50)])
    own_cluster.pause("n2")
    seen = [0]
    for batch in range(5):
        acknowledged.tokenize(own_cluster, "n1", [f"batch {batch} value {number}" for number in range(100)])
        assert wait_for(lambda: own_cluster.owed("n1", "n2") > seen[-1], SECONDS)
        seen.append(own_cluster.owed("n1", "n2"))
        resolves(own_cluster, "n1", acknowledged.tokens)
    own_cluster.resume("n2")
    assert wait_for(lambda: own_cluster.owed("n1", "n2") == 0, SECONDS)
    own_cluster.wait_ready("n2")  # n2 accepts no API key until it has asked which keys were revoked in the meantime
    for via in NODES:
        resolves(own_cluster, via, acknowledged.tokens)
    assert wait_for(lambda: identical(own_cluster, 550), SECONDS)


def test_flipped_bits_on_disk_are_never_believed_and_the_store_comes_back_whole(own_cluster: Cluster) -> None:
    """One bit flips in every tenth of each table of n3. Its process ends when it reads one, and rejoins on its next start."""
    acknowledged = filled(own_cluster, 2)
    own_cluster.stop("n3")
    own_cluster.start("n3")  # writes its log to tables
    own_cluster.wait_ready(reachable=3)
    own_cluster.stop("n3")
    for table in (own_cluster.directory / "n3" / "store").glob("*.ldb"):
        data = bytearray(table.read_bytes())
        for tenth in range(10):
            data[len(data) * tenth // 10 + len(data) // 20] ^= 0x20
        table.write_bytes(bytes(data))
    for condition in (_ended, lambda cluster, node: cluster.state(node) == "active"):
        own_cluster.start("n3")
        assert wait_for(lambda: condition(own_cluster, "n3"), SECONDS)  # noqa: B023
        for via in ("n1", "n2"):
            resolves(own_cluster, via, acknowledged.tokens)
    resolves(own_cluster, "n3", acknowledged.tokens)
    assert wait_for(lambda: identical(own_cluster, len(acknowledged.tokens)), SECONDS)
    assert wait_for(lambda: not list(own_cluster.directory.glob("n3/store.set-aside-*")), SECONDS)


def _ended(cluster: Cluster, node: str) -> bool:
    """Whether the node ended with the exit code for a store that cannot be trusted."""
    process = cluster.nodes[node].process
    return process is not None and process.poll() == 3
